"""Alternating timing, which a busy machine disturbs little: each candidate runs in a process of its own, the candidates
run one after the other in each round, and they are compared round by round.

    def build(size):                                 # runs in the candidate's process
        array = numpy.ones(size)
        def run_steps(steps):
            for _ in range(steps):
                array.sum()
        return run_steps

    measured = time_alternating({'small': partial(build, 10), 'large': partial(build, 10**6)})
    measured['large'].time_over(measured['small'])

Separate processes keep the threads of one library apart from another's, and show how much memory each candidate took.
"""

import multiprocessing
import os
import statistics
import time
from contextlib import ExitStack
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Sequence, Tuple

from runtime.errors import UserError

from .process_usage import family_bytes, family_time, peak_bytes

ROUNDS, STEPS, WARM_UP = 7, 3, 2
# 'family' is the processor time of a process and of those that it started.
CLOCKS: Dict[str, Callable[[], float]] = {
    'wall': time.perf_counter,
    'processor': time.process_time,
    'family': family_time,
}
RunSteps = Callable[[int], object]  # takes so many steps
Build = Callable[[], RunSteps]


class Measured(NamedTuple):
    """Seconds that a step took in each round, the most bytes of memory that the candidate's process held, and the bytes
    that it held with its children after each round.
    """

    seconds: List[float]
    peak_bytes: int
    held_bytes: Sequence[int] = ()

    @property
    def median(self) -> float:
        """The seconds of a step, the median over the rounds."""
        return statistics.median(self.seconds)

    def time_over(self, other: 'Measured') -> float:
        """How many times as long as ``other`` this took: the median over the rounds, since in one round both ran under
        the same load.
        """
        return statistics.median(own / theirs for own, theirs in zip(self.seconds, other.seconds))


def time_alternating(
    builds: Mapping[str, Build], rounds: int = ROUNDS, steps: int = STEPS, clock: str = 'wall', warm_up: int = WARM_UP
) -> Dict[str, Measured]:
    """Measure candidates. ``builds`` is a dict from name to the function that builds a candidate and returns its
    ``run_steps(steps)``. Returns a dict from name to ``Measured``.

    In each of ``rounds`` rounds every candidate runs ``steps`` steps, after ``warm_up`` steps that are not timed. The
    ``clock``, a key of CLOCKS, may be that of the processor, which stops while other programs run
    (waiting threads count too: set OMP_NUM_THREADS=1). The functions must be importable by name (``functools.partial``
    of one is fine). Raises the UserError of one of them, and RuntimeError where a candidate's process dies.
    """
    with ExitStack() as processes:
        candidates = {name: processes.enter_context(Candidate(build, clock)) for name, build in builds.items()}
        for candidate in candidates.values():
            candidate.wait_until_built()
        for candidate in candidates.values():
            candidate.run_steps(warm_up)
        rows = [[candidate.run_steps(steps) for candidate in candidates.values()] for _ in range(rounds)]
        peaks = [candidate.peak_bytes() for candidate in candidates.values()]
    return {
        name: Measured([seconds / steps for seconds, _ in column], peak, [held for _, held in column])
        for name, column, peak in zip(candidates, zip(*rows), peaks)
    }


def threads() -> int:
    """The number of threads of every library: that of MXNet, which OMP_NUM_THREADS decides."""
    return int(os.environ['OMP_NUM_THREADS'].split(',')[0])


class Candidate:
    """A process that takes steps when it is told to, and does nothing in between."""

    def __init__(self, build: Build, clock: str) -> None:
        context = multiprocessing.get_context('spawn')
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(build, CLOCKS[clock], theirs), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> 'Candidate':
        return self

    def __exit__(self, *error: Any) -> None:
        self._process.terminate()
        self._process.join()

    def wait_until_built(self) -> None:
        """Wait until its process has built it. Raises as ``time_alternating``."""
        self._answer()

    def run_steps(self, steps: int) -> Tuple[float, int]:
        """(the seconds that ``steps`` steps took, the bytes of memory held after them)"""
        self._pipe.send(steps)
        return self._answer()

    def peak_bytes(self) -> int:
        """The most memory that the process has held so far."""
        self._pipe.send(None)
        return self._answer()

    def _answer(self):
        try:
            answer = self._pipe.recv()
        except EOFError:
            raise RuntimeError('a measured process has died; its output is above') from None
        if isinstance(answer, Exception):
            raise answer
        return answer


def _serve(build, clock, pipe):
    try:
        run_steps = build()
    except UserError as error:
        pipe.send(error)
        return
    pipe.send('built')
    while True:
        steps = pipe.recv()
        if steps is None:
            pipe.send(peak_bytes())
            continue
        start = clock()
        run_steps(steps)
        pipe.send((clock() - start, family_bytes()))
