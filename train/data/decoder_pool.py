"""Batches of images, decoded by processes of their own, ahead of the training and into shared memory.

They are processes, not threads, because Python would let only one thread work; they are started anew, not forked,
because MXNet does not survive a fork. What a batch holds depends on its positions and draws alone, never on which
process was faster, or died.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import weakref
from collections import Counter, deque
from multiprocessing import Pipe
from multiprocessing.connection import wait
from typing import Callable, Deque, Dict, List, Optional, Protocol, Sequence, Tuple
from typing import Counter as CounterType

import numpy as np

from runtime import mx
from runtime.errors import TrainingError

from .arrays import NO_CLASS
from .decoder_memory import NOBODY, DecoderMemory, Layout, pack_shared
from .decoder_worker import MAX_PIXELS, Reader

AHEAD = 3  # batches that are prepared while one is in use
CHUNK = 8  # images that a process is told of at once
# Seconds after which a process that has not answered is killed: it hangs, or its storage does not answer.
PATIENCE = 120.0
START = (
    'import json, sys; sys.path[:] = json.loads(sys.argv[1]); '
    'from train.data.decoder_worker import serve; serve(*map(int, sys.argv[2:]))'
)


# replace(place, position, reason): what to read in the place of a damaged image.
Replace = Callable[[int, int, str], Optional[int]]
# (number of the reader, number of the batch, places in it): what a process is told to read.
Chunk = Tuple[int, int, Sequence[int]]


class Borrower(Protocol):
    """An iterator that reads by a pool."""

    def cancel(self) -> None:
        """Give back all memory of the pool."""


class Job:
    """A batch that is being read: ``left`` images of ``count`` are still to come. ``replace(place, position, reason)``
    says what to read in the place of a damaged image: a position, or None to leave the place blank, with label
    NO_CLASS.
    """

    def __init__(self, reader: int, batch: int, count: int, replace: Replace) -> None:
        self.reader, self.batch, self.count, self.left, self.replace = reader, batch, count, count, replace
        self.deaths: CounterType[int] = Counter()
        self.is_wanted = True


class DecoderPool:
    """``processes`` processes that read batches of up to ``batch_size`` images for ``readers``, a list of
    ``ImageReader``.

    ``image_shape`` is (channels, height, width), and ``draws`` how many random numbers an image takes. At most
    ``capacity`` batches are in memory at once. ``close`` ends the processes; they also end when this one does, even by
    a kill. Raises OSError where there is not enough memory.
    """

    def __init__(
        self,
        readers: Sequence[Reader],
        image_shape: Sequence[int],
        batch_size: int,
        draws: int,
        processes: int,
        capacity: int = AHEAD + 1,
    ) -> None:
        self._memory = DecoderMemory(Layout(capacity, batch_size, tuple(image_shape), draws, processes))
        self._readers_fd, self._sizes = pack_shared(readers)
        self._free: Deque[int] = deque(range(capacity))
        self._jobs: Dict[int, Job] = {}
        self._arrays: Dict[int, mx.nd.NDArray] = {}
        self._borrower: Optional[Borrower] = None
        self._processes = [self._start(number) for number in range(processes)]
        self.close = weakref.finalize(self, _end, self._processes, [self._memory.descriptor, self._readers_fd])

    @property
    def pids(self) -> List[int]:
        """The ids of the processes."""
        return [process.popen.pid for process in self._processes]

    def lend(self, iterator: Borrower) -> None:
        """Let ``iterator`` read from now on. Batches of another iterator are dropped, since the memory is only enough
        for one.
        """
        if self._borrower is not None and self._borrower is not iterator:
            self._borrower.cancel()
        self._borrower = iterator

    def submit(self, reader: int, positions: np.ndarray, draws: Optional[np.ndarray], replace: Replace) -> Job:
        """Begin to read the images at ``positions`` (n,), augmented by ``draws`` (n, draws) or None, with reader number
        ``reader``; returns the Job.
        """
        self._receive(is_patient=False)  # to know which process has the least to do
        while not self._free:
            self._receive()  # a batch that is not wanted any more is still being read
        job = Job(reader, self._free.popleft(), len(positions), replace)
        self._jobs[job.batch] = job
        self._memory.positions[job.batch, : job.count] = positions
        if draws is not None:
            self._memory.draws[job.batch, : job.count] = draws
        for first in range(0, job.count, CHUNK):
            self._give(job, range(first, min(first + CHUNK, job.count)))
        return job

    def finish(self, job: Job) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Wait for a job: (images (B, C, H, W), labels (B,), positions (B,) that were read in the end); the first
        ``job.count`` of each are the job's.

        They are in shared memory, and valid until ``release``. Raises TrainingError where a process cannot be started.
        """
        while job.left:
            self._receive()
        return self._memory.images[job.batch], self._memory.labels[job.batch], self._memory.positions[job.batch]

    def as_ndarray(self, job: Job) -> mx.nd.NDArray:
        """The images of a finished job as an array of MXNet in the same memory: a copy would take a fifth of the time
        that decoding takes.
        """
        if job.batch not in self._arrays:
            self._arrays[job.batch] = mx.nd.from_numpy(self._memory.images[job.batch])
        return self._arrays[job.batch]

    def release(self, job: Job) -> None:
        """Give the memory of a job back, once MXNet has read it. A job that is not finished gives it back
        when it is.
        """
        if job.batch in self._arrays:
            mx.base.check_call(mx.base._LIB.MXNDArrayWaitToWrite(self._arrays[job.batch].handle))
        job.is_wanted = False
        if not job.left:
            self._free.append(self._jobs.pop(job.batch).batch)

    def _give(self, job, places):
        """Hand places of a batch to the process that has least to do."""
        min(self._processes, key=lambda process: process.images).give(job.reader, job.batch, places)

    def _receive(self, is_patient=True):
        """Read the answers of the processes; wait for one, if ``is_patient``."""
        heard = wait([process.connection for process in self._processes], PATIENCE if is_patient else 0)
        for process in list(self._processes):
            if process.connection in heard:
                self._hear(process)
            elif is_patient and not heard and process.hangs():
                process.popen.kill()

    def _hear(self, process):
        try:
            answer = process.connection.recv()
        except (EOFError, OSError):
            self._replace(process)
            return
        if answer is None:
            process.is_ready = True
            return
        batch, places, damaged = answer
        process.chunks.popleft()
        self._done(self._jobs[batch], len(places) - len(damaged))
        for place, reason in damaged:
            self._substitute(self._jobs[batch], place, reason)

    def _done(self, job, count):
        job.left -= count
        if not (job.left or job.is_wanted):
            self._free.append(self._jobs.pop(job.batch).batch)

    def _substitute(self, job, place, reason):
        """Read another image in the place of a damaged one, or leave the place blank."""
        position = job.replace(place, int(self._memory.positions[job.batch, place]), reason) if job.is_wanted else None
        if position is None:
            self._memory.images[job.batch, place] = 0
            self._memory.labels[job.batch, place] = NO_CLASS
            self._done(job, 1)
            return
        self._memory.positions[job.batch, place] = position
        self._give(job, [place])

    def _replace(self, dead):
        """Start a process in the place of one that died, and give it the work of that one. An image at which two
        processes died counts as damaged.
        """
        code = dead.popen.wait()
        dead.connection.close()
        if not dead.is_ready:
            raise TrainingError(f'a process that decodes images could not start ({_how(code)}); its output is above')
        number = self._processes.index(dead)
        place = int(self._memory.at_work[number])
        self._processes[number] = self._start(number)
        for position, (reader, batch, places) in enumerate(dead.chunks):
            job = self._jobs[batch]
            if position == 0 and place in places:
                job.deaths[place] += 1
                if job.deaths[place] > 1:
                    places = [other for other in places if other != place]
                    self._substitute(job, place, f'a process that read it {_how(code)}, twice')
            if places:
                self._processes[number].give(reader, batch, places)

    def _start(self, number):
        self._memory.at_work[number] = NOBODY
        return DecoderProcess(number, self._memory, self._readers_fd, self._sizes)


