"""Rebuild the network of a run without its dead structures, and log parameters, MACs and speed before and after.

A rebuild costs time: a proof, and where the step is compiled, compiling it anew (up to a minute). So the network is
rebuilt when it pays: when at least ``PART`` of its MACs are dead, or when nothing more is to die.
"""

from __future__ import annotations

import logging
from typing import Dict, List, Optional, Tuple

import numpy as np

from graphs.alive import AliveCounter
from graphs.complexity import Complexity, complexity
from runtime import mx
from runtime.errors import CannotShrinkError

from .resizing import ResizableEngine

# The share of the MACs of the network as it is now that must be dead before it is rebuilt.
PART = 0.1

Masks = Dict[str, np.ndarray]


class Rebuilds:
    """Rebuilds the network that ``engine`` trains. ``symbol`` is the whole network, ``data_shapes`` the shape of one
    image by the name of the input.
    """

    def __init__(self, engine: ResizableEngine, symbol: mx.sym.Symbol, data_shapes: Dict[str, Tuple[int, ...]]) -> None:
        self._engine, self._alive = engine, AliveCounter(symbol, data_shapes)
        self._now = complexity(symbol, data_shapes)
        self._speed: Optional[float] = None
        self._is_new = False
        self._removed: Masks = {}

    def state(self) -> Dict[str, List[int]]:
        """The structures without which the network was last rebuilt, for JSON: dict from the name of a λ to places in
        it.
        """
        return {name: np.flatnonzero(mask).tolist() for name, mask in self._removed.items() if mask.any()}

    def load(self, epochs: int, state: Dict[str, List[int]], frozen: Masks, is_final: bool) -> None:
        """Rebuild the network of a resumed run as it is after ``epochs`` epochs of one that was not stopped: ``state``
        is of ``state()``, ``frozen`` and ``is_final`` as ``rebuild_if_it_pays`` takes them.
        """
        removed = {name: np.zeros(mask.shape, bool) for name, mask in frozen.items()}
        for name, places in state.items():
            removed[name].reshape(-1)[places] = True
        self._removed, self._now = removed, self._without(removed)
        if not self.rebuild_if_it_pays(epochs, frozen, is_final):
            self._rebuild(epochs, removed)

    def rebuild_if_it_pays(self, epochs: int, frozen: Masks, is_final: bool) -> bool:
        """Rebuild the network after ``epochs`` epochs without the structures that are dead for good, if at least
        ``PART`` of its MACs are dead, or if some are and nothing more is to die (``is_final``).

        ``frozen`` is a dict from the name of a λ to a boolean array. Returns whether a rebuild was tried; where the
        network cannot be rebuilt, a warning says so.
        """
        is_same = all(np.array_equal(mask, self._removed.get(name, False & mask)) for name, mask in frozen.items())
        if is_same or not is_final and self._without(frozen).macs > (1 - PART) * self._now.macs:
            return False
        self._rebuild(epochs, frozen)
        return True

    def _without(self, dead: Masks) -> Complexity:
        return self._alive({name: ~mask for name, mask in dead.items()})

    def _rebuild(self, epochs: int, frozen: Masks) -> None:
        if not any(mask.any() for mask in frozen.values()):
            return
        self._removed = {name: mask.copy() for name, mask in frozen.items()}
        try:
            found = self._engine.shrink(frozen)
        except CannotShrinkError as error:
            logging.warning('After %d epochs the network stays as it is: %s. Dead structures stay dead', epochs, error)
            return
        before, self._now = self._now, self._without(frozen)
        self._is_new = True
        logging.info(
            'Rebuilt the network without its dead structures after %d epochs: params %d -> %d, macs %d -> %d; logits '
            'differ by %.2g of their spread',
            epochs,
            before.params,
            self._now.params,
            before.macs,
            self._now.macs,
            found.relative,
        )

    def measured(self, epoch: int, speed: float) -> None:
        """Note the images/s of an epoch, without the time of compiling. After a rebuild, log them and those of the
        epoch before it.
        """
        if self._is_new:
            before = 'not known' if self._speed is None else f'{self._speed:.0f}'
            logging.info(
                'Epoch[%d] Training speed before and after the rebuild: %s -> %.0f images/s', epoch, before, speed
            )
            if self._speed is not None and speed < self._speed:
                logging.info(
                    'Epoch[%d] The smaller network is not faster here: other processes may have been busy, and few or '
                    'odd channels cost speed',
                    epoch,
                )
        self._is_new, self._speed = False, speed
