"""A network from a file as the trainer takes it: its input is called ``data``, and no layer waits for other devices."""

from __future__ import annotations

from formats.symbol_fit import is_learnt
from runtime import mx

from .graph import Graph, input_names, only_input

DATA = 'data'
# In training it waits until as many devices as it says have come to it; on any other number of devices, for ever.
SYNCHRONISED = '_contrib_SyncBatchNorm'


def with_data_input(symbol: mx.sym.Symbol) -> mx.sym.Symbol:
    """``symbol`` with its only input called ``data``, whatever it was called before. Raises GraphError where it has
    several inputs, or none.
    """
    if DATA in symbol.list_arguments():
        return symbol
    graph = Graph.from_symbol(symbol)
    name = only_input([one for one in input_names(graph, symbol.list_auxiliary_states()) if not is_learnt(one)])
    next(node for node in graph.variables() if node.name == name).name = DATA
    return graph.to_symbol()


def normalised_alone(symbol: mx.sym.Symbol) -> mx.sym.Symbol:
    """``symbol`` with each device normalising its own images."""
    graph = Graph.from_symbol(symbol)
    for node in _synchronised(graph):
        node.attrs = {**node.attrs, 'ndev': '1'}
    return graph.to_symbol() if _synchronised(graph) else symbol


def synchronised_layers(symbol: mx.sym.Symbol) -> int:
    """How many layers of ``symbol`` are batch normalisation over devices."""
    return len(_synchronised(Graph.from_symbol(symbol)))


def _synchronised(graph):
    return [node for node in graph.nodes() if node.op == SYNCHRONISED]
