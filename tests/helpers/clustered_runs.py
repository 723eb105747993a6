"""Runs of two workers and a parameter server under train/launch.py, in which every process can be found, and none is to
be left.
"""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time
import uuid

from train import launch, train_cifar

MARK = 'CLUSTERED_RUN'


class Launched:
    """``launch.py OPTIONS COMMAND`` as a process; on leaving, nothing of it is left. ``said`` is all that has come on
    its stderr.
    """

    def __init__(self, options, command, **environment):
        self._mark = uuid.uuid4().hex
        environment = {'OMP_NUM_THREADS': '1', **os.environ, **environment, MARK: self._mark}
        self._out = pathlib.Path(os.environ.get('TMPDIR', '/tmp')) / f'launched-{self._mark}'
        with open(str(self._out), 'w') as out:
            self.process = subprocess.Popen(
                [sys.executable, launch.__file__, *map(str, options), *map(str, command)], env=environment, stderr=out
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        for pid in self.alive():
            kill(pid, signal.SIGKILL)
        self._out.unlink()

    @property
    def said(self):
        return self._out.read_text()

    def wait_for(self, words, seconds=120):
        """Until it has said ``words``."""
        self._wait(lambda: words in self.said, seconds, words)

    def wait_for_file(self, path, seconds=120):
        self._wait(lambda: os.path.exists(path), seconds, path)

    def _wait(self, is_there, seconds, what):
        end = time.monotonic() + seconds
        while not is_there():
            assert self.process.poll() is None, f'it has ended before {what}: {self.said}'
            assert time.monotonic() < end, f'no {what} after {seconds} seconds: {self.said}'
            time.sleep(0.01)

    def ends(self, seconds=120):
        """Its exit code, once it has ended."""
        return self.process.wait(timeout=seconds)

    def alive(self, role=None):
        """The ids of its processes, those of one role without their supervisors."""
        return [pid for pid in map(int, filter(str.isdecimal, os.listdir('/proc'))) if self._is_one(pid, role)]

    def outlived_by(self, seconds=10):
        """What is left of it after ``seconds`` at most: command lines."""
        end = time.monotonic() + seconds
        while self.alive() and time.monotonic() < end:
            time.sleep(0.02)
        return [read(pid, 'cmdline') for pid in self.alive()]

    def _is_one(self, pid, role):
        environment = read(pid, 'environ')
        if f'{MARK}={self._mark}' not in environment or read(pid, 'stat').rpartition(')')[2].split()[:1] == ['Z']:
            return False
        command = read(pid, 'cmdline')
        return role is None or (
            f'DMLC_ROLE={role}' in environment and not any('supervisor.py' in word for word in command)
        )


def read(pid, name):
    """A file of /proc: 'stat' as text, others as lists of words."""
    try:
        text = pathlib.Path(f'/proc/{pid}/{name}').read_text(errors='replace')
    except OSError:
        text = ''
    return text if name == 'stat' else text.split('\0')


def kill(pid, number):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def cluster(network, prefix, *flags, workers=2, servers=1, **environment):
    """A ``Launched`` run of train_cifar."""
    command = [
        sys.executable,
        train_cifar.__file__,
        '--network',
        network,
        '--model-prefix',
        prefix,
        '--kv-store',
        'dist_sync',
        *flags,
    ]
    return Launched(['-n', workers, '-s', servers], command, **environment)
