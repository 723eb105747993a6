"""λ multiplied into parameters: how that is written, and which parameters each λ multiplies in a symbol."""

from __future__ import annotations

from typing import Dict, Iterable

import numpy as np

from runtime import mx
from runtime.errors import GraphError

from .folding import evaluate, fold_constants
from .graph import Graph, Node, Output, Shape, labels
from .lambdas import is_lambda

# For a parameter, and the name of a λ: which element of the flattened λ multiplies each slice of the parameter.
LambdaEntries = Dict[str, Dict[str, np.ndarray]]


def scaled_parameters(
    symbol: mx.sym.Symbol, inputs: Iterable[str] = ('data',), lambda_name: str = 'lambda'
) -> LambdaEntries:
    """The parameters that λ multiplies in ``symbol``, as a dict from a parameter's name to a dict from a λ's name to
    entries.

    ``entries`` is an int array as long as the parameter's first axis: slice i of the parameter is multiplied by element
    ``entries[i]`` of the flattened λ. The slices of one element are neighbours, and there are equally many for each.

    Raises GraphError where a λ multiplies a feature map, or slices of unequal number.
    """
    graph = Graph.from_symbol(symbol)
    names = {node.name for node in graph.variables()} - {*inputs, *labels(graph), *symbol.list_auxiliary_states()}
    folded = fold_constants(graph, names, lambda_name)
    shapes = _shapes(Graph(folded.values()).to_symbol()) if folded else {}
    found = {}
    for parameter, source in folded.items():
        below = [node.name for node in Graph([source]).nodes() if node.is_variable]
        factors = [name for name in below if is_lambda(name, lambda_name)]
        if factors and len(factors) == len(below):
            raise GraphError(f'{factors[0]} multiplies a feature map, not parameters: choose --lambda-placement weight')
        if factors:
            found[parameter] = {factor: _entries(parameter, source, factor, below, shapes) for factor in factors}
    return found


def scaled_parameter(parameter: Output, shape: Shape, factor: Output, count: int, width: int, stem: str) -> Output:
    """The ``Output`` of new nodes: ``parameter`` (an ``Output`` of ``shape``) times a λ.

    ``factor`` is the ``Output`` of ``count`` elements, a vector; each multiplies ``width`` neighbours along the first
    axis. A ``count`` of 1 multiplies the whole. The names of the nodes begin with ``stem``.
    """

    def node(op, ending, inputs, **attrs):
        return Output(Node(op, f'{stem}_{ending}', attrs, inputs))

    if count == 1:
        # As a product of matrices, as ``symbols.scaling`` writes it: the same numbers to the bit, and a quick backward
        # pass.
        row = node('Reshape', 'row', [parameter], shape='(1, -1)')
        one = node('Reshape', 'one', [factor], shape='(1, 1)')
        return node('Reshape', 'whole', [node('dot', 'dot', [one, row])], shape=str(tuple(shape)))
    if width > 1:
        factor = node('repeat', 'repeat', [factor], repeats=str(width), axis='0')
    if len(shape) > 1:
        factor = node('Reshape', 'column', [factor], shape=str((-1, *[1] * (len(shape) - 1))))
        return node('broadcast_mul', 'product', [parameter, factor])
    return node('elemwise_mul', 'product', [parameter, factor])


def _shapes(symbol):
    shapes, _, _ = symbol.infer_shape_partial()
    return dict(zip(symbol.list_arguments(), shapes))


def _entries(parameter, source, factor, below, shapes):
    """Number the elements of ``factor`` from 1, let everything else be 1, and read the numbers off the product."""
    values = {name: mx.nd.ones(shapes[name]) for name in below}
    values[factor] = mx.nd.arange(1, values[factor].size + 1).reshape(shapes[factor])
    product = evaluate({parameter: source}, values)[parameter].asnumpy()
    entries = product.reshape(len(product), -1)[:, 0].astype(int) - 1
    elements, slices = np.unique(entries, return_counts=True)
    if (np.repeat(elements, slices) != entries).any() or len(set(slices)) > 1:
        raise GraphError(f'{factor} multiplies slices of {parameter} that are unequal or not side by side')
    return entries
