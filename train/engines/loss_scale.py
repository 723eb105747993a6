"""The scale of the loss in float16, so that small gradients do not become 0: a power of two, which falls where
gradients overflow and rises where they do not.
"""

import math
from typing import List, Sequence

from runtime.errors import TrainingError

# PyTorch's choices, here for both engines: of a mean loss, so of a sum over the batch divided by the batch.
FIRST, FACTOR, PATIENCE = 2.0**16, 2.0, 2000
LARGEST, SMALLEST = 2.0**24, 2.0**-14
STATE = 'loss_scale'


def first_scale(batch_size: int) -> float:
    """The scale to begin with, for a loss that is summed over ``batch_size`` images: a power of two, so that scaling
    rounds nothing.
    """
    return 2.0 ** math.floor(math.log2(FIRST / batch_size))


class LossScale:
    """The scale ``value`` of the loss. It is halved where gradients overflow, and doubled after PATIENCE steps without.

    ``state`` (value, steps since it moved, steps ``skipped`` in all) is what a resumed run needs to go on the same.
    """

    def __init__(self, batch_size: int) -> None:
        self.value, self._steady, self.skipped = first_scale(batch_size), 0, 0

    @property
    def state(self) -> List[float]:
        """[value, steps since it moved, steps skipped in all]"""
        return [self.value, float(self._steady), float(self.skipped)]

    @state.setter
    def state(self, state: Sequence[float]) -> None:
        value, steady, skipped = state
        self.value, self._steady, self.skipped = value, int(steady), int(skipped)

    def learn(self, are_finite: bool) -> None:
        """Adapt the scale after a step whose gradients ``are_finite`` or not. Raises TrainingError where they are not
        finite even at the smallest scale.
        """
        if not are_finite:
            self.value, self._steady, self.skipped = self.value / FACTOR, 0, self.skipped + 1
            if self.value < SMALLEST:
                raise TrainingError(
                    f'the gradients are not finite in float16, even at the smallest loss scale ({self.skipped} steps '
                    'skipped); lower --lr, or train with --dtype float32'
                )
            return
        self._steady += 1
        if self._steady == PATIENCE:
            self.value, self._steady = min(self.value * FACTOR, LARGEST), 0
