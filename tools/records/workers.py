"""Compute a function of many tasks by several processes, with the results in order."""

import collections
import concurrent.futures
import os
import signal
import threading
import time
from concurrent.futures.process import BrokenProcessPool
from typing import Callable, Deque, Iterable, Iterator, TypeVar

from runtime.errors import UserError

Task = TypeVar('Task')
Result = TypeVar('Result')


def in_order(function: Callable[[Task], Result], tasks: Iterable[Task], jobs: int) -> Iterator[Result]:
    """Yield ``function(task)`` for each of ``tasks``, computed by ``jobs`` processes. At most 2 ``jobs`` results wait
    in memory, however slowly they are taken.

    Raises what ``function`` raises, and UserError where a process is killed.
    """
    pool = concurrent.futures.ProcessPoolExecutor(jobs, initializer=_prepare_worker, initargs=(os.getpid(),))
    waiting: Deque[concurrent.futures.Future[Result]] = collections.deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(function, task))
            if len(waiting) >= 2 * jobs:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise UserError('a worker process was killed (is there enough memory? try fewer --jobs)') from None
    finally:
        for future in waiting:
            future.cancel()
        pool.shutdown()


def _prepare_worker(parent):
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches all processes of a terminal; the parent ends the others
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()


def _leave_with(parent):
    """End this process soon after its parent was killed: it would wait for tasks forever."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
