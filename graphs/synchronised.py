"""Batch normalisation over several devices: its operator waits, in training, until as many devices as it says have come
to it. On any other number of devices it waits for ever.
"""

from runtime import mx

from .graph import Graph

SYNCHRONISED = '_contrib_SyncBatchNorm'


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
