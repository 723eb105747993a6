"""Where the records of a ``.rec`` file begin: as its ``.idx`` says, or found by following the lengths in the file, and
behind damage by a search for the next record.
"""

import contextlib
import warnings
from typing import Callable, Optional, Tuple

import numpy as np

from runtime.errors import DataError
from runtime.reading import MB, read_bytes

from .record_format import FIRST, HEADER, LAST, MAGIC, MIDDLE, PART, WHOLE, Damage, aligned_magics, kind_and_length

# 20 bytes a record: enough for 25 million records.
MAX_BYTES = 512 * MB
MAX_LINE = 100
# No image is longer; where no record begins for that many bytes, the rest of the file is lost.
LONGEST = 1 << 26
_BLOCK = 1 << 20  # bytes read at once in search of the next record, at most


def read_index(path: str) -> Tuple[np.ndarray, np.ndarray]:
    """The keys and offsets of an ``.idx`` file, int64 arrays of shape (records,). Raises DataError."""
    text = read_bytes(path, MAX_BYTES)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                'error', DeprecationWarning
            )  # NumPy's way to say that it met something else than numbers
            table: Optional[np.ndarray] = np.fromstring(text, np.int64, sep=' ').reshape(-1, 2)
    except (ValueError, DeprecationWarning):
        table = None
    lines = text.count(b'\n') + (not text.endswith(b'\n') and text != b'')
    if table is None or not text.count(b'\t') == lines == len(table) or (table < 0).any():
        raise DataError(
            f'{path}: line {_first_bad_line(text)} is not a key and an offset, separated by a tab; make the index again'
        )
    return table[:, 0].copy(), table[:, 1].copy()


def _first_bad_line(text):
    number, begin = 1, 0
    while begin < len(text):
        end = text.find(b'\n', begin)
        end = len(text) if end < 0 else end
        if [word.isdigit() for word in text[begin : min(end, begin + MAX_LINE)].split(b'\t')] != [True, True]:
            break
        number, begin = number + 1, end + 1
    return number


def scanned(read: Callable[[int, int], bytes], size: int) -> Tuple[np.ndarray, np.ndarray]:
    """The ids and offsets (int64 arrays) of the records of a file of ``size`` bytes, and of each damaged stretch
    between them, whose id is -1. ``read(offset, count)`` returns bytes of the file.
    """
    ids, offsets = [], []
    place = 0
    while place < size:
        head = read(place, PART.size + HEADER.size)
        end = _end_of_record(read, place, head, size)
        if end is None or (end < size and read(end, 4) != MAGIC):
            # Either the length is wrong, then another record begins before the end that it says; or only what follows
            # is damaged.
            start = _next_start(read, place + 4, size)
            end = end if end and end <= start else None
        ids.append(_id(head) if end else -1)
        offsets.append(place)
        place = end or start
    return np.array(ids, np.int64), np.array(offsets, np.int64)


def _end_of_record(read, place, head, size):
    """Where the record at ``place`` ends, by its framing; None where that is damaged."""
    with contextlib.suppress(Damage):
        kind, length = kind_and_length(head)
        if kind not in (WHOLE, FIRST):
            return None
        place += PART.size + length + -length % 4
        while kind in (FIRST, MIDDLE):
            kind, length = kind_and_length(read(place, PART.size))
            if kind not in (MIDDLE, LAST):
                return None
            place += PART.size + length + -length % 4
        return place if place <= size else None
    return None


def _next_start(read, place, size):
    """The next aligned magic from ``place`` on that begins a record; the end of the file where there is none within the
    length of the longest record.
    """
    length = 1 << 12
    end = min(size, place + LONGEST)
    while place < end:
        block = read(place, length)
        for found in aligned_magics(block):
            word = block[found + 4 : found + 8] or read(place + found + 4, 4)
            if len(word) == 4 and word[3] >> 5 in (WHOLE, FIRST):
                return place + found
        place += len(block)
        length = min(2 * length, _BLOCK)
    return size


def _id(head):
    """The id in a record's header, -1 where it is in another part or larger than an index can hold."""
    if len(head) < PART.size + HEADER.size or head[7] >> 5 != WHOLE:
        return -1
    number = HEADER.unpack_from(head, PART.size)[2]
    return number if number < 1 << 63 else -1
