"""The bytes of MXNet's ``.params`` files: every number in them is checked when they are read, and they are written as
``mx.nd.save`` writes them.

A file is a list: ``magic, reserved, count, count × array, count, count × name`` (all little-endian, 64-bit). An array
is ``magic, storage type, shape, device type, device id, dtype, data``; the two older forms of MXNet before 1.0 are read
too. This module does not use MXNet: the layout is read by plain Python, so that every length is checked against that of
the file before any memory is allocated for it.
"""

import math
import os
import struct
from typing import Any, BinaryIO, Dict, Iterable, NamedTuple, NoReturn, Sequence, Tuple

import numpy as np

from runtime.errors import CheckpointError

LIST_MAGIC = 0x112
V1_MAGIC, V2_MAGIC, V3_MAGIC = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
DTYPES = {0: np.float32, 1: np.float64, 2: np.float16, 3: np.uint8, 4: np.int32, 5: np.int8, 6: np.int64, 7: np.bool_}
DTYPE_FLAGS = {np.dtype(dtype): flag for flag, dtype in DTYPES.items()}
# MXNet's devices: cpu, gpu, pinned and shared host memory. An array may have been saved from any of them; another
# number means damage.
DEVICE_TYPES = (1, 2, 3, 5)
DENSE_STORAGE = 0
CPU = 1

# NumPy's own limit; MXNet built without large-tensor support counts elements in 31 bits.
MAX_NDIM = 32
MAX_ELEMENTS = 2**31 - 1
# Far above any network (ResNet-152 has 930 arrays), and low enough that a hostile list is refused at once.
MAX_ARRAYS = 50_000
MAX_NAME = 4096


class Record(NamedTuple):
    """Where an array is in a file: its values begin ``offset`` bytes behind the file's start."""

    shape: Tuple[int, ...]
    dtype: np.dtype
    offset: int


def read_layout(source: BinaryIO, path: str, size: int) -> Dict[str, Record]:
    """Where each array of the list in ``source`` is: dict name → Record, in the file's order.

    ``source`` is a seekable binary file of ``size`` bytes. Raises CheckpointError, naming ``path`` and the reason, for
    anything but a complete list of named dense arrays.
    """
    reader = _Reader(source, path, size)
    magic, _, count = reader.numbers('<QQQ')
    if magic != LIST_MAGIC:
        reader.fail('this is no MXNet parameter file (wrong magic number)')
    if count > MAX_ARRAYS:
        reader.fail(f'claims to hold {count} arrays; no network has more than {MAX_ARRAYS}')
    records = [_read_array(reader, index) for index in range(count)]
    names = _read_names(reader, count)
    if reader.left:
        reader.fail(f'{reader.left} bytes are left over after the last name')
    return dict(zip(names, records))


def list_header(count: int) -> bytes:
    """The bytes that begin a list of ``count`` arrays."""
    return struct.pack('<QQQ', LIST_MAGIC, 0, count)


def array_header(shape: Sequence[int], dtype: np.dtype) -> bytes:
    """The bytes that precede the data of a dense array. Raises KeyError for a ``dtype`` that is not in DTYPE_FLAGS."""
    dims = struct.pack(f'<{len(shape)}q', *shape)
    return (
        struct.pack('<IiI', V2_MAGIC, DENSE_STORAGE, len(shape))
        + dims
        + struct.pack('<iii', CPU, 0, DTYPE_FLAGS[np.dtype(dtype)])
    )


def name_list(names: Iterable[str]) -> bytes:
    """The bytes that end a list: how many names, and the names."""
    encoded = [name.encode('utf-8') for name in names]
    return struct.pack('<Q', len(encoded)) + b''.join(struct.pack('<Q', len(name)) + name for name in encoded)


def _read_array(reader, index):
    reader.what = f'array {index}'
    (magic,) = reader.numbers('<I')
    if magic in (V2_MAGIC, V3_MAGIC):
        (storage,) = reader.numbers('<i')
        if storage != DENSE_STORAGE:
            reader.fail(f'array {index} is stored sparse (type {storage}); only dense arrays are read')
    shape = _read_shape(reader, magic)
    if not shape and magic != V3_MAGIC:
        reader.fail(f'array {index} has no shape')
    device, _, flag = reader.numbers('<iii')
    if device not in DEVICE_TYPES:
        reader.fail(f'array {index} was saved from an unknown device type ({device})')
    if flag not in DTYPES:
        reader.fail(f'array {index} has an unknown or unsupported dtype (number {flag})')
    dtype = np.dtype(DTYPES[flag])
    return Record(shape, dtype, reader.skip(math.prod(shape) * dtype.itemsize))


def _read_shape(reader, magic):
    if magic in (V1_MAGIC, V2_MAGIC, V3_MAGIC):
        (ndim,) = reader.numbers('<i')
        kind = 'q'
    else:
        # Before MXNet 0.9 an array began with its number of dimensions, each of 32 bits.
        ndim, kind = magic, 'I'
    if not 0 <= ndim <= MAX_NDIM:
        reader.fail(
            f'{reader.what} is damaged, or written by an unknown version of MXNet (it would have {ndim} dimensions)'
        )
    shape = reader.numbers(f'<{ndim}{kind}')
    # Zeros count as ones: an empty array of absurd sides overflows as surely as a full one.
    if any(side < 0 for side in shape) or math.prod(max(side, 1) for side in shape) > MAX_ELEMENTS:
        reader.fail(f'{reader.what} has the impossible shape {shape}')
    return shape


def _read_names(reader, count):
    reader.what = 'the names'
    (named,) = reader.numbers('<Q')
    if named != count:
        reader.fail(f'holds {count} arrays but {named} names')
    names = set()
    ordered = []
    for index in range(count):
        reader.what = f'name {index}'
        (length,) = reader.numbers('<Q')
        if not 0 < length <= MAX_NAME:
            reader.fail(f'name {index} would be {length} bytes long')
        try:
            name = reader.take(length).decode('utf-8')
        except UnicodeDecodeError:
            reader.fail(f'name {index} is not text')
        if name in names:
            reader.fail(f'the name {name!r} occurs twice')
        names.add(name)
        ordered.append(name)
    return ordered


class _Reader:
    """A file of ``size`` bytes that is never read past its end. ``what`` names what is being read, for the messages;
    every error is a CheckpointError.
    """

    def __init__(self, source: BinaryIO, path: str, size: int) -> None:
        self.source, self.path, self.left, self.what = source, path, size, 'the header'

    def numbers(self, layout: str) -> Tuple[Any, ...]:
        """The next numbers, in the ``layout`` of ``struct``."""
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        self._claim(count)
        data = self.source.read(count)
        if len(data) != count:
            self.fail('the file shrank while it was read')
        return data

    def skip(self, count: int) -> int:
        """Pass over ``count`` bytes; returns the position where they begin."""
        self._claim(count)
        offset = self.source.tell()
        self.source.seek(count, os.SEEK_CUR)
        return offset

    def _claim(self, count):
        if count > self.left:
            self.fail(f'the file ends inside {self.what} ({count} bytes needed, {self.left} left)')
        self.left -= count

    def fail(self, reason: str) -> NoReturn:
        """Raise CheckpointError that names the file and the ``reason``."""
        raise CheckpointError(f'{self.path}: {reason}')
