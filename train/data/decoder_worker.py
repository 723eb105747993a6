"""A process that decodes images: told what to read over a connection, it writes pixels and labels into shared memory.
It never loads MXNet.
"""

import os
import sys
from multiprocessing.connection import Connection

from runtime.errors import DataError
from runtime.packages import cv2

from .decoder_memory import NOBODY, DecoderMemory, unpack_shared

# Larger images than any photograph: a damaged header must not make a process ask for all memory there is.
MAX_PIXELS = 1 << 27


def serve(number, connection_fd, memory_fd, readers_fd):
    """Answer requests until the other end closes, at the latest when the trainer dies."""
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
    """libjpeg comments on every JPEG that is not decoded to its end, without naming it. Python may still speak."""
    sys.stderr = os.fdopen(os.dup(2), 'w', buffering=1)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 2)
    os.close(silence)
