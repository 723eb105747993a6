"""The arithmetic of training in half precision, on MXNet: a scaled loss, and updates of what did not overflow."""

from __future__ import annotations

import logging
from itertools import chain
from typing import Any, List, Optional

import numpy as np

from graphs.half import LOSS_SCALE
from runtime import mx

from .interface import OptimizerState, Params
from .loss_scale import STATE, LossScale
from .mxnet import MXNetEngine


class HalfEngine(MXNetEngine):
    """``MXNetEngine`` of a symbol that ``half`` made: parameters, their gradients and updates are float32, and so are
    files and what every method returns.

    A step whose gradients overflow float16 is skipped: only the schedule and the statistics of batch normalisation
    move, and the log says so. Where other processes wait for this one's gradients, it gives zeros instead, and only
    theirs count in the step.
    """

    def __init__(
        self,
        symbol: mx.sym.Symbol,
        contexts: List[mx.Context],
        data_shapes: List[mx.io.DataDesc],
        label_shapes: List[mx.io.DataDesc],
        *others: Any,
        **named: Any,
    ) -> None:
        batch_size = label_shapes[0][1][0]
        self._scale, self._scales = LossScale(batch_size), mx.nd.empty((batch_size,))
        super().__init__(
            symbol, contexts, data_shapes, [*label_shapes, mx.io.DataDesc(LOSS_SCALE, (batch_size,))], *others, **named
        )

    def start(
        self,
        optimizer: mx.optimizer.Optimizer,
        arg_params: Optional[Params] = None,
        aux_params: Optional[Params] = None,
        state: Optional[OptimizerState] = None,
    ) -> None:
        """As ``MXNetEngine.start``; ``state`` also holds the scale of the loss."""
        super().start(optimizer, arg_params, aux_params, state)
        states = state[1] if state else None
        if states and STATE in states:
            self._scale.state = states[STATE]

    def optimizer_state(self) -> OptimizerState:
        """As of ``MXNetEngine``, with the scale of the loss, by the name STATE."""
        num_update, states = super().optimizer_state()
        return num_update, states if states is None else {**states, STATE: self._scale.state}

    def predict(self, batch: mx.io.DataBatch) -> np.ndarray:
        """As ``MXNetEngine.predict``."""
        return super().predict(self._with_scale(batch))

    def predict_by_batch(self, batch: mx.io.DataBatch) -> np.ndarray:
        """As ``MXNetEngine.predict_by_batch``."""
        return super().predict_by_batch(self._with_scale(batch))

    def _gradients(self, batch):
        super()._gradients(self._with_scale(batch))
        on_devices = list(zip(*self._module._exec_group.grad_arrays))
        scale, are_finite = self._scale.value, all(map(_are_finite, on_devices))
        self._scale.learn(are_finite)
        if not are_finite:
            logging.info(
                'Gradients overflow float16: the step is left out, %d so far; the loss is now scaled by %g',
                self._scale.skipped,
                self._scale.value,
            )
            if self._is_alone():
                self._count_update()
                return False
        for gradient in chain.from_iterable(on_devices):
            if are_finite:
                gradient /= scale
            else:
                gradient[:] = 0
        return True

    def _is_alone(self):
        """Whether no other process waits for this one's gradients."""
        return self._group.size == 1

    def _count_update(self):
        """Let the schedule go on as if there had been an update."""
        optimizer = self._optimizer
        for counts in optimizer._all_index_update_counts.values():
            for key in counts:
                counts[key] += 1
        optimizer.begin_num_update += 1  # for those that have not been updated yet
        optimizer.num_update += 1

    def _with_scale(self, batch):
        self._scales[:] = self._scale.value
        return mx.io.DataBatch(batch.data, [batch.label[0], self._scales], batch.pad)


def _are_finite(arrays):
    return bool(mx.nd.multi_all_finite(*arrays, num_arrays=len(arrays)).asscalar())
