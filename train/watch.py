"""Warn at once when a run has collapsed, and say what to do."""

from __future__ import annotations

import logging
from typing import Dict, Optional, Set, Tuple

import numpy as np

from graphs.lambdas import lambda_layout
from runtime import mx
from runtime.errors import TrainingError

from .metrics import lambda_statistics

# Accuracy up to this many times that of guessing is chance.
CHANCE = 1.2


class Watch:
    """Looks at a run at the end of each epoch; ``classes`` is the number of its classes."""

    def __init__(self, symbol: mx.sym.Symbol, classes: int) -> None:
        self._symbol, self._classes = symbol, classes
        self._has_lambda = bool(lambda_layout(symbol))
        self._best = 0.0
        self._said: Set[Tuple[str, int]] = set()

    def look(
        self, epoch: int, accuracy: float, lambdas: Dict[str, np.ndarray], alive: Optional[Dict[str, int]]
    ) -> None:
        """Warn of accuracy that fell to chance and of stages without a structure. ``alive`` is {'params', 'macs'} or
        None.

        Raises TrainingError where no path from the data to the output is left.
        """
        if alive is not None and not alive['macs']:
            raise TrainingError(
                f'epoch {epoch}: every structure on the way from the data to the output is dead, so nothing is left to '
                'train; lower --gamma, '
                'or give a budget with --target-macs'
            )
        chance = CHANCE / self._classes
        if accuracy <= chance < self._best / 2:
            logging.warning(
                'Epoch[%d] Validation accuracy fell to %.4f, which is chance (it was %.4f): lower --gamma or --lr, or '
                'raise --warmup-epochs',
                epoch,
                accuracy,
                self._best,
            )
        self._best = max(self._best, accuracy)
        if not self._has_lambda:
            return
        for kind, found in lambda_statistics(self._symbol, lambdas).items():
            for stage, (count, _) in found['stages'].items():
                if not count and (kind, stage) not in self._said:
                    self._said.add((kind, stage))
                    logging.warning(
                        'Epoch[%d] Every %s of stage %s is dead: lower --gamma if the accuracy falls',
                        epoch,
                        kind,
                        stage,
                    )
