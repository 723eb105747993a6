"""What stayed and what went: the record of a stripping, layer by layer and channel by channel."""

from typing import Any, Dict, Iterable, List, Mapping

import numpy as np

from .attributes import number
from .complexity import complexity, count
from .graph import Graph, Shape, Shapes, labels
from .lambdas import is_lambda, lambda_layout
from .pruning import Cut
from .values import Array, to_numpy

# Operators with parameters, and the axis of their first one along which their output channels lie.
LAYERS = {'Convolution': 0, 'FullyConnected': 0, 'BatchNorm': 0, '_contrib_SyncBatchNorm': 0, 'Deconvolution': 1}


class History:
    """Follows the channels of every layer through the rounds of pruning."""

    def __init__(
        self,
        graph: Graph,
        shapes: Shapes,
        values: Mapping[str, Array],
        data_shapes: Mapping[str, Shape],
        lambda_name: str,
    ) -> None:
        batch = next(iter(data_shapes.values()))[0]
        found = count(graph, shapes, set(data_shapes) | labels(graph), batch, lambda_name)
        self._before = {
            **found.totals(),
            'bytes': _bytes(values[node.name] for node in graph.variables() if node.name in values),
        }
        self._lambda_name = lambda_name
        self._lambdas = {name: to_numpy(array) for name, array in values.items() if is_lambda(name, lambda_name)}
        self._layout = {vector.name: vector for vector in lambda_layout(graph.to_symbol())}
        # By node, since two nodes may have one name: a layer that is used twice.
        self._layers = {
            node: (node.op, shapes[node.inputs[1]][LAYERS[node.op]], number(node, 'num_group', 1))
            for node in graph.nodes()
            if node.op in LAYERS
        }
        self._channels = {node: np.arange(channels) for node, (_, channels, _) in self._layers.items()}

    def record(self, cut: Cut) -> None:
        """Note what a round has cut."""
        for (node, _), mask in cut.kept.items():
            if node in self._channels:
                self._channels[node] = self._channels[node][mask]

    def report(self, graph: Graph, values: Mapping[str, Array], data_shapes: Mapping[str, Shape]) -> Dict[str, Any]:
        """The whole record, ready for JSON.

        ``before`` and ``after`` hold params, params_without_bn, macs, bias_adds, lambdas and bytes; ``lambdas`` for
        every vector of scaling factors its kind and which entries are alive (1) or dead (0); ``layers`` for every
        convolution, full connection and batch normalisation the channels it put out before and those of them that are
        left, as ranges [first, last], and its groups before and after. A layer that is gone keeps none.
        """
        left = set(graph.nodes())
        layers = []
        for node, (op, channels, groups) in self._layers.items():
            stays = node in left
            kept = self._channels[node] if stays else np.zeros(0, int)
            layer = {'name': node.name, 'op': op, 'channels': channels, 'kept': len(kept), 'kept_ranges': ranges(kept)}
            if groups > 1:
                layer.update(groups=groups, kept_groups=number(node, 'num_group', 1) if stays else 0)
            layers.append(layer)
        return {
            'before': self._before,
            'after': {
                **complexity(graph.to_symbol(), data_shapes, self._lambda_name).totals(),
                'bytes': _bytes(values.values()),
            },
            'lambdas': {name: self._factors(name) for name in self._lambdas},
            'layers': layers,
        }

    def _factors(self, name):
        alive = self._lambdas[name] != 0
        vector = self._layout.get(name)
        return {
            'kind': vector.kind if vector else 'neuron',
            'stages': list(vector.stages) if vector else [],
            'alive': alive.astype(int).tolist(),
            'alive_count': int(alive.sum()),
            'count': int(alive.size),
        }


def ranges(numbers: Iterable[int]) -> List[List[int]]:
    """Ascending integers as a list of [first, last]."""
    found: List[List[int]] = []
    for entry in map(int, numbers):
        if found and found[-1][1] == entry - 1:
            found[-1][1] = entry
        else:
            found.append([entry, entry])
    return found


def _bytes(arrays):
    return sum(int(np.prod(array.shape)) * np.dtype(array.dtype).itemsize for array in arrays)
