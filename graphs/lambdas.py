"""The scaling factors λ of any network: which variables they are, and which structures each one scales."""

from __future__ import annotations

from collections import namedtuple
from typing import List

from runtime import mx

from .graph import Graph
from .lambda_names import is_lambda as is_lambda

LambdaVector = namedtuple('LambdaVector', 'name kind stages')
LambdaVector.__doc__ = (
    'A λ variable: its name, its kind (block, group, neuron) and the stage of each entry along its first axis. For '
    '``group`` an entry is a row, the groups of one block. A neuron vector lies whole in one stage: one entry.'
)

# The kind that ``--scale channel`` means is called by the paper's word in files.
KIND_ALIASES = {'channel': 'neuron'}


def lambda_layout(symbol: mx.sym.Symbol) -> List[LambdaVector]:
    """Every λ of ``symbol`` as a list of :class:`LambdaVector`, in the graph's order.

    λ variables made here carry their kind and stages as attributes; in a graph from elsewhere the kind is read off the
    name, and the stage is 0 (unknown).
    """
    attributes = symbol.attr_dict()
    found = []
    for name in symbol.list_arguments():
        if not is_lambda(name):
            continue
        known = attributes.get(name, {})
        kind = known.get('__kind__') or next((kind for kind in ('block', 'group') if name.endswith(kind)), 'neuron')
        stages = tuple(int(stage) for stage in known.get('__stages__', '0').split(','))
        found.append(LambdaVector(name, kind, stages))
    return found


def with_initial_lambda(symbol: mx.sym.Symbol, value: float) -> mx.sym.Symbol:
    """``symbol`` whose λ all start at ``value``. 1 is the default and leaves a λ alone that says how it starts."""
    attributes = symbol.attr_dict()
    names = {
        vector.name
        for vector in lambda_layout(symbol)
        if value != 1 or '__init__' not in attributes.get(vector.name, {})
    }
    if not names:
        return symbol
    graph = Graph.from_symbol(symbol)
    for node in graph.variables():
        if node.name in names:
            node.attrs['__init__'] = mx.init.Constant(value).dumps()
    return graph.to_symbol()
