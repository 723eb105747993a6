"""Run a command that ends when train/launch.py does, which starts its processes by this, here or over ssh.

The first line of stdin is the secret of the run, which goes into the environment of the command. The lines after it are
numbers of signals, which go to the command and all that it started. When stdin ends, they are killed. (It imports
nothing of the project: it must start at once.)
"""

import argparse
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading

PR_SET_PDEATHSIG = 1
SECRET = 'SSS_SECRET'  # train.distributed.secret.VARIABLE


def main() -> int:
    """Run the command of the command line; returns its exit code, or 128 + the number of the signal that ended it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        'shares',
        type=int,
        help="among how many such commands this machine's cores are divided, where OMP_NUM_THREADS does not say",
    )
    parser.add_argument('command', nargs=argparse.REMAINDER)
    args = parser.parse_args()
    os.environ[SECRET] = sys.stdin.readline().strip()
    if 'OMP_NUM_THREADS' not in os.environ:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
        os.environ['OMP_NUM_THREADS'] = str(max(1, cores // args.shares))
    try:
        child = subprocess.Popen(
            args.command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_die_with_parent
        )  # noqa: PLW1509
    except OSError as error:
        print(f'error: {args.command[0]}: {error.strerror}', file=sys.stderr, flush=True)
        return 127
    threading.Thread(target=_pass_on_signals, args=(child,), daemon=True).start()
    code = child.wait()
    _signal(child, signal.SIGKILL)
    return code if code >= 0 else 128 - code


def _pass_on_signals(child):
    for line in iter(sys.stdin.readline, ''):
        _signal(child, int(line))
    _signal(child, signal.SIGKILL)


def _signal(child, number):
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


def _die_with_parent():
    """On Linux, let the command be killed when its supervisor is."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == '__main__':
    # Not sys.exit, which would wait for the thread that reads stdin.
    os._exit(main())
