"""The methods of an engine and of an iterator over batches that the training loop uses."""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Optional, Protocol, Tuple

import numpy as np

from runtime import mx
from train.metrics import Tally

# Dict from name to parameter or moving statistic.
Params = Dict[str, 'mx.nd.NDArray']
# Dict from name of a λ to its values, or to as many other numbers.
LambdaArrays = Dict[str, np.ndarray]
# Number of updates done, and dict from parameter name to its state: None, a number, an NDArray, or a list or tuple of
# states. See ``optimizers.apg`` for what a state is. Where another worker has the states, None is in place of the dict.
OptimizerState = Tuple[int, Optional[Dict[str, Any]]]
# An array of the engine's own, for its own ``tally``: NumPy's, or PyTorch's on a device.
Array = Any


class Batches(Protocol):
    """An iterator over batches of one size. What a batch holds is a pure function of the seed, the epoch and its number
    in the epoch, so ``set_epoch`` is all that a resumed run needs.
    """

    batch_size: int
    provide_data: List[mx.io.DataDesc]  # the one input, 'data', (B, C, H, W)
    provide_label: List[mx.io.DataDesc]  # 'softmax_label', (B,)
    epoch: int

    def __len__(self) -> int:
        """Batches per epoch."""

    def __iter__(self) -> Iterator[mx.io.DataBatch]:
        """The batches from the current one to the end of the epoch."""

    def fingerprint(self) -> Optional[Dict[str, Any]]:
        """What identifies the data set: 'images', their number, and 'sha256'; None where it does not matter."""

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Go to batch ``first_batch`` of ``epoch``, whatever was read before."""

    def reset(self) -> None:
        """Go to the start of the next epoch."""


class StartedEngine(Protocol):
    """What computes the steps of a network, from its start on."""

    def seed(self, number: int) -> None:
        """Seed the generators behind initial weights and dropout."""

    def set_threads(self, number: int) -> None:
        """Compute with ``number`` threads on the CPU from the next step on."""

    def prepare_iterator(self, iterator: Batches) -> Batches:
        """``iterator``, or a replacement on the device whose batches are the same."""

    def tally(self, top_k: int) -> Tally:
        """A fresh ``Tally`` for what ``step`` or ``predict`` and ``labels`` return."""

    def step(self, batch: mx.io.DataBatch, seed: int) -> Array:
        """One pass forward and backward and one update; the class probabilities (N, K) before it. Random numbers in it
        depend on ``seed`` alone.
        """

    def predict(self, batch: mx.io.DataBatch) -> Array:
        """The class probabilities (N - pad, K) of a batch, by the moving statistics."""

    def predict_by_batch(self, batch: mx.io.DataBatch) -> Array:
        """The class probabilities (N - pad, K) of a batch, by the statistics of the batch itself, as in training. The
        moving statistics stay as they are.
        """

    def labels(self, batch: mx.io.DataBatch) -> Array:
        """The labels (N,) of a batch."""

    def settle(self) -> None:
        """Wait until every update has been carried out."""

    def end_epoch(self) -> None:
        """``settle``, and let all devices go on from the mean of their moving statistics."""

    def parameters(self) -> Tuple[Params, Params]:
        """(arg_params, aux_params), copies on the CPU."""

    def optimizer_state(self) -> OptimizerState:
        """What ``start`` needs to go on from here."""

    def lambdas(self) -> LambdaArrays:
        """The scaling factors, or what the rule selects structures by in their place."""

    def set_lambdas(self, lambdas: LambdaArrays) -> None:
        """Give scaling factors these values."""

    def set_bounds(self, bounds: LambdaArrays) -> None:
        """Keep |λ| within ``bounds`` from the next step on; a λ whose bound is 0 stays 0."""

    def set_gamma(self, gamma: float, weights: Optional[LambdaArrays] = None) -> None:
        """Penalise λ by ``gamma`` from the next step on, times ``weights`` where they are given."""

    def note_importance(self, is_on: bool) -> None:
        """Add up (λ ∂G/∂λ)² over the steps to come, or stop it."""

    def importance(self) -> LambdaArrays:
        """The sums of (λ ∂G/∂λ)² so far."""


class Engine(StartedEngine, Protocol):
    """A network bound to devices and the shapes of a batch."""

    def start(
        self,
        optimizer: mx.optimizer.Optimizer,
        arg_params: Optional[Params] = None,
        aux_params: Optional[Params] = None,
        state: Optional[OptimizerState] = None,
    ) -> None:
        """Set parameters (None: initialise as the authors do) and the optimizer, with its ``state`` where a run is
        resumed.
        """
