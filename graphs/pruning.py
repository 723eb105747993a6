"""One round of pruning: operands that are constants go first, then every channel that nothing needs."""

from typing import Container, Dict, Tuple

import numpy as np

from runtime.errors import NothingLeftError

from .channel_rules import operand
from .graph import Graph, Node, Output, Shape, Shapes
from .liveness import Liveness
from .operator_table import ADDITIONS, BROADCASTING, CONCATENATIONS, SUBTRACTIONS, VARIADIC, WEIGHTED, rule_of
from .weights import Weights


def prune(
    graph: Graph, weights: Weights, shapes: Shapes, inputs: Container[str], round_to: int = 1
) -> Tuple[Dict[str, np.ndarray], 'Cut']:
    """Take everything dead out of ``graph``, in place, and return ``(constants, Cut)``.

    ``weights`` is a ``Weights``, ``shapes`` as from ``Graph.shapes``; ``inputs`` holds the names of the data variables.
    Layers keep dead channels up to a multiple of ``round_to``.
    ``constants`` (name → array) are parameters, new ones and biases that changed, which took the place of what no
    longer depends on the data; they are in ``weights`` too, uncut. The ``Cut`` says what stays of every tensor and
    parameter. The attributes of the operators are mended; cutting the arrays is left to the caller. Raises
    ``NothingLeftError`` where the output no longer depends on the data.
    """
    live = Liveness(graph, weights, shapes)
    _require_data(graph, live, inputs)
    constants = _replace_constants(graph, live)
    weights.arrays.update(constants)
    shapes.update(
        {Output(node): weights.arrays[node.name].shape for node in graph.variables() if node.name in constants}
    )
    live = Liveness(graph, weights, shapes)
    live.find_needed()
    cut = Cut(live, round_to)
    constants.update(_fold_into_biases(graph, live, cut))
    weights.arrays.update(constants)
    _mend(graph, live, cut.kept)
    return constants, cut


class Cut:
    """What stays.

    ``kept`` maps each followed ``Output`` to a mask over its channels, ``parameters`` each name to a mask, or None for
    all, for each of its axes.
    """

    def __init__(self, live: Liveness, round_to: int = 1) -> None:
        self.kept = live.kept(round_to)
        self.channels = live.channels
        self.parameters = {parameter.name: live.kept_of_parameter(parameter) for parameter in live.axes}

    @property
    def is_empty(self) -> bool:
        return all(mask.all() for mask in self.kept.values())

    def shape_of(self, source: Output, shape: Shape) -> Shape:
        """The shape that is left of a tensor or parameter of ``shape``."""
        sizes = list(shape)
        if source in self.kept:
            sizes[self.channels[source].axis] = int(self.kept[source].sum())
        for axis, mask in enumerate(self.parameters.get(source.node.name, ())):
            if source.node.is_variable and mask is not None:
                sizes[axis] = int(mask.sum())
        return tuple(sizes)


def _require_data(graph, live, inputs):
    """Raise unless a head depends on the data."""
    stack, seen = [head for head in graph.heads if not live.is_known(head)], set()
    while stack:
        node = stack.pop().node
        if node.name in inputs:
            return
        if node not in seen:
            seen.add(node)
            stack += [source for source in node.inputs if not live.is_known(source)]
    raise NothingLeftError(
        'nothing would be left: with these scaling factors no path leads from the data to the '
        'output; train with a smaller gamma'
    )


def _replace_constants(graph, live):
    """Additions of zero vanish, and other constant operands become parameters. Returns these, name → array."""
    replacements, constants = {}, {}
    for node in graph.nodes():
        if Output(node) not in live.channels or live.is_known(Output(node)):
            continue
        if node.op in ADDITIONS + SUBTRACTIONS:
            _drop_zeros(node, live, replacements)
        if node.op in BROADCASTING and Output(node) not in replacements:
            constants.update(_replace_operand(graph, node, live))
    graph.replace(replacements)
    return constants


def _drop_zeros(node, live, replacements):
    zero = [not operand(source, node, live).any() for source in node.inputs]
    if node.op in SUBTRACTIONS:
        zero[0] = False  # 0 − x is not x
    others = [source for source, is_zero in zip(node.inputs, zero) if not is_zero]
    if len(others) == 1 and live.shapes[others[0]] == live.shapes[Output(node)]:
        replacements[Output(node)] = others[0]
    elif len(others) < len(node.inputs) and node.op in VARIADIC:
        node.inputs = others
        node.attrs['num_args'] = str(len(others))


def _replace_operand(graph, node, live):
    """Put a parameter in the place of the one operand that is a constant, yet computed."""
    channels, shape = live.channels[Output(node)], live.shapes[Output(node)]
    for position, source in enumerate(node.inputs):
        other = node.inputs[1 - position]
        if not live.is_known(source) or live.shapes[other] != shape:
            continue
        size = [1] * len(shape)
        size[channels.axis] = -1
        parameter = Node('null', graph.fresh_name(f'{node.name}_constant'))
        node.inputs[position] = Output(parameter)
        node.op = BROADCASTING[node.op]
        return {parameter.name: live.known[source].reshape(size).astype(np.float32)}
    return {}


def _fold_into_biases(graph, live, cut):
    """Move channels that go, but are constants other than zero, into the biases of the layers that read them.

    Returns the biases, name → array.
    """
    biases, nodes = {}, graph.nodes()
    taken = {node.name for node in nodes}
    for node in nodes:
        shift = rule_of(node).shift(node, live, cut.kept) if node.op in WEIGHTED and Output(node) in cut.kept else None
        if shift is None:
            continue
        if len(node.inputs) > 2:
            biases[node.inputs[2].node.name] = (live.weights.vector(node.inputs[2]) + shift).astype(np.float32)
            continue
        bias = Output(Node('null', graph.fresh_name(f'{node.name}_bias', taken)))
        node.inputs.append(bias)
        node.attrs['no_bias'] = 'False'
        live.shapes[bias] = shift.shape
        biases[bias.node.name] = shift.astype(np.float32)
        cut.parameters[bias.node.name] = [cut.kept[Output(node)]]
    return biases


def _mend(graph, live, kept):
    """Mend the attributes of every operator whose tensors lose channels, and drop what a concatenation loses whole."""
    replacements = {}
    for node in graph.nodes():
        touched = [source for source in [Output(node), *node.inputs] if source in kept and not kept[source].all()]
        if not touched or Output(node) not in kept:
            continue
        if node.op in CONCATENATIONS:
            node.inputs = [source for source in node.inputs if source not in kept or kept[source].any()]
            node.attrs['num_args'] = str(len(node.inputs))
            if len(node.inputs) == 1:
                replacements[Output(node)] = node.inputs[0]
        else:
            rule_of(node).slim(node, live, kept)
    graph.replace(replacements)
