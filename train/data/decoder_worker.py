"""A process that decodes images: it is told over a connection what to read, and writes pixels and labels into shared
memory. It never loads MXNet.
"""

import os
import sys
from multiprocessing.connection import Connection
from typing import Protocol

import numpy as np

from runtime.errors import DataError
from runtime.packages import cv2

from .decoder_memory import NOBODY, DecoderMemory, unpack_shared

# More than any photograph has: a damaged header must not make a process ask for all memory there is.
MAX_PIXELS = 1 << 27


class Reader(Protocol):
    """What reads the images of a data set, as ``image_sources.ImageReader`` does."""

    def read_into(self, out: np.ndarray, position: int, draws: np.ndarray) -> float:
        """Write the image at ``position`` to ``out``, float32 (C, H, W), augmented by the row ``draws``; return its
        class. Raises DataError where it is damaged.
        """


def serve(number: int, connection_fd: int, memory_fd: int, readers_fd: int) -> None:
    """Answer requests as process ``number`` until the trainer closes the connection or dies. The others are file
    descriptors: of the connection, of the DecoderMemory and of the readers that ``pack_shared`` packed.
    """
    _silence_libraries()
    cv2.setNumThreads(0)
    connection = Connection(connection_fd)
    try:
        layout, sizes = connection.recv()
        memory, readers = DecoderMemory(layout, memory_fd), unpack_shared(readers_fd, sizes)
        connection.send(None)
        while True:
            reader, batch, places = connection.recv()
            connection.send((batch, places, _read(number, memory, readers[reader], batch, places)))
    except (EOFError, ConnectionError):
        pass


def _read(number, memory, reader, batch, places):
    """Read the images at ``places`` of a batch; returns [(place, what is wrong with it)] of those that are damaged."""
    damaged = []
    for place in places:
        memory.at_work[number] = place
        try:
            memory.labels[batch, place] = reader.read_into(
                memory.images[batch, place], int(memory.positions[batch, place]), memory.draws[batch, place]
            )
        except DataError as error:
            damaged.append((place, str(error)))
    memory.at_work[number] = NOBODY
    return damaged


def _silence_libraries():
    """Discard what libraries write to stderr: libjpeg warns of every JPEG that is not decoded to its end, and does not
    name it. Python's own stderr stays.
    """
    sys.stderr = os.fdopen(os.dup(2), 'w', buffering=1)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 2)
    os.close(silence)
