"""How many threads a training run computes with: as many as there are cores that no other process needs.

Waiting threads spin. Beside one busy process, two threads on two cores were 10 to 25 times slower than one, so a run
gives up a thread for each busy core.
"""

import ctypes
import logging
import os
import time
from typing import Callable, Iterable, Optional

from . import THREADS_GIVEN, mx, usable_cores

# Shorter intervals count too few of the system's clock ticks.
SECONDS_BETWEEN_LOOKS = 5.0


class ThreadChooser:
    """Watches the machine, and says when the number of threads should change.

    Parameters
    ----------
    wanted : the number of threads to use always. None or 0: OMP_NUM_THREADS where the user has set it, else as many as
        other processes leave free.
    apply : called with the number of threads at the start and at each change.
    """

    def __init__(self, wanted: Optional[int], apply: Callable[[int], object]) -> None:
        self._fixed = wanted or (_given() if THREADS_GIVEN else None)
        self._apply, self._cores = apply, usable_cores()
        self.threads = self._fixed or self._cores
        self._meter = None if self._fixed or self._cores == 1 else LoadMeter()
        logging.info(
            'Threads: %d of %d cores%s',
            self.threads,
            self._cores,
            '' if self._meter is None else '; fewer while other processes are busy',
        )
        apply(self.threads)

    def look(self) -> None:
        """Change the number of threads if other processes took or freed a core. Cheap: it reads the load every 5 s."""
        if self._meter is None or self._meter.seconds < SECONDS_BETWEEN_LOOKS:
            return
        busy = self._meter.cores_busy_elsewhere()
        threads = threads_beside(busy, self._cores, self.threads)
        if threads != self.threads:
            logging.info(
                'Other processes use %.1f of %d cores: %d thread%s from now on',
                busy,
                self._cores,
                threads,
                's' * (threads > 1),
            )
            self.threads = threads
            self._apply(threads)


def threads_beside(busy: float, cores: int, now: int) -> int:
    """The number of threads for ``cores`` of which other processes use ``busy``, when it is ``now``; at least 1.

    A thread is given up for 0.6 of a core and taken back below 0.3, so that the number does not go back and forth under
    a load between the two.
    """
    fewest = max(1, cores - int(busy + 0.7))
    most = max(1, cores - int(busy + 0.4))
    return min(max(now, fewest), most)


class LoadMeter:
    """Processor time of all processes but this one, from Linux's /proc/stat; 0 where that cannot be read."""

    def __init__(self) -> None:
        self._before = self._read()

    @property
    def seconds(self) -> float:
        """Seconds since the last reading."""
        return time.monotonic() - self._before[0]

    def cores_busy_elsewhere(self) -> float:
        """How many cores other processes kept busy since the last reading, for example 0.8."""
        before, self._before = self._before, self._read()
        seconds, busy, own = (now - then for now, then in zip(self._before, before))
        return max(0.0, busy - own) / seconds if busy else 0.0

    @staticmethod
    def _read():
        """(now, seconds of processor time of all processes, and of this one)"""
        try:
            with open('/proc/stat', encoding='ascii') as stat:
                user, nice, system, _, _, irq, softirq = map(int, stat.readline().split()[1:8])
        except (OSError, ValueError):
            user = nice = system = irq = softirq = 0
        ticks = os.sysconf('SC_CLK_TCK') if hasattr(os, 'sysconf') else 100
        return time.monotonic(), (user + nice + system + irq + softirq) / ticks, time.process_time()


def _given():
    number = os.environ['OMP_NUM_THREADS'].split(',')[0]
    return int(number) if number.isdecimal() and int(number) else usable_cores()


def set_mxnet_threads(number: int, device_ids: Iterable[int] = (0,)) -> None:
    """Let MXNet's operators on the CPU devices ``device_ids`` use ``number`` threads from now on.

    Some operators follow ``MXSetNumOMPThreads``. Those of oneDNN follow the setting of the thread that they run in, a
    worker of MXNet's engine: so the engine is given a function that sets it there. Where OpenMP's library is not found,
    only ``MXSetNumOMPThreads`` has an effect.
    """
    mx.base._LIB.MXSetNumOMPThreads(number)
    try:
        set_here = ctypes.CDLL('libgomp.so.1').omp_set_num_threads  # the library that MXNet has loaded under this name
    except (OSError, AttributeError):
        return
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(lambda *_: set_here(number))
    for device_id in device_ids:
        context = (ctypes.c_int32 * 4)(mx.cpu().device_typeid, device_id)
        mx.base.check_call(
            mx.base._LIB.MXEnginePushSync(function, None, None, context, None, 0, None, 0, None, 0, None)
        )
    mx.nd.waitall()  # the function must outlive its calls
