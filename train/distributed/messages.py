"""What the processes of one run tell each other besides gradients: a line from the first worker to every other one and to every parameter server.

Parameter servers wait for everybody without end. Here whoever waits says for whom, and a ``Watchdog`` ends a run in which nothing moves any more.
"""
import os
import pickle
import secrets
import socket
import sys
import threading
import time
from multiprocessing.connection import Client, Listener

from runtime.errors import AnotherEndedError

GOES_ON = 'the last checkpoint is whole, and --resume goes on from it'


class Watchdog:
    """Ends this process with exit code 3 when ``moves`` was not called for ``seconds``. ``waits_for`` says what it waits for, for the message."""

    def __init__(self, seconds):
        self.waits_for = 'the processes of the run to find each other'
        self._seconds, self._moved = seconds, time.monotonic()
        threading.Thread(target=self._watch, daemon=True).start()

    def moves(self, waits_for='the parameter servers, and through them for the other workers'):
        """This process is alive; from now on it ``waits_for`` these."""
        self.waits_for, self._moved = waits_for, time.monotonic()

    def _watch(self):
        while time.monotonic() - self._moved < self._seconds:
            time.sleep(min(1, self._seconds / 10))
        print(f'error: for {self._seconds:g} seconds (--dist-timeout) this worker has waited for {self.waits_for}: one of them has died, hangs or cannot be '
              f'reached; {GOES_ON}', file=sys.stderr, flush=True)
        os._exit(AnotherEndedError.exit_code)  # MXNet's threads wait in C++, where no exception reaches them


class Hub:
    """The first worker's ends of the lines. Who speaks on them has proved that it knows ``key``, so that pickles may travel."""

    def __init__(self):
        self.key = secrets.token_bytes(16)
        self._listener = Listener((own_address(), 0), backlog=1024, authkey=self.key)
        self.host, self.port = self._listener.address

    def accept(self, count):
        """The lines of ``count`` processes, in the order of the ranks that they begin with."""
        lines = [self._listener.accept() for _ in range(count)]
        return [line for _, line in sorted(((line.recv(), line) for line in lines), key=lambda pair: pair[0])]


def connect(host, port, key, rank):
    """This process's end of a line to the ``Hub``."""
    line = Client((host, port), authkey=key)
    line.send(rank)
    return line


def own_address():
    """The address by which whoever started the run, and so everybody, reaches this machine."""
    if 'DMLC_NODE_HOST' in os.environ:
        return os.environ['DMLC_NODE_HOST']
    starter = next((os.environ[name] for name in ('DMLC_PS_ROOT_URI', 'HOROVOD_GLOO_RENDEZVOUS_ADDR') if name in os.environ), socket.gethostname())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((starter, 1))  # sends nothing
        return probe.getsockname()[0]


class Circle:
    """All workers of a run, each of which can show the others something.

    Parameters
    ----------
    rank : of this worker.
    lines : to all other workers, in order, for the first; the line to the first for the others.
    """

    def __init__(self, rank, lines, watchdog):
        self.rank, self._lines, self._watchdog = rank, lines, watchdog

    def exchange(self, value):
        """Show ``value``; returns what everyone shows, by rank. All workers must come here as often."""
        if self.rank:
            self._send(self._lines[0], value, 0)
            return self._receive(self._lines[0], 0)
        values = [value] + [self._receive(line, rank) for rank, line in enumerate(self._lines, 1)]
        for rank, line in enumerate(self._lines, 1):
            self._send(line, values, rank)
        return values

    def _send(self, line, value, rank):
        with self._naming(rank):
            line.send_bytes(pickle.dumps(value))  # send() would leave MXNet's arrays in memory that another machine cannot see

    def _receive(self, line, rank):
        with self._naming(rank):
            return line.recv()

    def _naming(self, rank):
        self._watchdog.waits_for = f'the worker of rank {rank}'
        return Ended(f'the worker of rank {rank}')


class Ended:
    """Turns the end of a line into an AnotherEndedError that names whom it led to."""

    def __init__(self, name):
        self._name = name

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if isinstance(error, (EOFError, OSError)):
            raise AnotherEndedError(f'{self._name} has ended, and the run with it (why, it says itself); {GOES_ON}') from None
