"""The bytes of MXNet's RecordIO, apart from the files: records are made here, and read with every number checked.

A record is one part, or several: parts are cut where the payload holds the magic number at a multiple of four bytes,
and the magic is left out there.

    part      magic (4 bytes)   kind << 29 | length (4 bytes)   length bytes   zeros up to a multiple of four
    payload   label width L, or 0 (u32)   label (f32)   id (u64)   0 (u64)   L × f32   image

Everything is little-endian. Kind 0 is a whole record; 1, 2 and 3 are the first, a middle and the last part of one.
"""

import struct
from typing import Iterator, List, Sequence, Tuple, Union

import numpy as np

from runtime.errors import DataError

MAGIC = struct.pack('<I', 0xCED7230A)
PART = struct.Struct('<4sI')
HEADER = struct.Struct('<IfQQ')
WHOLE, FIRST, MIDDLE, LAST = range(4)
_LENGTH = (1 << 29) - 1
_LABEL_WIDTH = 1 << 16  # far above any set: detection has a few hundred numbers
Label = Union[float, Sequence[float], np.ndarray]


class Damage(Exception):
    """What is wrong with a record; the message continues "record 5 at byte 100 …"."""


class Incomplete(Exception):
    """A record needs ``size`` bytes, and fewer were read yet."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


def packed(key: int, label: Label, image: bytes) -> bytes:
    """The payload of a record, as ``mx.recordio.pack`` makes it: ``key`` is its id, ``image`` the bytes of the image
    file.
    """
    if np.ndim(label) == 0:
        return HEADER.pack(0, label, key, 0) + image
    label = np.asarray(label, '<f4')
    return HEADER.pack(label.size, 0, key, 0) + label.tobytes() + image


def framed(payload: bytes) -> bytes:
    """The bytes of a record in the file. Raises DataError if ``payload`` is too long for the format."""
    if len(payload) > _LENGTH:
        raise DataError(f'a record of {len(payload)} bytes is too long: RecordIO holds {_LENGTH} at most')
    cuts = list(aligned_magics(payload))
    parts: List[bytes] = []
    begin = 0
    for cut in cuts:
        parts += PART.pack(MAGIC, (MIDDLE if begin else FIRST) << 29 | cut - begin), payload[begin:cut]
        begin = cut + 4
    parts += (
        PART.pack(MAGIC, (LAST if begin else WHOLE) << 29 | len(payload) - begin),
        payload[begin:],
        bytes(-len(payload) % 4),
    )
    return b''.join(parts)


def aligned_magics(data: bytes) -> Iterator[int]:
    """The positions, multiples of four bytes, where ``data`` holds the magic number, as MXNet's writer finds them."""
    place = data.find(MAGIC)
    while place >= 0:
        if place % 4 == 0:
            yield place
        place = data.find(MAGIC, place + (4 if place % 4 == 0 else 1))


def kind_and_length(head: bytes) -> Tuple[int, int]:
    """The kind of a part and the length of its data in bytes, which its first eight bytes say. Raises Damage."""
    if len(head) < PART.size:
        raise Damage(f'is cut off after {len(head)} bytes')
    magic, word = PART.unpack_from(head)
    if magic != MAGIC:
        raise Damage(f'begins with {magic.hex()} in place of the magic number {MAGIC.hex()}')
    return word >> 29, word & _LENGTH


def joined(block: bytes, extent: int, is_last: bool) -> bytes:
    """The payload of the record at the start of ``block``, its parts joined. The record may take up to ``extent``
    bytes, which end at the next record, or for the last one (``is_last``) at the end of the file.

    Raises Damage, and Incomplete where ``block`` holds less than the record.
    """
    parts: List[bytes] = []
    place = 0
    while True:
        if place + PART.size > len(block):
            raise Damage('is cut off') if len(block) >= extent else Incomplete(place + PART.size)
        kind, length = kind_and_length(block[place : place + PART.size])
        if kind not in ((MIDDLE, LAST) if parts else (WHOLE, FIRST)):
            raise Damage(f'has a part of kind {kind} where {"2 or 3" if parts else "0 or 1"} must stand')
        begin = place + PART.size
        place = begin + length + -length % 4
        if place > extent:
            raise Damage(
                f'says that it has {length} bytes, which is beyond the end of the file'
                if is_last
                else f'says that it has {length} bytes, which is beyond the start of the next record'
            )
        if place > len(block):
            raise Incomplete(place)
        parts.append(block[begin : begin + length])
        if kind in (WHOLE, LAST):
            break
    if place < extent and block[place : place + 4] not in (MAGIC, b''):
        raise Damage(f'says that it has {length} bytes, after which no other record begins')
    return MAGIC.join(parts)


def unpacked(payload: bytes) -> Tuple[np.ndarray, bytes]:
    """The label, float32 of shape (L,), and the image of a payload. Raises Damage."""
    if len(payload) < HEADER.size:
        raise Damage(f'has {len(payload)} bytes, fewer than the {HEADER.size} of its header')
    width = label_width(payload, len(payload))
    if width:
        return np.frombuffer(payload, '<f4', width, HEADER.size).astype(np.float32), payload[HEADER.size + 4 * width :]
    return np.array([HEADER.unpack_from(payload)[1]], np.float32), payload[HEADER.size :]


def label_width(header: bytes, length: int) -> int:
    """How many numbers the label of a payload of ``length`` bytes has behind its ``header``; 0 where its only number is
    in the header. Raises Damage.
    """
    width = HEADER.unpack_from(header)[0]
    if width > _LABEL_WIDTH or HEADER.size + 4 * width > length:
        raise Damage(f'says that its label has {width} numbers, which its {length} bytes cannot hold')
    return width
