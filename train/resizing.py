"""The arrays of a run whose network shrinks: those of the network as it is now, and those of the whole network, which
checkpoints hold.

A checkpoint always holds the whole network, dead structures included. So every epoch of a run has the same
``PREFIX-symbol.json``, any tool reads it, and a resumed run rebuilds the smaller network from the dead structures
alone.
"""

from __future__ import annotations

import functools
from typing import Any, Callable, Dict, Optional, Tuple

import numpy as np

from graphs.comparison import Difference, default_tolerance, noise
from graphs.lambdas import is_lambda
from graphs.predictor import Network
from graphs.proof import prove
from graphs.shrink import Shrunk, shrink
from runtime import mx

from .engines.interface import Array, Batches, Engine, LambdaArrays, OptimizerState, Params
from .metrics import Tally


class WholeArrays:
    """Parameters, moving statistics and optimizer states of the whole network, brought up to date from the smaller one.

    Parameters
    ----------
    arg_params, aux_params : dicts name → NDArray of the whole network.
    states : dict name → optimizer state, or None where another worker has them.
    """

    def __init__(self, arg_params: Params, aux_params: Params, states: Optional[Dict[str, Any]]) -> None:
        self.arg_params, self.aux_params, self.states = dict(arg_params), dict(aux_params), states

    def cut(self, smaller: Shrunk) -> Tuple[Params, Params, Dict[str, Any]]:
        """(arg_params, aux_params, states) of the smaller network."""

        def cut(arrays: Dict[str, Any]) -> Dict[str, Any]:
            return {
                name: _mapped(array, functools.partial(smaller.cut_array, name))
                for name, array in arrays.items()
                if name in smaller.kept
            }

        return cut(self.arg_params), cut(self.aux_params), cut(self.states or {})

    def updated(self, smaller: Shrunk, arg_params: Params, aux_params: Params, states: Dict[str, Any]) -> WholeArrays:
        """The whole arrays with those of the smaller network in their places."""

        def expanded(small: Dict, whole: Dict):
            return {**whole, **{name: _joined(state, whole.get(name), smaller, name) for name, state in small.items()}}

        return WholeArrays(
            expanded(arg_params, self.arg_params),
            expanded(aux_params, self.aux_params),
            expanded(states, self.states or {}),
        )


def _mapped(state, change: Callable):
    """``state`` with ``change`` done to the numbers of every NDArray in it."""
    if isinstance(state, mx.nd.NDArray):
        return mx.nd.array(change(state.asnumpy()), dtype=state.dtype)
    if isinstance(state, (list, tuple)):
        return type(state)(_mapped(part, change) for part in state)
    return state


def _joined(small, whole, smaller, name):
    if isinstance(small, mx.nd.NDArray):
        base = np.zeros(smaller.shapes[name], small.dtype) if whole is None else whole.asnumpy()
        return mx.nd.array(smaller.expanded_array(name, small.asnumpy(), base), dtype=small.dtype)
    if isinstance(small, (list, tuple)):
        return type(small)(
            _joined(part, None if whole is None else whole[position], smaller, name)
            for position, part in enumerate(small)
        )
    return small


