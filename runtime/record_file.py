"""MXNet's RecordIO files (``.rec`` with its ``.idx``), read and written without MXNet, whose own reader ends the process where a file is damaged.

A record is one part, or several: parts are cut where the payload holds the magic number at a multiple of four bytes, and the magic is left out there.

    part      magic (4 bytes)   kind << 29 | length (4 bytes)   length bytes   zeros up to a multiple of four
    payload   label width L, or 0 (u32)   label (f32)   id (u64)   0 (u64)   L × f32   image

Everything is little-endian. Kind 0 is a whole record; 1, 2 and 3 are the first, a middle and the last part of one.
"""
import contextlib
import os
import struct
from typing import NamedTuple

import numpy as np

from .errors import DataError
from .files import naming, written_whole

MAGIC = struct.pack('<I', 0xced7230a)
_PART = struct.Struct('<4sI')
_HEADER = struct.Struct('<IfQQ')
_LENGTH = (1 << 29) - 1
WHOLE, FIRST, MIDDLE, LAST = range(4)
_BLOCK = 1 << 20  # read at once where the index does not say how far a record reaches


class Record(NamedTuple):
    """One image: its key in the index, its label, float32 of shape (L,), and the bytes of the image file."""
    key: int
    label: np.ndarray
    image: bytes


