"""What the structure that is still alive would cost: the number to watch while a network is training.

alive = AliveCounter(symbol, {'data': (1, 3, 32, 32)})
alive({'lambda_block': array}).macs         # as often as you like
"""

from __future__ import annotations

from typing import Dict, Mapping, Optional, Tuple

import numpy as np

from runtime import mx
from runtime.errors import NothingLeftError

from .complexity import Complexity, count
from .folding import evaluate
from .graph import AUXILIARY_INPUTS, Graph, Output, Shape, labels
from .lambdas import is_lambda
from .losses import drop_losses
from .sweep import prepare, sweep
from .values import Array, stand_in, to_numpy

NOTHING = Complexity(0, 0, 0, 0, 0, ())
# The numbers that unknown parameters are computed with where λ is folded into them: positive, and no two alike.
UNKNOWN_NUMBERS = np.linspace(0.5, 1.5, 1009, dtype=np.float32)


def alive_complexity(
    symbol: mx.sym.Symbol, params: Mapping[str, Array], data_shapes: Mapping[str, Shape], lambda_name: str = 'lambda'
) -> Complexity:
    """The ``Complexity`` that ``symbol`` would have after stripping; see ``AliveCounter``."""
    return AliveCounter(symbol, data_shapes, lambda_name)(params)


class AliveCounter:
    """Counts what stripping would leave of ``symbol``, by the very sweep that strips.

    Made once for a symbol and the shapes of its inputs (dict name → shape, the batch first). Each call takes parameters
    (dict name → NDArray or NumPy array), all λ among them (or masks of those alive), and returns a ``Complexity``, all
    zeros where nothing would be left. Its ``lambdas`` are the factors alive.

    Given all parameters and states, the count is always that of the stripped network. Given λ alone, every other number
    is taken to be positive and moving means to be 0. That makes a difference only where a dead structure leaves a
    constant behind (β of a batch normalisation) and what stands behind it, a ReLU or a β of 0, makes that constant 0.
    Of λ only the signs count then, and a call with the same signs as the one before costs next to nothing.

    Raises ``GraphError`` where the shapes cannot be inferred, KeyError where a λ is missing.
    """

    def __init__(self, symbol: mx.sym.Symbol, data_shapes: Mapping[str, Shape], lambda_name: str = 'lambda') -> None:
        self._graph = Graph.from_symbol(symbol)
        self._batch = next(iter(data_shapes.values()))[0]
        self._data = set(data_shapes)
        self._inputs = self._data | labels(self._graph)
        self._shapes = self._graph.shapes(data_shapes)
        self._shapes_of = {
            node.name: self._shapes[Output(node)] for node in self._graph.variables() if node.name not in self._inputs
        }
        self._lambdas = {name for name in self._shapes_of if is_lambda(name, lambda_name)}
        means = {
            node.sources[AUXILIARY_INPUTS[node.op][0]].name
            for node in self._graph.nodes()
            if node.op in AUXILIARY_INPUTS
        }
        self._stand_ins = {name: stand_in(shape, name not in means) for name, shape in self._shapes_of.items()}
        drop_losses(self._graph)
        self._folded = prepare(self._graph, self._shapes, set(self._shapes_of), lambda_name)
        self._last: Tuple[Optional[Dict[str, bytes]], Complexity] = (None, NOTHING)

    def __call__(self, params: Mapping[str, Array]) -> Complexity:
        given = {name: params[name] for name in self._shapes_of if name in params or name in self._lambdas}
        if given.keys() != self._lambdas:
            return self._count(given)
        signs = {name: np.sign(to_numpy(array).astype(np.float64)).astype(np.float32) for name, array in given.items()}
        key = {name: array.tobytes() for name, array in signs.items()}
        if self._last[0] != key:
            self._last = key, self._count(signs)
        return self._last[1]

    def _count(self, given):
        """What stripping would leave with the parameters of ``given`` and stand-ins for all others."""
        graph = self._graph.copy()
        twins = dict(zip(self._graph.nodes(), graph.nodes()))
        shapes = {Output(twins[node], index): shape for (node, index), shape in self._shapes.items() if node in twins}
        # A NumPy array that repeats itself would pass for a stand-in.
        owned = {
            name: array if isinstance(array, mx.nd.NDArray) else np.ascontiguousarray(array)
            for name, array in given.items()
        }
        values = {**self._stand_ins, **owned, **self._evaluated(owned)}
        try:
            sweep(graph, values, shapes, self._data)
        except NothingLeftError:
            return NOTHING
        alive = sum(np.count_nonzero(to_numpy(given[name])) for name in self._lambdas)
        return count(graph, shapes, self._inputs, self._batch)._replace(lambdas=int(alive))

    def _evaluated(self, given):
        """The values of what is folded, with the parameters of ``given`` and unknown numbers for all others."""
        names = {node.name for node in Graph(self._folded.values()).variables()}
        dtype = next((given[name].dtype for name in names if name in given), np.float32)
        values = {
            name: given[name] if name in given else np.resize(UNKNOWN_NUMBERS, self._shapes_of[name]) for name in names
        }
        values = {
            name: array if isinstance(array, mx.nd.NDArray) else mx.nd.array(array, dtype=dtype)
            for name, array in values.items()
        }
        return evaluate(self._folded, values)