class ResizableEngine:
    """An engine whose network can shrink. Arrays that go in and come out are those of the whole network; everything
    else is the engine's own.

    Parameters
    ----------
    symbol : the whole network.
    data_shapes : dict from the name of the input to its shape.
    make_engine : builds an engine for a symbol.
    make_optimizer : builds the optimizer for a symbol, as MXNet's.
    """

    _smaller: Optional[Shrunk]
    _whole: Optional[WholeArrays]

    def __init__(
        self,
        symbol: mx.sym.Symbol,
        data_shapes: Dict[str, Tuple[int, ...]],
        make_engine: Callable[[mx.sym.Symbol], Engine],
        make_optimizer: Callable[[mx.sym.Symbol], mx.optimizer.Optimizer],
    ) -> None:
        self._symbol, self._data_shapes = symbol, data_shapes
        self._make_engine, self._make_optimizer = make_engine, make_optimizer
        self._engine = make_engine(symbol)
        self._smaller, self._whole = None, None
        self._threads: Optional[int] = None

    def start(
        self,
        arg_params: Optional[Params] = None,
        aux_params: Optional[Params] = None,
        state: Optional[OptimizerState] = None,
    ) -> None:
        """Start the whole network, see the engine's ``start``."""
        self._engine.start(self._make_optimizer(self._symbol), arg_params, aux_params, state)

    # What concerns the engine of the moment alone; ``StartedEngine`` says what each does.

    def seed(self, number: int) -> None:
        self._engine.seed(number)

    def set_threads(self, number: int) -> None:
        self._threads = number
        self._engine.set_threads(number)

    def prepare_iterator(self, iterator: Batches) -> Batches:
        return self._engine.prepare_iterator(iterator)

    def tally(self, top_k: int) -> Tally:
        return self._engine.tally(top_k)

    def step(self, batch: mx.io.DataBatch, seed: int) -> Array:
        return self._engine.step(batch, seed)

    def predict(self, batch: mx.io.DataBatch) -> Array:
        return self._engine.predict(batch)

    def predict_by_batch(self, batch: mx.io.DataBatch) -> Array:
        return self._engine.predict_by_batch(batch)

    def labels(self, batch: mx.io.DataBatch) -> Array:
        return self._engine.labels(batch)

    def settle(self) -> None:
        self._engine.settle()

    def end_epoch(self) -> None:
        self._engine.end_epoch()

    def note_importance(self, is_on: bool) -> None:
        self._engine.note_importance(is_on)

    # Arrays, which are those of the whole network.

    def parameters(self) -> Tuple[Params, Params]:
        """(arg_params, aux_params), copies on the CPU."""
        whole = self._current()
        return whole.arg_params, whole.aux_params

    def optimizer_state(self) -> OptimizerState:
        """(number of updates done, dict from parameter name to its state)."""
        num_update, states = self._engine.optimizer_state()
        return num_update, states if self._smaller is None else self._current().states

    def lambdas(self) -> LambdaArrays:
        """The scaling factors: dict from name to NumPy array, 0 where a structure is gone."""
        return self._expanded(self._engine.lambdas())

    def importance(self) -> LambdaArrays:
        """See the engine's ``importance``; 0 where a structure is gone."""
        return self._expanded(self._engine.importance())

    def set_lambdas(self, lambdas: LambdaArrays) -> None:
        """See the engine's ``set_lambdas``."""
        self._engine.set_lambdas(self._cut(lambdas))

    def set_bounds(self, bounds: LambdaArrays) -> None:
        """See the engine's ``set_bounds``."""
        self._engine.set_bounds(self._cut(bounds))

    def set_gamma(self, gamma: float, weights: Optional[LambdaArrays] = None) -> None:
        """See the engine's ``set_gamma``."""
        self._engine.set_gamma(gamma, None if weights is None else self._cut(weights))

    def shrink(self, dead: LambdaArrays) -> Difference:
        """Rebuild the network without the structures that are ``dead`` (dict from name of λ to boolean array), after a
        proof that it computes the same.

        Returns the ``Difference`` that the proof found. Raises CannotShrinkError or ProofError, and then the network
        stays as it is.
        """
        smaller = shrink(self._symbol, dead, self._data_shapes)
        num_update, _ = self._engine.optimizer_state()
        whole = self._current()
        arg_params, aux_params, states = whole.cut(smaller)
        found = prove(
            Network(self._symbol, whole.arg_params, whole.aux_params),
            Network(smaller.symbol, arg_params, aux_params),
            noise(2, self._data_shapes),
            default_tolerance(arg_params),
        )
        engine = self._make_engine(smaller.symbol)
        engine.start(self._make_optimizer(smaller.symbol), arg_params, aux_params, (num_update, states))
        if self._threads:
            engine.set_threads(self._threads)
        # λ inside a block that is gone scale nothing any more.
        whole.arg_params.update(
            {
                name: mx.nd.zeros(shape)
                for name, shape in smaller.shapes.items()
                if is_lambda(name) and name not in smaller.kept
            }
        )
        self._engine, self._smaller, self._whole = engine, smaller, whole
        return found

    def _current(self):
        """The arrays of the whole network as they are now."""
        arg_params, aux_params = self._engine.parameters()
        if self._smaller is None:
            return WholeArrays(arg_params, aux_params, self._engine.optimizer_state()[1])
        return self._whole.updated(self._smaller, arg_params, aux_params, self._engine.optimizer_state()[1])

    def _cut(self, arrays):
        if self._smaller is None:
            return arrays
        return {
            name: self._smaller.cut_array(name, array) for name, array in arrays.items() if name in self._smaller.kept
        }

    def _expanded(self, arrays):
        if self._smaller is None:
            return arrays
        nothing = {name: np.zeros(shape, np.float32) for name, shape in self._smaller.shapes.items() if is_lambda(name)}
        return {
            **nothing,
            **{name: self._smaller.expanded_array(name, array, nothing[name]) for name, array in arrays.items()},
        }