class RecordFile:
    """The records of ``rec_path`` in the order of ``idx_path``, or without an index in the order of the file, found by scanning it.

    Damage costs the records it touches and no others: only reading them raises DataError. ``keys``, an int64 array, are those of the index; after a scan they
    are the records' own ids, -1 where damaged. The file is opened at the first read and read by position, so an object may be forked, pickled and shared by
    threads. Raises DataError if the index is no index, OSError if a file cannot be opened.
    """

    def __init__(self, rec_path, idx_path=None):
        self.path = rec_path
        self._file = None
        with naming(rec_path):
            self._size = os.path.getsize(rec_path)
        if idx_path is None:
            self.keys, self._offsets = _scanned(self._bytes, self._size)
        else:
            self.keys, self._offsets = _read_index(idx_path)
        starts = np.append(np.unique(self._offsets), max(self._size, self._offsets.max(initial=0)))
        self._ends = starts[np.searchsorted(starts, self._offsets, side='right').clip(max=len(starts) - 1)].clip(max=self._size)

    def __len__(self):
        return len(self.keys)

    def __getstate__(self):
        return {**self.__dict__, '_file': None}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Close the file; the next read opens it again."""
        if self._file:
            self._file.close()
        self._file = None

    def read(self, position):
        """The Record at ``position``, 0 … len - 1. Raises DataError that names the file, the key, the offset and what is wrong there."""
        with self._naming(position):
            label, image = _unpacked(self._payload(position))
            if not image:
                raise _Damage('holds no image')
            return Record(int(self.keys[position]), label, image)

    def labels(self):
        """The labels of all records, float32 of shape (records, L), L being the width that most have; NaN for the others and for damaged records."""
        found = [self._label(position) for position in range(len(self))]
        widths = [len(label) for label in found if label is not None]
        labels = np.full((len(self), max(set(widths), key=widths.count) if widths else 1), np.nan, np.float32)
        for row, label in zip(labels, found):
            if label is not None and len(label) == len(row):
                row[:] = label
        return labels

    def _label(self, position):
        offset, end = int(self._offsets[position]), int(self._ends[position])
        with contextlib.suppress(_Damage):
            head = self._bytes(offset, _PART.size + _HEADER.size)
            kind, length = _part(head)
            if kind == WHOLE and _PART.size + length <= end - offset and len(head) == _PART.size + _HEADER.size:
                width = _HEADER.unpack_from(head, _PART.size)[0]
                if _HEADER.size + 4 * width > length:
                    return None
                return _unpacked(head[_PART.size:] + (self._bytes(offset + len(head), 4 * width) if width else b''))[0]
            return _unpacked(self._payload(position))[0]
        return None

    def _payload(self, position):
        """The payload of a record, its parts joined."""
        offset, end = int(self._offsets[position]), int(self._ends[position])
        if offset >= self._size:
            raise _Damage(f'lies behind the end of the file, at {self._size}')
        extent = end - offset
        block = self._bytes(offset, min(extent, _BLOCK))
        while True:
            try:
                return _joined(block, extent, is_last=end == self._size)
            except _Incomplete as more:
                longer = self._bytes(offset, min(max(2 * len(block), more.size), extent))
            if len(longer) <= len(block):
                raise _Damage('is cut off: the file has become shorter')
            block = longer

    def _bytes(self, offset, size):
        """Up to ``size`` bytes from ``offset``: fewer only at the end of the file."""
        with naming(self.path):
            if self._file is None:
                self._file = open(self.path, 'rb', buffering=0)  # noqa: SIM115  (open for as long as this object lives)
            return os.pread(self._file.fileno(), size, offset)

    @contextlib.contextmanager
    def _naming(self, position):
        try:
            yield
        except _Damage as damage:
            raise DataError(f'{self.path}: record {self.keys[position]} at byte {self._offsets[position]} {damage}') from None


class RecordWriter:
    """A context that writes ``rec_path`` and ``idx_path``, byte for byte as ``mx.recordio.MXIndexedRecordIO`` would; both appear at the end, or neither."""

    def __init__(self, rec_path, idx_path):
        self._paths = rec_path, idx_path
        self._offset = 0

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self._rec, self._idx = (stack.enter_context(open(stack.enter_context(written_whole(path)), 'wb')) for path in self._paths)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error):
        return self._stack.__exit__(*error)

    def write(self, key, label, image):
        """Add an image, ``label`` being a number or a sequence of numbers. Raises DataError if it is too long for the format."""
        record = framed(packed(key, label, image))
        self._rec.write(record)
        self._idx.write(b'%d\t%d\n' % (key, self._offset))
        self._offset += len(record)


def packed(key, label, image):
    """The payload of a record, as ``mx.recordio.pack`` makes it."""
    if np.ndim(label) == 0:
        return _HEADER.pack(0, label, key, 0) + image
    label = np.asarray(label, '<f4')
    return _HEADER.pack(label.size, 0, key, 0) + label.tobytes() + image


def framed(payload):
    """The bytes of a record in the file. Raises DataError if ``payload`` is too long for the format."""
    if len(payload) > _LENGTH:
        raise DataError(f'a record of {len(payload)} bytes is too long: RecordIO holds {_LENGTH} at most')
    cuts = list(_aligned_magics(payload))
    parts, begin = [], 0
    for cut in cuts:
        parts += _PART.pack(MAGIC, (MIDDLE if begin else FIRST) << 29 | cut - begin), payload[begin:cut]
        begin = cut + 4
    parts += _PART.pack(MAGIC, (LAST if begin else WHOLE) << 29 | len(payload) - begin), payload[begin:], bytes(-len(payload) % 4)
    return b''.join(parts)


class _Damage(Exception):
    """What is wrong with a record; the message continues "record 5 at byte 100 …"."""


class _Incomplete(Exception):
    """A record needs ``size`` bytes, and more were not read yet."""

    def __init__(self, size):
        super().__init__(size)
        self.size = size


def _aligned_magics(data):
    """Where ``data`` holds the magic at a multiple of four bytes, as the writer of MXNet sees it."""
    place = data.find(MAGIC)
    while place >= 0:
        if place % 4 == 0:
            yield place
        place = data.find(MAGIC, place + (4 if place % 4 == 0 else 1))


def _part(head):
    """The kind and length that the first eight bytes of a part tell."""
    if len(head) < _PART.size:
        raise _Damage(f'is cut off after {len(head)} bytes')
    magic, word = _PART.unpack_from(head)
    if magic != MAGIC:
        raise _Damage(f'begins with {magic.hex()} in place of the magic number {MAGIC.hex()}')
    return word >> 29, word & _LENGTH


def _joined(block, extent, is_last):
    """The payload of the record at the start of ``block``, which may reach ``extent`` bytes, up to the next record or the end of the file."""
    parts, place = [], 0
    while True:
        if place + _PART.size > len(block):
            raise _Damage('is cut off') if len(block) >= extent else _Incomplete(place + _PART.size)
        kind, length = _part(block[place:place + _PART.size])
        if kind not in ((MIDDLE, LAST) if parts else (WHOLE, FIRST)):
            raise _Damage(f'has a part of kind {kind} where {"2 or 3" if parts else "0 or 1"} must stand')
        begin = place + _PART.size
        place = begin + length + -length % 4
        if place > extent:
            raise _Damage(f'says that it has {length} bytes, which is beyond the end of the file' if is_last
                          else f'says that it has {length} bytes, which is beyond the start of the next record')
        if place > len(block):
            raise _Incomplete(place)
        parts.append(block[begin:begin + length])
        if kind in (WHOLE, LAST):
            break
    if place < extent and block[place:place + 4] not in (MAGIC, b''):
        raise _Damage(f'says that it has {length} bytes, after which no other record begins')
    return MAGIC.join(parts)


def _unpacked(payload):
    """The label and the image of a payload."""
    if len(payload) < _HEADER.size:
        raise _Damage(f'has {len(payload)} bytes, fewer than the {_HEADER.size} of its header')
    width, label, _, _ = _HEADER.unpack_from(payload)
    begin = _HEADER.size + 4 * width
    if begin > len(payload):
        raise _Damage(f'says that its label has {width} numbers, which do not fit into its {len(payload)} bytes')
    if width == 0:
        return np.array([label], np.float32), payload[_HEADER.size:]
    return np.frombuffer(payload, '<f4', width, _HEADER.size).astype(np.float32), payload[begin:]


def _read_index(path):
    """The keys and offsets of an ``.idx`` file, int64 arrays."""
    with open(path, 'rb') as lines:
        text = lines.read()
    try:
        table = np.array(text.split(), np.int64).reshape(-1, 2) if text.strip() else np.empty((0, 2), np.int64)
    except (ValueError, OverflowError):
        table = None
    if table is None or text.count(b'\n') not in (len(table), len(table) - 1) or (table[:, 1] < 0).any():
        raise DataError(f'{path}: line {_first_bad_line(text)} is not a key and an offset, separated by a tab; make the index again')
    return table[:, 0].copy(), table[:, 1].copy()


def _first_bad_line(text):
    for number, line in enumerate(text.split(b'\n'), 1):
        words = line.split()
        if len(words) != 2 or not words[1].isdigit() or not words[0].lstrip(b'-').isdigit() or max(map(len, words)) > 18:
            return number
    return number


def _scanned(read, size):
    """The ids and offsets of the records of a file of ``size`` bytes, and of each damaged stretch between them, by following the framing."""
    ids, offsets = [], []
    place = 0
    while place < size:
        head = read(place, _PART.size + _HEADER.size)
        end = _end_of_record(read, place, head, size)
        ids.append(_id(head) if end else -1)
        offsets.append(place)
        place = end or _next_start(read, place + 4, size)
    return np.array(ids, np.int64), np.array(offsets, np.int64)


def _end_of_record(read, place, head, size):
    """Where the record at ``place`` ends, if its framing holds and another record or the end of the file follows."""
    with contextlib.suppress(_Damage):
        kind, length = _part(head)
        if kind not in (WHOLE, FIRST):
            return None
        place += _PART.size + length + -length % 4
        while kind in (FIRST, MIDDLE):
            kind, length = _part(read(place, _PART.size))
            if kind not in (MIDDLE, LAST):
                return None
            place += _PART.size + length + -length % 4
        if place == size or (place < size and read(place, 4) == MAGIC):
            return place
    return None


def _next_start(read, place, size):
    """The next aligned magic from ``place`` on that begins a record, or the end of the file."""
    while place < size:
        block = read(place, _BLOCK)
        for found in _aligned_magics(block):
            word = block[found + 4:found + 8] or read(place + found + 4, 4)
            if len(word) == 4 and word[3] >> 5 in (WHOLE, FIRST):
                return place + found
        place += len(block)
    return size


def _id(head):
    """The id in a record's header, -1 where it lies in another part or is none that an index could hold."""
    if len(head) < _PART.size + _HEADER.size or head[7] >> 5 != WHOLE:
        return -1
    number = _HEADER.unpack_from(head, _PART.size)[2]
    return number if number < 1 << 63 else -1
