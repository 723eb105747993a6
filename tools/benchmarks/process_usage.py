"""What a process and those that it started have used: processor time, and memory in which shared pages count once. The
numbers of the others are from Linux's /proc; on other systems only this process counts.
"""

import glob
import os
import resource
import time


def family_time() -> float:
    """Seconds of processor time of this process and those that it started, also of those that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime + sum(map(_time_of, _children()))


def family_bytes() -> int:
    """Bytes of memory that this process and those that it started hold now; 0 where the system does not say."""
    return sum(map(_bytes_of, ['self', *_children()]))


def peak_bytes() -> int:
    """The most memory that this process has held so far, in bytes."""
    try:
        # getrusage's number begins, on Linux, with what the parent had when it forked.
        return _kilobytes('/proc/self/status', 'VmHWM:')
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _children():
    found = []
    for path in glob.glob('/proc/self/task/*/children'):
        with open(path) as children:
            found += children.read().split()
    return found


def _time_of(pid):
    with open(f'/proc/{pid}/stat') as state:
        user, system = state.read().rpartition(')')[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf('SC_CLK_TCK')


def _bytes_of(pid):
    try:
        return _kilobytes(f'/proc/{pid}/smaps_rollup', 'Pss:')
    except (OSError, StopIteration):
        return 0


def _kilobytes(path, name):
    with open(path) as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
