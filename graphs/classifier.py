"""The classifier of a network: finding it, and the same network with another number of classes."""

from __future__ import annotations

from typing import Optional, Tuple

from runtime import mx

from .graph import Graph, Node
from .losses import logits

# Operators that may stand between the classifier and the scores, and the attribute that holds the number of classes.
PASSED_ON = {'Flatten', 'Reshape', 'Cast', 'amp_cast', 'identity', '_copy', 'Dropout', 'squeeze'}
NUMBER_OF_CLASSES = {'FullyConnected': 'num_hidden', 'Convolution': 'num_filter'}


def classifier_parameters(symbol: mx.sym.Symbol) -> Tuple[str, ...]:
    """The names of the weight and the bias that the class scores of ``symbol`` are computed with; () where no such
    layer is found.
    """
    node = _classifier(Graph.from_symbol(symbol))
    return tuple(source.node.name for source in node.inputs[1:] if source.node.is_variable) if node else ()


def with_classes(symbol: mx.sym.Symbol, num_classes: int) -> mx.sym.Symbol:
    """``symbol`` with a classifier of ``num_classes``; unchanged where it has so many classes, or no classifier."""
    graph = Graph.from_symbol(symbol)
    node = _classifier(graph)
    if node is None or node.attrs[NUMBER_OF_CLASSES[node.op]] == str(num_classes):
        return symbol
    node.attrs = {**node.attrs, NUMBER_OF_CLASSES[node.op]: str(num_classes)}
    for source in node.inputs[1:]:
        source.node.attrs = {name: text for name, text in source.node.attrs.items() if name != '__shape__'}
    return graph.to_symbol()


def _classifier(graph: Graph) -> Optional[Node]:
    if len(graph.heads) != 1:
        return None
    node = logits(graph).heads[0].node
    while node.op in PASSED_ON and node.inputs:
        node = node.inputs[0].node
    return node if node.op in NUMBER_OF_CLASSES else None
