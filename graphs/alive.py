"""What the structure that is still alive would cost: the number to watch while a network is training.

    alive = AliveCounter(symbol, {'data': (1, 3, 32, 32)})
    alive({'lambda_block': array}).macs         # every epoch
"""
import numpy as np

from runtime import mx
from runtime.errors import NothingLeftError

from .complexity import Complexity, count
from .folding import evaluate, fold_constants
from .graph import AUXILIARY_INPUTS, Graph, Output, labels
from .lambdas import is_lambda
from .liveness import Weights
from .losses import drop_losses
from .pruning import prune

NOTHING = Complexity(0, 0, 0, 0, 0, ())


def alive_complexity(symbol, lambdas, data_shapes, lambda_name='lambda'):
    """The ``Complexity`` that ``symbol`` would have after stripping with these scaling factors (dict name → array); see ``AliveCounter``."""
    return AliveCounter(symbol, data_shapes, lambda_name)(lambdas)


class AliveCounter:
    """Counts what would be left of ``symbol``, from its scaling factors alone: every other parameter is taken to be non-zero.

    Made once for a symbol and the shapes of its inputs; each call takes the scaling factors (dict name → NDArray or NumPy array) and returns a
    ``Complexity``, all zeros where nothing would be left. Its ``lambdas`` are the factors alive.
    """

    def __init__(self, symbol, data_shapes, lambda_name='lambda'):
        self._graph = Graph.from_symbol(symbol)
        self._batch = next(iter(data_shapes.values()))[0]
        self._data = set(data_shapes)
        self._inputs = self._data | labels(self._graph)
        drop_losses(self._graph)
        self._shapes_of = {node.name: shape for (node, _), shape in self._graph.shapes(data_shapes).items() if node.is_variable}
        names = set(self._shapes_of) - self._inputs
        means = {node.sources[AUXILIARY_INPUTS[node.op][0]].name for node in self._graph.nodes() if node.op in AUXILIARY_INPUTS}
        folded = fold_constants(self._graph, names, lambda_name)
        below = {name: {node.name for node in Graph([source]).nodes() if node.is_variable} for name, source in folded.items()}
        self._scaled = {name: source for name, source in folded.items() if any(is_lambda(variable, lambda_name) for variable in below[name])}
        self._factors = {name for name in self._scaled if all(is_lambda(variable, lambda_name) for variable in below[name])}
        self._lambdas = {name for name in names if is_lambda(name, lambda_name)}
        arrays = {name: np.broadcast_to(np.float32(name not in means), self._shapes_of[name]) for name in names - self._lambdas}
        arrays.update(self._evaluate({name: source for name, source in folded.items() if name not in self._scaled}, {}))
        self._weights = Weights(arrays)
        ones = {name: np.ones(self._shapes_of[name], np.float32) for name in self._lambdas}
        known = {**self._shapes_of, **{name: array.shape for name, array in {**arrays, **self._evaluate(self._scaled, ones)}.items()}}
        self._shapes = self._graph.shapes(known)

    def __call__(self, lambdas):
        switches = {name: _switches(lambdas[name]) for name in self._lambdas}
        weights = self._weights.updated(self._evaluate(self._scaled, switches))
        graph = self._graph.copy()
        twins = dict(zip(self._graph.nodes(), graph.nodes()))
        shapes = {Output(twins[node], index): shape for (node, index), shape in self._shapes.items()}
        try:
            _, cut = prune(graph, weights, shapes, self._data)
        except NothingLeftError:
            return NOTHING
        left = {source: cut.shape_of(source, shape) for source, shape in shapes.items()}
        found = count(graph, left, self._inputs | self._factors, self._batch)
        return found._replace(lambdas=int(sum(switch.sum() for switch in switches.values())))

    def _evaluate(self, expressions, switches):
        """The values of ``expressions`` with 1 for every parameter and ``switches`` for the scaling factors."""
        names = {node.name for node in Graph(expressions.values()).nodes() if node.is_variable}
        values = {name: mx.nd.array(switches[name]) if name in switches else mx.nd.ones(self._shapes_of[name]) for name in names}
        return evaluate(expressions, values)


def _switches(factor):
    """1 where a factor is alive, 0 where it is dead."""
    numbers = factor.asnumpy() if isinstance(factor, mx.nd.NDArray) else np.asarray(factor)
    return (numbers != 0).astype(np.float32)
