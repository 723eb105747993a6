"""Arithmetic that can be done once and for all: what only parameters enter becomes a parameter."""

from __future__ import annotations

from typing import Collection, Dict

import numpy as np

from formats.symbol_shapes import check_bound
from runtime import mx
from runtime.errors import GraphError

from .attributes import describe, integers, text
from .graph import Graph, Node, Output
from .lambdas import is_lambda
from .values import Params

RANDOM = ('Dropout', 'random', 'sample', 'shuffle', 'multinomial')
SOURCES = ('_zeros', '_ones', '_full')


def require_deterministic(graph: Graph) -> None:
    """Raise GraphError where an operator of ``graph`` is random at inference too, so that nothing can be proved."""
    for node in graph.nodes():
        is_dropout = node.op == 'Dropout'
        if text(node, 'mode', 'training') == 'always' if is_dropout else any(word in node.op for word in RANDOM):
            raise GraphError(
                f'this network is random: {describe(node)} draws new numbers at each inference, so two networks cannot '
                'be compared' + ('; set its mode to training' if is_dropout else '')
            )


def fold_constants(graph: Graph, parameters: Collection[str], lambda_name: str = 'lambda') -> Dict[str, Output]:
    """Put a parameter in the place of every value that only parameters enter: λ·W, slices and repetitions of λ.

    ``parameters`` holds the names of all parameters. Returns a dict from the names of new parameters to the ``Output``
    whose value each takes: ``evaluate`` computes them. A new parameter takes over the name of the one weight that it is
    made of, if nobody else reads that, else a name of its own, without ``lambda_name`` in it.
    """
    constant = _constants(graph, parameters)
    frontier: Dict[Output, Node] = {}
    for node, readers in graph.readers().items():
        for reader, position in readers:
            wanted = not node.is_variable or is_lambda(node.name, lambda_name)
            if wanted and node in constant and reader not in constant:
                source = reader.inputs[position] if reader else graph.heads[position]
                frontier.setdefault(source, reader or node)
    cones = {
        source: [node for node in Graph([source]).variables() if not is_lambda(node.name, lambda_name)]
        for source in frontier
    }
    uses = _uses(graph, constant, cones)
    replacements: Dict[Output, Output] = {}
    folded: Dict[str, Output] = {}
    for source, at in frontier.items():
        own = [variable for variable in cones[source] if uses[variable] == 1]
        if len(cones[source]) == len(own) == 1:
            name, attrs = own[0].name, own[0].attrs
        else:
            name, attrs = new_name(graph, folded, f'{at.name}_scale'.replace(lambda_name, 'factor')), {}
        replacements[source] = Output(Node('null', name, attrs))
        folded[name] = source
    graph.replace(replacements)
    return folded


def evaluate(expressions: Dict[str, Output], values: Params) -> Params:
    """The values (dict name → NDArray) of ``expressions`` (dict name → ``Output``).

    ``values`` (dict name → NDArray) holds those of all variables below them. They are computed in single precision
    where the parameters are in half, for which MXNet has no matrix product on a CPU.
    """
    if not expressions:
        return {}
    symbol = Graph(expressions.values()).to_symbol()
    names = symbol.list_arguments()
    _, types, _ = symbol.infer_type(**{name: values[name].dtype for name in names})
    states = {name: values[name] for name in symbol.list_auxiliary_states()}
    arguments = {name: widened(values[name]) for name in names}
    check_bound(symbol, arguments)
    executor = symbol.bind(mx.cpu(), arguments, aux_states=states, grad_req='null')
    outputs = executor.forward(is_train=False)
    return {name: output.astype(dtype, copy=False) for name, output, dtype in zip(expressions, outputs, types)}


def widened(array: mx.nd.NDArray) -> mx.nd.NDArray:
    """The NDArray, in single precision if it is in half or in 8 bits."""
    return array.astype(np.float32) if array.dtype in (np.float16, np.int8) else array


def _constants(graph, parameters):
    """The nodes whose value does not depend on the data."""
    found = set()
    for node in graph.nodes():
        if node.is_variable:
            fixed = node.name in parameters
        elif node.inputs:
            fixed = all(source in found for source in node.sources) and not any(word in node.op for word in RANDOM)
        else:
            fixed = node.op in SOURCES and 0 not in integers(node, 'shape', (0,))
        if fixed:
            found.add(node)
    return found


def _uses(graph, constant, cones):
    """How often each variable is read: by how many of the values to fold, and directly by operators on data."""
    uses = {
        node: sum(reader not in constant for reader, _ in readers)
        for node, readers in graph.readers().items()
        if node.is_variable
    }
    for cone in cones.values():
        for variable in cone:
            uses[variable] += 1
    return uses


def new_name(graph: Graph, taken: Collection[str], wish: str) -> str:
    """``wish``, or ``wish`` with the first number behind it that no node and nothing in ``taken`` is called by."""
    name = wish = graph.fresh_name(wish)
    number = 1
    while name in taken:
        name, number = f'{wish}_{number}', number + 1
    return name
