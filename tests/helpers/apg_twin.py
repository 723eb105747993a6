"""A second, independent implementation of what APG must do: equations 10 to 12 and the NAG rule, one array at a time,
in NumPy and float64.
"""

import numpy as np


class Twin:
    """One parameter under the paper's optimizer.

    ``value`` is λ or a weight; ``step(gradient, eta)`` moves it. The settings are those of ``APG``, with every
    multiplier already in ``eta`` and ``wd``.
    """

    def __init__(
        self, value, is_lambda, gamma=0.01, momentum=0.9, wd=0.0, clip_gradient=None, rescale_grad=1.0, nonnegative=True
    ):
        self.value = np.array(value, np.float64)
        self.moving = np.zeros_like(self.value)
        self.is_lambda, self.gamma, self.momentum, self.wd = is_lambda, gamma, momentum, wd
        self.clip_gradient, self.rescale_grad, self.nonnegative = clip_gradient, rescale_grad, nonnegative

    def step(self, gradient, eta):
        gradient = self.rescale_grad * np.asarray(gradient, np.float64)
        if self.clip_gradient is not None:
            gradient = np.clip(gradient, -self.clip_gradient, self.clip_gradient)
        if self.is_lambda:
            self._step_lambda(gradient, eta)
        else:
            self._step_weight(gradient, eta)
        return self.value

    def _step_lambda(self, gradient, eta):
        z = self.value - eta * gradient
        shrunk = np.sign(z) * np.maximum(np.abs(z) - eta * self.gamma, 0)
        self.moving = shrunk - self.value + self.momentum * self.moving
        self.value = shrunk + self.momentum * self.moving
        if self.nonnegative:
            self.value = np.maximum(self.value, 0)

    def _step_weight(self, gradient, eta):
        gradient = gradient + self.wd * self.value
        self.moving = self.momentum * self.moving + gradient
        self.value = self.value - eta * (gradient + self.momentum * self.moving)
