"""MXNet's RecordIO files (``.rec`` with its ``.idx``), read and written without MXNet, whose own reader ends the
process where a file is damaged.
"""

from __future__ import annotations

import collections
import contextlib
import os
from typing import Any, BinaryIO, Dict, List, NamedTuple, Optional

import numpy as np

from runtime.errors import DataError
from runtime.files import naming, written_whole
from runtime.reading import open_regular, size_of

from .record_format import (
    HEADER,
    PART,
    WHOLE,
    Damage,
    Incomplete,
    Label,
    framed,
    joined,
    kind_and_length,
    label_width,
    packed,
    unpacked,
)
from .record_index import read_index, scanned

_BLOCK = 1 << 20  # read at once where the index does not say how far a record reaches


class Record(NamedTuple):
    """One image: its key in the index, its label, float32 of shape (L,), and the bytes of the image file."""

    key: int
    label: np.ndarray
    image: bytes


class RecordFile:
    """The records of ``rec_path`` in the order of ``idx_path``, or without an index in the order of the file, which is
    scanned for them.

    Only the records that are damaged cannot be read: ``read`` raises DataError for them. ``keys``, an int64 array, are
    those of the index; after a scan they are the records' own ids, -1 where damaged. The file is opened at the first
    read and read by position, so an object may be forked, pickled and shared by threads. Raises DataError if the index
    is no index or a file does not exist, OSError if a file cannot be opened.
    """

    def __init__(self, rec_path: str, idx_path: Optional[str] = None) -> None:
        self.path = rec_path
        self._file: Optional[BinaryIO] = None
        with open_regular(rec_path) as records:
            self._size = size_of(records)
        if idx_path is None:
            self.keys, self._offsets = scanned(self._bytes, self._size)
        else:
            self.keys, self._offsets = read_index(idx_path)
        starts = np.append(np.unique(self._offsets), max(self._size, self._offsets.max(initial=0)))
        self._ends = starts[np.searchsorted(starts, self._offsets, side='right').clip(max=len(starts) - 1)].clip(
            max=self._size
        )

    def __len__(self) -> int:
        return len(self.keys)

    def __getstate__(self) -> Dict[str, Any]:
        return {**self.__dict__, '_file': None}

    def __enter__(self) -> RecordFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def layout(self) -> List[np.ndarray]:
        """What identifies this file without reading its images: keys, offsets, and the size of the file, as arrays."""
        return [self.keys, self._offsets, np.array([self._size])]

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        if self._file:
            self._file.close()
        self._file = None

    def read(self, position: int) -> Record:
        """The Record at ``position``, 0 … len - 1. Raises DataError that names the file, the key, the offset and what
        is wrong there.
        """
        with self._naming(position):
            label, image = unpacked(self._payload(position))
            if not image:
                raise Damage('holds no image')
            return Record(int(self.keys[position]), label, image)

    def labels(self) -> np.ndarray:
        """The labels of all records, float32 of shape (records, L), where L is the width that most labels have. Records
        with a label of another width, and damaged ones, have NaN.
        """
        found = [self._label(position) for position in range(len(self))]
        widths = collections.Counter(len(label) for label in found if label is not None)
        labels = np.full((len(self), widths.most_common(1)[0][0] if widths else 1), np.nan, np.float32)
        for row, label in zip(labels, found):
            if label is not None and len(label) == len(row):
                row[:] = label
        return labels

    def _label(self, position):
        offset, end = int(self._offsets[position]), int(self._ends[position])
        with contextlib.suppress(Damage):
            head = self._bytes(offset, PART.size + HEADER.size)
            kind, length = kind_and_length(head)
            if kind == WHOLE and PART.size + length <= end - offset and len(head) == PART.size + HEADER.size:
                more = 4 * label_width(head[PART.size :], length)
                return unpacked(head[PART.size :] + (self._bytes(offset + len(head), more) if more else b''))[0]
            return unpacked(self._payload(position))[0]
        return None

    def _payload(self, position):
        """The payload of a record, its parts joined."""
        offset, end = int(self._offsets[position]), int(self._ends[position])
        if offset >= self._size:
            raise Damage(f'lies behind the end of the file, at {self._size}')
        extent = end - offset
        block = self._bytes(offset, min(extent, _BLOCK))
        while True:
            try:
                return joined(block, extent, is_last=end == self._size)
            except Incomplete as more:
                longer = self._bytes(offset, min(max(2 * len(block), more.size), extent))
            if len(longer) <= len(block):
                raise Damage('is cut off: the file has become shorter')
            block = longer

    def _bytes(self, offset, size):
        """Up to ``size`` bytes from ``offset``: fewer only at the end of the file."""
        with naming(self.path):
            if self._file is None:
                self._file = open_regular(self.path)
            return os.pread(self._file.fileno(), size, offset)

    @contextlib.contextmanager
    def _naming(self, position):
        try:
            yield
        except Damage as damage:
            raise DataError(
                f'{self.path}: record {self.keys[position]} at byte {self._offsets[position]} {damage}'
            ) from None


class RecordWriter:
    """A context that writes ``rec_path`` and ``idx_path``, byte for byte as ``mx.recordio.MXIndexedRecordIO`` would.
    Both get their names at the end; after an error neither does.
    """

    def __init__(self, rec_path: str, idx_path: str) -> None:
        self._paths = rec_path, idx_path
        self._offset = 0

    def __enter__(self) -> RecordWriter:
        with contextlib.ExitStack() as stack:
            self._rec, self._idx = (
                stack.enter_context(open(stack.enter_context(written_whole(path)), 'wb')) for path in self._paths
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> Optional[bool]:
        return self._stack.__exit__(*error)

    def write(self, key: int, label: Label, image: bytes) -> None:
        """Add an image, ``label`` being a number or a sequence of numbers. Raises DataError if it is too long for the
        format.
        """
        record = framed(packed(key, label, image))
        self._rec.write(record)
        self._idx.write(b'%d\t%d\n' % (key, self._offset))
        self._offset += len(record)
