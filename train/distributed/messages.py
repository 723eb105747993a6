"""Messages between the workers of one run, besides gradients, and the watchdog of a worker whose run has stopped.

Parameter servers wait without end. Here a worker records which peer it waits for, and a ``Watchdog`` ends a worker in
which nothing happens any more.
"""

import os
import sys
import threading
import time
from types import TracebackType
from typing import List, Optional, Sequence, Type, TypeVar

from runtime.errors import AnotherEndedError, TrainingError

from .connections import Connection
from .secret import RefusedError

Value = TypeVar('Value')

RESUME_HINT = 'the last checkpoint is whole, and --resume goes on from it'


class Watchdog:
    """Ends this process with exit code 3 when ``heartbeat`` was not called for ``seconds``. Its message names what the
    process ``waits_for``.
    """

    def __init__(self, seconds: float) -> None:
        self.waits_for = 'the processes of the run to find each other'
        self._seconds, self._last_heartbeat = seconds, time.monotonic()
        threading.Thread(target=self._watch, daemon=True).start()

    def heartbeat(self, waits_for: str = 'the parameter servers, and through them for the other workers') -> None:
        """Note that this process is alive, and what it ``waits_for`` from now on."""
        self.waits_for, self._last_heartbeat = waits_for, time.monotonic()

    def _watch(self):
        while time.monotonic() - self._last_heartbeat < self._seconds:
            time.sleep(min(1, self._seconds / 10))
        print(
            f'error: for {self._seconds:g} seconds (--dist-timeout) this worker has waited for {self.waits_for}: one '
            f'of them has died, hangs or '
            f'cannot be reached; {RESUME_HINT}',
            file=sys.stderr,
            flush=True,
        )
        os._exit(AnotherEndedError.exit_code)  # MXNet's threads wait in C++, where no exception reaches them


class Exchange:
    """All workers of a run, each of which can give the others a value.

    Parameters
    ----------
    rank : of this worker.
    connections : to all other workers, in order, for the first; the one to the first worker for the others.
    """

    def __init__(self, rank: int, connections: Sequence[Connection], watchdog: Watchdog) -> None:
        self.rank, self._connections, self._watchdog = rank, connections, watchdog

    def exchange(self, value: Value) -> List[Value]:
        """Give ``value`` to every worker; returns what every worker gives, by rank. All workers must call this equally
        often.
        """
        if self.rank:
            self._send(self._connections[0], value, 0)
            return self._receive(self._connections[0], 0)
        values = [value] + [self._receive(connection, rank) for rank, connection in enumerate(self._connections, 1)]
        for rank, connection in enumerate(self._connections, 1):
            self._send(connection, values, rank)
        return values

    def _send(self, connection, value, rank):
        with self._waiting_for(rank):
            connection.send(value)

    def _receive(self, connection, rank):
        with self._waiting_for(rank):
            return connection.receive()

    def _waiting_for(self, rank):
        self._watchdog.waits_for = f'the worker of rank {rank}'
        return PeerErrors(self._watchdog.waits_for)


class PeerErrors:
    """Turns the end of a connection into an AnotherEndedError, and forged bytes into a TrainingError, that name the
    process at its other end.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> 'PeerErrors':
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if isinstance(error, RefusedError):
            raise TrainingError(
                f'the connection to {self._name} received {error}: it was changed on the way; {RESUME_HINT}'
            ) from None
        if isinstance(error, (EOFError, OSError)):
            raise AnotherEndedError(
                f'{self._name} has ended, so this process ends too; its own output says why; {RESUME_HINT}'
            ) from None
