"""How big and how costly a network is: parameters and multiply-accumulates (MACs), counted by walking the graph.

What counts:

* **params** — every argument that is learned: weights, biases, BN's gamma and beta. A gamma that ``fix_gamma`` holds at
  1 is not learned. Scaling factors are not among them (they vanish into the parameters beside them once training is
  over) and are given as ``lambdas``; moving means and variances are states, not parameters. A shared parameter counts
  once.
* **params_without_bn** — the same without BN's gamma and beta: the parameters of the paper's tables.
* **macs** — multiply-accumulates of convolutions (grouped and deformable ones too), transposed convolutions and fully
  connected layers for **one** image, each use of a shared weight counted: the "FLOPs" of the paper's tables. BN,
  activations, pooling, additions, sampling between pixels and scaling by λ count nothing.
* **bias_adds** — the additions of biases, which the MACs leave out.
"""

from __future__ import annotations

from typing import Container, Dict, Mapping, NamedTuple, Tuple

from runtime import mx

from .attributes import flag
from .graph import AUXILIARY_INPUTS, NORMALISERS, Graph, Node, Output, Shape, Shapes, labels
from .lambdas import is_lambda

# Which input of an operator is its weight; the bias follows.
MULTIPLIERS = {
    'Convolution': 1,
    'Convolution_v1': 1,
    'Deconvolution': 1,
    'FullyConnected': 1,
    '_contrib_DeformableConvolution': 2,
    '_contrib_ModulatedDeformableConvolution': 3,
}
GAMMA = 1


class Layer(NamedTuple):
    """One operator that has parameters or multiplies: its output's shape (without the batch) and what it costs."""

    name: str
    op: str
    output: Shape
    params: int
    macs: int


class Complexity(NamedTuple):
    """Parameters and costs of a network for one image; see the module's text for what counts."""

    params: int
    params_without_bn: int
    macs: int
    bias_adds: int
    lambdas: int
    layers: Tuple[Layer, ...]

    def totals(self) -> Dict[str, int]:
        """Everything but the layers, as a dict."""
        return {name: value for name, value in self._asdict().items() if name != 'layers'}


def complexity(symbol: mx.sym.Symbol, data_shapes: Mapping[str, Shape], lambda_name: str = 'lambda') -> Complexity:
    """The ``Complexity`` of a symbol for inputs of ``data_shapes`` (name → shape, the batch first).

    Any batch gives the same numbers. Raises ``GraphError`` where the shapes cannot be inferred.
    """
    graph = Graph.from_symbol(symbol)
    batch = next(iter(data_shapes.values()))[0]
    return count(graph, graph.shapes(data_shapes), set(data_shapes) | labels(graph), batch, lambda_name)


def count(graph: Graph, shapes: Shapes, inputs: Container[str], batch: int, lambda_name: str = 'lambda') -> Complexity:
    """The ``Complexity`` of a ``Graph`` whose outputs have ``shapes`` for ``batch`` images.

    ``inputs`` are the names of the variables that are no parameters.
    """
    owners = _parameters_by_layer(graph, inputs)
    layers, counted, bn, lambdas, bias_adds = [], set(), 0, 0, 0
    for node, parameters in owners.items():
        own = {parameter for parameter in parameters if parameter not in counted}
        counted |= own
        scaling = {parameter for parameter in own if is_lambda(parameter.name, lambda_name)}
        sizes = sum(_size(shapes[Output(parameter)]) for parameter in own - scaling)
        lambdas += sum(_size(shapes[Output(parameter)]) for parameter in scaling)
        bn += sizes if node.op in NORMALISERS else 0
        bias_adds += _bias_adds(node, shapes) // batch
        if own - scaling or node.op in MULTIPLIERS:
            macs = macs_of(node, shapes) // batch
            layers.append(Layer(node.name, node.op, _output_shape(node, shapes)[1:], sizes, macs))
    params = sum(layer.params for layer in layers)
    return Complexity(params, params - bn, sum(layer.macs for layer in layers), bias_adds, lambdas, tuple(layers))


def _parameters_by_layer(graph, inputs):
    """Every operator that works on data, with what it reads that is learned.

    That is read directly, or through operators that see nothing but parameters (λ·W).
    """
    reached, layers = {}, {}
    for node in graph.nodes():
        if node.is_variable:
            reached[node] = None if node.name in inputs else (node,)
        elif node.inputs and all(reached[source] is not None for source in node.sources):
            reached[node] = tuple(parameter for source in node.sources for parameter in reached[source])
        else:
            reached[node] = None
            fixed = _not_learned(node)
            layers[node] = [
                parameter
                for position, source in enumerate(node.sources)
                if position not in fixed
                for parameter in reached[source] or ()
            ]
    return layers


def _not_learned(node):
    """The positions of the inputs that are states, or a gamma that is held at 1."""
    fixed_gamma = node.op in NORMALISERS and flag(node, 'fix_gamma', True)
    return AUXILIARY_INPUTS.get(node.op, ()) + ((GAMMA,) if fixed_gamma else ())


def macs_of(node: Node, shapes: Shapes) -> int:
    """Multiply-accumulates of one operator on the whole batch.

    Each position of the output (of a transposed convolution: the input) is multiplied by each weight.
    """
    if node.op not in MULTIPLIERS:
        return 0
    image = shapes[node.inputs[0]] if node.op == 'Deconvolution' else _output_shape(node, shapes)
    weight = shapes[node.inputs[MULTIPLIERS[node.op]]]
    channels = weight[0]
    return _size(image) // channels * _size(weight)


def _bias_adds(node, shapes):
    has_bias = node.op in MULTIPLIERS and len(node.inputs) > MULTIPLIERS[node.op] + 1
    return _size(_output_shape(node, shapes)) if has_bias else 0


def _output_shape(node, shapes):
    return shapes.get(Output(node), ())


def _size(shape):
    size = 1
    for length in shape:
        size *= length
    return size
