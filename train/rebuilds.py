"""When the network of a run is rebuilt without its dead structures, and what the log says of it: parameters, MACs and
speed before and after.
"""

import logging
from typing import Dict, Optional

import numpy as np

from graphs.alive import AliveCounter
from graphs.complexity import complexity
from runtime.errors import CannotShrinkError

from .resizing import ResizableEngine


class Rebuilds:
    """Rebuilds the network that ``engine`` trains. ``symbol`` is the whole network, ``data_shapes`` the shape of one
    image by the name of the input.
    """

    def __init__(self, engine: ResizableEngine, symbol, data_shapes: Dict[str, tuple]):
        self._engine, self._alive = engine, AliveCounter(symbol, data_shapes)
        self._now = complexity(symbol, data_shapes)
        self._speed: Optional[float] = None
        self._is_new = False

    def rebuild(self, epochs: int, frozen: Dict[str, np.ndarray]) -> None:
        """Rebuild the network after ``epochs`` epochs without the structures that are dead for good: ``frozen`` is a
        dict from the name of a λ to a boolean array. Does nothing where none is dead, and warns where it cannot be
        done.
        """
        if not any(mask.any() for mask in frozen.values()):
            return
        try:
            found = self._engine.shrink(frozen)
        except CannotShrinkError as error:
            logging.warning('After %d epochs the network stays as it is: %s. Dead structures stay dead', epochs, error)
            return
        before, self._now = self._now, self._alive({name: ~mask for name, mask in frozen.items()})
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
        """Take note of the images/s of an epoch. After a rebuild, log them beside those of the epoch before it."""
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
