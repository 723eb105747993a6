"""Batches of images, decoded by processes of their own, ahead of the training and into shared memory.

Processes, not threads, because Python would let only one of them work; programs of their own, not forks, because MXNet
does not survive a fork. What a batch holds depends on its positions and draws alone, never on which process was faster,
or died.
"""

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

from runtime import mx
from runtime.errors import TrainingError

from .arrays import NO_CLASS
from .decoder_memory import NOBODY, DecoderMemory, Layout, pack_shared
from .decoder_worker import MAX_PIXELS

AHEAD = 3  # batches that are prepared while one is in use
CHUNK = 8  # images that a process is told of at once
# Nothing takes this long but a process that hangs, or storage that is gone: the process is then ended, as if it had
# died.
PATIENCE = 120.0
START = (
    'import json, sys; sys.path[:] = json.loads(sys.argv[1]); '
    'from train.data.decoder_worker import serve; serve(*map(int, sys.argv[2:]))'
)


class Job:
    """A batch on its way: ``left`` images are still to come. ``replace(place, position, reason)`` says what to read in
    the place of a damaged image: a position, or None to leave the place blank, with label NO_CLASS.
    """

    def __init__(self, reader, batch, count, replace):
        self.reader, self.batch, self.count, self.left, self.replace = reader, batch, count, count, replace
        self.deaths = Counter()
        self.is_wanted = True


class DecoderPool:
    """``processes`` processes that read batches of up to ``batch_size`` images for ``readers``, a list of
    ``ImageReader``.

    At most ``capacity`` batches are in memory at once. ``close`` ends the processes; the end of this one, however it
    comes, does too.
    """

    def __init__(self, readers, image_shape, batch_size, draws, processes, capacity=AHEAD + 1):
        self._memory = DecoderMemory(Layout(capacity, batch_size, tuple(image_shape), draws, processes))
        self._readers_fd, self._sizes = pack_shared(readers)
        self._free, self._jobs, self._arrays, self._borrower = deque(range(capacity)), {}, {}, None
        self._processes = [self._start(number) for number in range(processes)]
        self.close = weakref.finalize(self, _end, self._processes, [self._memory.descriptor, self._readers_fd])

    @property
    def pids(self):
        """The ids of the processes."""
        return [process.popen.pid for process in self._processes]

    def lend(self, iterator):
        """``iterator`` reads now: work under way for another one is dropped, for there is memory for one only."""
        if self._borrower not in (None, iterator):
            self._borrower.cancel()
        self._borrower = iterator

    def submit(self, reader, positions, draws, replace):
        """Begin to read the images at ``positions`` (n,), augmented by ``draws`` (n, draws) or None, with reader number
        ``reader``; returns the Job.
        """
        self._receive(is_patient=False)  # to know who has least to do
        while not self._free:
            self._receive()  # a batch that nobody wants any more is still being read
        job = Job(reader, self._free.popleft(), len(positions), replace)
        self._jobs[job.batch] = job
        self._memory.positions[job.batch, : job.count] = positions
        if draws is not None:
            self._memory.draws[job.batch, : job.count] = draws
        for first in range(0, job.count, CHUNK):
            self._give(job, range(first, min(first + CHUNK, job.count)))
        return job

    def finish(self, job):
        """Wait for a job: (images (B, C, H, W), labels (B,), positions (B,) of what was read in the end), of which the
        first n were asked for.

        They lie in shared memory, and are valid until ``release``.
        """
        while job.left:
            self._receive()
        return self._memory.images[job.batch], self._memory.labels[job.batch], self._memory.positions[job.batch]

    def as_ndarray(self, job):
        """The images of a finished job as MXNet's array of the same memory: a copy would cost the trainer a fifth of
        what decoding costs.
        """
        if job.batch not in self._arrays:
            self._arrays[job.batch] = mx.nd.from_numpy(self._memory.images[job.batch])
        return self._arrays[job.batch]

    def release(self, job):
        """Give the memory of a job back, once MXNet has done with it; one that is not finished is not waited for."""
        if job.batch in self._arrays:
            mx.base.check_call(mx.base._LIB.MXNDArrayWaitToWrite(self._arrays[job.batch].handle))
        job.is_wanted = False
        if not job.left:
            self._free.append(self._jobs.pop(job.batch).batch)

    def _give(self, job, places):
        """Hand places of a batch to the process that has least to do."""
        min(self._processes, key=lambda process: process.images).give(job.reader, job.batch, places)

    def _receive(self, is_patient=True):
        """Take in what the processes have to say; wait for it, if ``is_patient``."""
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
        """Another image comes into the place of a damaged one, or none."""
        position = job.replace(place, int(self._memory.positions[job.batch, place]), reason) if job.is_wanted else None
        if position is None:
            self._memory.images[job.batch, place] = 0
            self._memory.labels[job.batch, place] = NO_CLASS
            self._done(job, 1)
            return
        self._memory.positions[job.batch, place] = position
        self._give(job, [place])

    def _replace(self, dead):
        """Start a process in the place of one that died, and hand its work out again. An image at which two died counts
        as damaged.
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
    """One process, and what it was told to do and has not done: ``chunks`` of (reader, batch, places), oldest first."""

    def __init__(self, number, memory, readers_fd, sizes):
        self.chunks, self.is_ready, self._started = deque(), False, time.monotonic()
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
    def images(self):
        """How many images it has still to read."""
        return sum(len(places) for _, _, places in self.chunks)

    def hangs(self):
        """Whether it has been silent for longer than it may be."""
        return bool(self.chunks) and (self.is_ready or time.monotonic() - self._started > 3 * PATIENCE)

    def give(self, reader, batch, places):
        self.chunks.append((reader, batch, places))
        self._send((reader, batch, places))

    def _send(self, message):
        with contextlib.suppress(OSError):  # it is dead, and will be found so when it is listened to
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
