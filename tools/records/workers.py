"""Many processes that work through a list whose results are wanted in order."""

import collections
import concurrent.futures
import os
import signal
import threading
import time
from concurrent.futures.process import BrokenProcessPool

from runtime.errors import UserError


def in_order(function, tasks, jobs):
    """Yield ``function(task)`` for each of ``tasks``, computed by ``jobs`` processes. However slowly they are taken,
    few results wait in memory.

    Raises what ``function`` raises, and UserError where a process is killed.
    """
    pool = concurrent.futures.ProcessPoolExecutor(jobs, initializer=_prepare_worker, initargs=(os.getpid(),))
    waiting = collections.deque()
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
