"""A parameter server's whole cluster on this machine: a scheduler, a server and workers, each a process that runs the
same Python code.
"""

import os
import pathlib
import secrets
import socket
import subprocess
import sys


class Cluster:
    """Start the processes on entering, and let none outlive the block. ``workers`` and ``server`` are Popen objects
    whose output is text.
    """

    def __init__(self, code, workers):
        self._code, self._count = code, workers

    def __enter__(self):
        self._address = {
            'DMLC_PS_ROOT_URI': '127.0.0.1',
            'DMLC_PS_ROOT_PORT': str(free_port()),
            'DMLC_NODE_HOST': '127.0.0.1',
            'DMLC_NUM_SERVER': '1',
            'DMLC_NUM_WORKER': str(self._count),
            'OMP_NUM_THREADS': '1',
            'SSS_SECRET': secrets.token_hex(32),
        }
        self.scheduler, self.server = self._start('scheduler'), self._start('server')
        self.workers = [self._start('worker') for _ in range(self._count)]
        self.processes = [self.scheduler, self.server, *self.workers]
        return self

    def __exit__(self, *error):
        for process in self.processes:
            process.kill()
            process.communicate()

    def _start(self, role):
        return subprocess.Popen(
            [sys.executable, '-c', self._code],
            env={**os.environ, **self._address, 'DMLC_ROLE': role},
            cwd=pathlib.Path(__file__).parents[1],  # where the code finds `helpers`
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]
