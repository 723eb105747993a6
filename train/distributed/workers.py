"""The group of workers that a run is one of: its ``rank`` and ``size``, the ``store`` that ``mx.mod.Module`` sums
gradients with, and the exchange of values with the others.
"""

from __future__ import annotations

import argparse
from typing import Any, Dict, List, Optional, Tuple, TypeVar, Union

from runtime import mx

from .messages import Exchange, Watchdog

Value = TypeVar('Value')


def compression_of(args: argparse.Namespace) -> Optional[Dict[str, Any]]:
    """MXNet's parameters of gradient compression, or None."""
    return None if args.gc_type == 'none' else {'type': args.gc_type, 'threshold': args.gc_threshold}


class Alone:
    """One process, with one device or several. ``store`` is MXNet's name of what sums over its devices."""

    rank, size = 0, 1
    is_synchronous = True
    updates_per_step = 1  # by the count of the optimizer, which schedules go by
    has_servers = False
    store: Union[str, mx.kvstore.KVStore, None]
    compression: Optional[Dict[str, Any]]

    def __init__(self, store: str = 'local', compression: Optional[Dict[str, Any]] = None) -> None:
        self.store, self.compression = store, compression

    def exchange(self, value: Value) -> List[Value]:
        """What every worker gives for ``value``, by rank."""
        return [value]

    def total(self, sums: Dict[str, float]) -> Dict[str, float]:
        """Dicts of numbers, added up over the workers."""
        return sums

    def devices(self, contexts: List[mx.Context]) -> List[mx.Context]:
        """Those of this machine's ``contexts`` that this process computes on."""
        return contexts

    def begins(self, optimizer: mx.optimizer.Optimizer, names: List[str]) -> None:
        """``optimizer`` is about to be set, to move the parameters ``names`` in this order."""

    def sum_gradients(self, arrays: List[mx.nd.NDArray]) -> None:
        """Sum the gradients ``arrays`` (of one device) over the workers, in place, where no kvstore does it."""

    def heartbeat(self) -> None:
        """This worker has done something, and is alive."""

    # Only where ``has_servers``.

    def prove(self, optimizer: mx.optimizer.Optimizer) -> None:
        """Make sure, before the first step, that every server moves parameters by the rule of ``optimizer``."""
        raise NotImplementedError

    def states(self, shapes: Dict[str, Tuple[int, ...]]) -> Optional[Dict[str, Any]]:
        """The optimizer's states on the servers: dict from name to state, for the parameters of ``shapes`` that have
        one. None but on rank 0.
        """
        raise NotImplementedError

    def resume(self, states: Dict[str, Any]) -> None:
        """Give the servers the states that ``states`` returned earlier, of a checkpoint."""
        raise NotImplementedError


ALONE = Alone()


class Workers(Alone):
    """What all groups of several workers share: a ``Watchdog`` and an ``Exchange``."""

    _watchdog: Watchdog
    _exchange: Exchange

    def exchange(self, value: Value) -> List[Value]:
        """What every worker gives for ``value``, by rank. All workers must call this. Raises AnotherEndedError where
        one has ended.
        """
        self._watchdog.heartbeat()
        found = self._exchange.exchange(value)
        self._watchdog.heartbeat()
        return found

    def total(self, sums: Dict[str, float]) -> Dict[str, float]:
        """Dicts of numbers, added up over the workers. All workers must call this."""
        parts = self.exchange(sums)
        return {name: sum(part[name] for part in parts) for name in sums}

    def heartbeat(self) -> None:
        """Tell the watchdog that this worker is alive."""
        self._watchdog.heartbeat()

    def finish(self) -> None:
        """Wait until all workers have finished."""
        self.exchange(None)
