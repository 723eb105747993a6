"""Workers that sum gradients with Horovod: ``--kv-store horovod``."""

from __future__ import annotations

from types import ModuleType
from typing import List

import numpy as np

from runtime import mx
from runtime.errors import MissingDependencyError

from .connections import Hub, connect, read_address
from .messages import Exchange, Watchdog
from .secret import run_secret
from .workers import Workers

ADDRESS_LENGTH = 512


class Horovod(Workers):
    """Workers, each with a single device, that sum gradients with Horovod's allreduce and then take the optimizer's
    step themselves.
    """

    store, compression = None, None

    def __init__(self, timeout: float = 300) -> None:
        self._watchdog, secret = Watchdog(timeout), run_secret()
        self._horovod = require_horovod()
        self._horovod.init()
        self.rank, self.size = self._horovod.rank(), self._horovod.size()
        hub = Hub(secret, [('worker', rank) for rank in range(1, self.size)]) if self.rank == 0 else None
        self._watchdog.heartbeat('the other workers')
        address = self._broadcast_from_rank0(hub.signed_address() if hub else '')
        if hub:
            connections = hub.accept('worker', range(1, self.size))
            hub.close()
        else:
            connections = [connect(*read_address(secret, address), secret, 'worker', self.rank)]
        self._exchange = Exchange(self.rank, connections, self._watchdog)

    def devices(self, contexts: List[mx.Context]) -> List[mx.Context]:
        """The one of ``contexts`` that this process computes on, by its rank on this machine."""
        return [contexts[self._horovod.local_rank() % len(contexts)]]

    def sum_gradients(self, arrays: List[mx.nd.NDArray]) -> None:
        """Sum the gradients ``arrays`` over the workers, in place, by allreduce."""
        for number, array in enumerate(arrays):
            self._horovod.allreduce_(array, average=False, name=str(number), priority=-number)

    def _broadcast_from_rank0(self, text):
        """The ``text`` of the first worker, as bytes: the sum of its bytes and of the zeros of the others. Horovod's
        own way for objects is a pickle.
        """
        shared = mx.nd.array(np.frombuffer(text.encode().ljust(ADDRESS_LENGTH, b'\0'), np.uint8), dtype=np.float32)
        self._horovod.allreduce_(shared, average=False, name='address')
        return bytes(shared.asnumpy().astype(np.uint8)).rstrip(b'\0')


def require_horovod() -> ModuleType:
    """Horovod's module for MXNet. Raises MissingDependencyError where it is not installed."""
    try:
        import horovod.mxnet
    except ImportError as error:
        raise MissingDependencyError(
            f'--kv-store horovod needs Horovod, built for MXNet ({error}); docs/distributed.md says how'
        ) from None
    return horovod.mxnet
