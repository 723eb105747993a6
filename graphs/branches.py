"""The residual branches of any network: what an addition adds to a shortcut, and what would go without it."""

from typing import Container, List, NamedTuple, Tuple

from .graph import Graph, Node, Shapes, fed
from .operator_table import ADDITIONS, WEIGHTED


class Branch(NamedTuple):
    """Operand ``position`` of ``addition`` is a residual branch. ``layers`` are the convolutions and full connections
    that nothing else needs.
    """

    addition: Node
    position: int
    layers: Tuple[Node, ...]


def residual_branches(graph: Graph, shapes: Shapes, inputs: Container[str] = ('data',)) -> List[Branch]:
    """Every ``Branch`` of ``graph``, in its order. ``shapes`` is as from ``Graph.shapes``.

    Where one operand of an addition is computed from the other, the other is the shortcut. Else the operand that is
    computed by fewer layers of its own is (a projection). Two operands with equally many are no shortcut and branch.
    """
    above = _everything_read(graph)
    on_data = fed(graph, inputs)
    found = []
    for node in graph.nodes():
        if node.op not in ADDITIONS or len(node.inputs) != 2 or not on_data.issuperset(node.sources):
            continue
        if shapes[node.inputs[0]] != shapes[node.inputs[1]]:
            continue
        position = _branch_position(node.sources, above)
        layers = () if position is None else _needed_only_by(graph, node, position)
        if layers:
            found.append(Branch(node, position, layers))
    return found


def _branch_position(operands, above):
    """Which operand of an addition is the branch; None where that cannot be told."""
    first, second = operands
    if first in above[second] or second in above[first]:
        return int(first in above[second])
    own = [
        sum(node.op in WEIGHTED for node in above[one] - above[other])
        for one, other in ((first, second), (second, first))
    ]
    return None if own[0] == own[1] else own.index(max(own))


def _everything_read(graph):
    """For each node, itself and all that it is computed from."""
    found = {}
    for node in graph.nodes():
        found[node] = {node}.union(*(found[source] for source in node.sources))
    return found


def _needed_only_by(graph, addition, position):
    """The layers that no head needs any more when ``addition`` loses an operand."""
    lost = addition.inputs.pop(position)
    left = set(graph.nodes())
    addition.inputs.insert(position, lost)
    return tuple(node for node in Graph([lost]).nodes() if node.op in WEIGHTED and node not in left)
