"""The arrays of a run whose network shrinks: those of the network as it is now, and those of the whole network, which
checkpoints hold.

A checkpoint always holds the whole network, dead structures included. So every epoch of a run has the same
``PREFIX-symbol.json``, any tool reads it, and a resumed run rebuilds the smaller network from the dead structures
alone.
"""

from typing import Callable, Dict

import numpy as np

from graphs.lambdas import is_lambda
from graphs.proof import Network, default_tolerance, noise, prove
from graphs.shrink import Shrunk, shrink
from runtime import mx


class WholeArrays:
    """Parameters, moving statistics and optimizer states of the whole network, brought up to date from the smaller one.

    Parameters
    ----------
    arg_params, aux_params : dicts name → NDArray of the whole network.
    states : dict name → optimizer state, or None where another worker has them.
    """

    def __init__(self, arg_params, aux_params, states):
        self.arg_params, self.aux_params, self.states = dict(arg_params), dict(aux_params), states

    def cut(self, smaller: Shrunk):
        """(arg_params, aux_params, states) of the smaller network."""
        params = [
            {
                name: _mapped(array, lambda values, name=name: smaller.cut_array(name, values))
                for name, array in arrays.items()
                if name in smaller.kept
            }
            for arrays in (self.arg_params, self.aux_params)
        ]
        states = {
            name: _mapped(state, lambda values, name=name: smaller.cut_array(name, values))
            for name, state in self.states.items()
            if name in smaller.kept
        }
        return (*params, states)

    def updated(self, smaller: Shrunk, arg_params, aux_params, states):
        """The whole arrays with those of the smaller network in their places."""

        def expanded(small: Dict, whole: Dict):
            return {**whole, **{name: _joined(state, whole.get(name), smaller, name) for name, state in small.items()}}

        return WholeArrays(
            expanded(arg_params, self.arg_params), expanded(aux_params, self.aux_params), expanded(states, self.states)
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

    def __init__(self, symbol, data_shapes, make_engine: Callable, make_optimizer: Callable):
        self._symbol, self._data_shapes = symbol, data_shapes
        self._make_engine, self._make_optimizer = make_engine, make_optimizer
        self._engine = make_engine(symbol)
        self._smaller, self._whole, self._threads = None, None, None

    def __getattr__(self, name):
        # step, predict, labels, tally, seed, settle, end_epoch, prepare_iterator, note_importance
        return getattr(self._engine, name)

    def start(self, arg_params=None, aux_params=None, state=None):
        """Start the whole network, see the engine's ``start``."""
        self._engine.start(self._make_optimizer(self._symbol), arg_params, aux_params, state)

    def set_threads(self, number):
        """See the engine's ``set_threads``."""
        self._threads = number
        self._engine.set_threads(number)

    def parameters(self):
        """(arg_params, aux_params), copies on the CPU."""
        whole = self._current()
        return whole.arg_params, whole.aux_params

    def optimizer_state(self):
        """(number of updates done, dict from parameter name to its state)."""
        num_update, states = self._engine.optimizer_state()
        return num_update, states if self._smaller is None else self._current().states

    def lambdas(self):
        """The scaling factors: dict from name to NumPy array, 0 where a structure is gone."""
        return self._expanded(self._engine.lambdas())

    def importance(self):
        """See the engine's ``importance``; 0 where a structure is gone."""
        return self._expanded(self._engine.importance())

    def set_lambdas(self, lambdas):
        """See the engine's ``set_lambdas``."""
        self._engine.set_lambdas(self._cut(lambdas))

    def set_bounds(self, bounds):
        """See the engine's ``set_bounds``."""
        self._engine.set_bounds(self._cut(bounds))

    def set_gamma(self, gamma, weights=None):
        """See the engine's ``set_gamma``."""
        self._engine.set_gamma(gamma, None if weights is None else self._cut(weights))

    def shrink(self, dead):
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
