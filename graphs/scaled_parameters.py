"""Which parameters each scaling factor multiplies: how a structure is told by its weights alone, for methods that have
no λ.
"""

import numpy as np

from runtime import mx
from runtime.errors import GraphError

from .folding import evaluate, fold_constants
from .graph import Graph, labels
from .lambdas import is_lambda


def scaled_parameters(symbol, inputs=('data',), lambda_name='lambda'):
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
        raise GraphError(f'{factor} multiplies {parameter} by slices that are no equal neighbours')
    return entries