class DecoderProcess:
    """One process, and what it was told to read and has not read yet: ``chunks``, oldest first."""

    def __init__(self, number: int, memory: DecoderMemory, readers_fd: int, sizes: Sequence[int]) -> None:
        self.chunks: Deque[Chunk] = deque()
        self.is_ready, self._started = False, time.monotonic()
        self.connection, theirs = Pipe()
        fds = theirs.fileno(), memory.descriptor, readers_fd
        with _signals_blocked():
            self.popen = subprocess.Popen(
                [sys.executable, '-c', START, json.dumps(sys.path), str(number), *map(str, fds)],
                pass_fds=fds,
                stdin=subprocess.DEVNULL,
                env={**os.environ, 'OPENCV_IO_MAX_IMAGE_PIXELS': str(MAX_PIXELS)},
            )
        theirs.close()
        self._send((memory.layout, sizes))

    @property
    def images(self) -> int:
        """How many images it has still to read."""
        return sum(len(places) for _, _, places in self.chunks)

    def hangs(self) -> bool:
        """Whether it should have answered by now: it has work, and is ready or started three times PATIENCE ago."""
        return bool(self.chunks) and (self.is_ready or time.monotonic() - self._started > 3 * PATIENCE)

    def give(self, reader: int, batch: int, places: Sequence[int]) -> None:
        """Tell it to read images with reader number ``reader`` into ``places`` of a batch."""
        self.chunks.append((reader, batch, places))
        self._send((reader, batch, places))

    def _send(self, message):
        with contextlib.suppress(OSError):  # it is dead, which is noticed when its answer is read
            self.connection.send(message)


@contextlib.contextmanager
def _signals_blocked():
    """Processes started within have SIGINT and SIGTERM blocked: a terminal or a scheduler sends them to every process,
    and the trainer alone answers them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(processes, descriptors):
    for process in processes:
        process.connection.close()
    for process in processes:
        try:
            process.popen.wait(5)
        except subprocess.TimeoutExpired:
            process.popen.kill()
            process.popen.wait()
    for descriptor in descriptors:
        os.close(descriptor)


def _how(code):
    return f'was ended by {signal.Signals(-code).name}' if code < 0 else f'ended with code {code}'
