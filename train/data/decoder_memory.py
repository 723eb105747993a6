"""Memory that the trainer shares with the processes that decode its images.

It has no name in any file system: when the last process that maps it ends, even by a kill, the memory is free again.
"""

import mmap
import os
import pickle
import tempfile
from typing import Any, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

ALIGNMENT = 64
NOBODY = -1  # in ``at_work``: this process is not reading


class Layout(NamedTuple):
    """The sizes of a DecoderMemory."""

    batches: int
    batch_size: int
    image_shape: Tuple[int, ...]  # (channels, height, width)
    draws: int  # random numbers for one image
    processes: int


class DecoderMemory:
    """``images`` (batches, B, C, H, W) float32, ``labels`` (batches, B) float32, ``positions`` (batches, B) int64,
    ``draws`` (batches, B, draws) float64, and ``at_work`` (processes,) int64, the place in the batch that each process
    reads. ``descriptor`` is the open file that all of them map.
    """

    images: np.ndarray
    labels: np.ndarray
    positions: np.ndarray
    draws: np.ndarray
    at_work: np.ndarray

    def __init__(self, layout: Layout, descriptor: Optional[int] = None) -> None:
        self.layout = layout
        count = layout.batches, layout.batch_size
        shapes = {
            'images': ((*count, *layout.image_shape), np.float32),
            'labels': (count, np.float32),
            'positions': (count, np.int64),
            'draws': ((*count, layout.draws), np.float64),
            'at_work': ((layout.processes,), np.int64),
        }
        sizes = [_aligned(int(np.prod(shape)) * np.dtype(dtype).itemsize) for shape, dtype in shapes.values()]
        self.descriptor = _nameless(sum(sizes)) if descriptor is None else descriptor
        memory, place = mmap.mmap(self.descriptor, sum(sizes)), 0
        for (name, (shape, dtype)), size in zip(shapes.items(), sizes):
            setattr(self, name, np.ndarray(shape, dtype, memory, place))
            place += size


def pack_shared(thing: object) -> Tuple[int, List[int]]:
    """(descriptor, sizes): ``thing`` in shared memory, from which ``unpack_shared`` reads arrays without a copy."""
    buffers: List[pickle.PickleBuffer] = []
    data = pickle.dumps(thing, protocol=5, buffer_callback=buffers.append)
    blocks: List[Union[bytes, memoryview]] = [data, *(buffer.raw() for buffer in buffers)]
    sizes = [len(block) for block in blocks]
    descriptor = _nameless(sum(map(_aligned, sizes)))
    with mmap.mmap(descriptor, sum(map(_aligned, sizes))) as memory:
        for block in blocks:
            memory.write(block)
            memory.seek(_aligned(memory.tell()))
    return descriptor, sizes


def unpack_shared(descriptor: int, sizes: Sequence[int]) -> Any:
    """What ``pack_shared`` packed, by what it returned."""
    memory, place = memoryview(mmap.mmap(descriptor, sum(map(_aligned, sizes)))), 0
    blocks: List[memoryview] = []
    for size in sizes:
        blocks.append(memory[place : place + size])
        place += _aligned(size)
    return pickle.loads(blocks[0], buffers=blocks[1:])


def _aligned(size):
    return -(-size // ALIGNMENT) * ALIGNMENT


def _nameless(size):
    """An open file of ``size`` bytes in memory. Raises OSError where there is not enough of it."""
    if hasattr(os, 'memfd_create'):
        descriptor = os.memfd_create('sss-images')
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    if hasattr(os, 'posix_fallocate'):
        os.posix_fallocate(descriptor, 0, size)  # now, not by a bus error in the middle of an epoch
    else:
        os.ftruncate(descriptor, size)
    return descriptor
