"""A view of any MXNet symbol: nodes, what they read, their shapes. It can be rewritten and turned back into a symbol.

    graph = Graph.from_symbol(symbol)
    for node in graph.nodes():              # inputs before those who read them
        print(node.op, node.name, [source.node.name for source in node.inputs])
    graph.replace(Output(dead, 0), Output(alive, 0))
    symbol = graph.to_symbol()              # whatever no head needs any more is gone

Nothing here knows any network: all structure is read from the symbol itself.
"""

from __future__ import annotations

import json
from typing import Any, Container, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

from formats.symbol_fit import image_shapes
from formats.symbol_limits import IMAGE_SHAPE
from formats.symbol_operators import first_line
from runtime import mx
from runtime.errors import GraphError

LABEL_OPERATORS = (
    'SoftmaxOutput',
    'SVMOutput',
    'LinearRegressionOutput',
    'LogisticRegressionOutput',
    'MAERegressionOutput',
)
# MXNet takes a graph that does not say its version for one of 2016 and converts it.
MADE_BY = {'mxnet_version': ['int', 10901]}
NORMALISERS = ('BatchNorm', 'BatchNorm_v1', '_contrib_BatchNormWithReLU', '_contrib_SyncBatchNorm')
# Which inputs of an operator are states: moving mean and variance.
AUXILIARY_INPUTS = dict.fromkeys(NORMALISERS, (3, 4))


class Node:
    """One operator or, where ``op`` is ``'null'``, one variable.

    ``inputs`` is a list of ``Output``; ``attrs`` maps names to texts, which ``graphs.attributes`` reads.
    """

    __slots__ = ('op', 'name', 'attrs', 'inputs', 'subgraphs')

    def __init__(
        self,
        op: str,
        name: str,
        attrs: Optional[Mapping[str, str]] = None,
        inputs: Iterable[Output] = (),
        subgraphs: Optional[List[Any]] = None,
    ) -> None:
        self.op = op
        self.name = name
        self.attrs = dict(attrs or {})
        self.inputs = list(inputs)
        self.subgraphs = subgraphs

    def __repr__(self) -> str:
        return f'{self.op}({self.name})'

    @property
    def is_variable(self) -> bool:
        return self.op == 'null'

    @property
    def sources(self) -> List[Node]:
        """The nodes that this one reads, in order."""
        return [source.node for source in self.inputs]


class Output(NamedTuple):
    """One output of a node: what another node reads."""

    node: Node
    index: int = 0  # type: ignore[assignment]  # the field hides the method of tuples, which nobody needs here


Shape = Tuple[int, ...]
Shapes = Dict[Output, Shape]
# For each node, who reads it and at which input; a head is a reader None.
Readers = Dict[Node, List[Tuple[Optional[Node], int]]]


class Graph:
    """A network: ``heads`` are its outputs, and everything they need hangs below them."""

    def __init__(self, heads: Iterable[Output], attrs: Optional[Mapping[str, Any]] = None) -> None:
        self.heads = list(heads)
        self.attrs = dict(attrs or MADE_BY)

    @classmethod
    def from_symbol(cls, symbol: mx.sym.Symbol) -> Graph:
        """Read a graph out of an ``mx.sym.Symbol``."""
        plan = json.loads(symbol.tojson())
        nodes: List[Node] = []
        for entry in plan['nodes']:
            inputs = [Output(nodes[source], index) for source, index, *_ in entry['inputs']]
            nodes.append(Node(entry['op'], entry['name'], entry.get('attrs'), inputs, entry.get('subgraphs')))
        return cls([Output(nodes[source], index) for source, index, *_ in plan['heads']], plan.get('attrs'))

    def to_symbol(self) -> mx.sym.Symbol:
        """The ``mx.sym.Symbol`` of this graph, with the same names and without nodes that no head needs.

        The same graph gives the same text.
        """
        return mx.sym.load_json(self.to_json())

    def to_json(self) -> str:
        """The text of this graph in MXNet's own format."""
        nodes = self.nodes()
        number = {node: position for position, node in enumerate(nodes)}
        entries = []
        for node in nodes:
            inputs = [[number[source], index, 0] for source, index in node.inputs]
            entry: Dict[str, Any] = {'op': node.op, 'name': node.name, 'inputs': inputs}
            if node.attrs:
                entry['attrs'] = {key: node.attrs[key] for key in sorted(node.attrs)}
            if node.subgraphs:
                entry['subgraphs'] = node.subgraphs
            entries.append(entry)
        return json.dumps(
            {
                'nodes': entries,
                'arg_nodes': [position for position, node in enumerate(nodes) if node.is_variable],
                'node_row_ptr': list(range(len(nodes) + 1)),
                'heads': [[number[node], index, 0] for node, index in self.heads],
                'attrs': self.attrs,
            }
        )

    def nodes(self) -> List[Node]:
        """All nodes that the heads need, each after everything it reads, in the order in which MXNet lists them."""
        order: List[Node] = []
        begun: List[Node] = []
        seen: Set[Node] = set()
        stack: List[Optional[Node]] = [head.node for head in reversed(self.heads)]
        while stack:
            node = stack.pop()
            if node is None:  # everything that the last node begun reads is listed
                order.append(begun.pop())
            elif node not in seen:
                seen.add(node)
                if node.inputs:
                    begun.append(node)
                    stack.append(None)
                    stack += [source.node for source in reversed(node.inputs)]
                else:
                    order.append(node)
        return order

    def variables(self) -> List[Node]:
        """The variables (parameters, auxiliary states, data, labels), in MXNet's order."""
        return [node for node in self.nodes() if node.is_variable]

    def readers(self) -> Readers:
        """For every node, the nodes that read it, as ``[(reader, position among its inputs)]``.

        A head counts as a reader ``None``, at the head's position.
        """
        found: Readers = {node: [] for node in self.nodes()}
        for node in found:
            for position, source in enumerate(node.inputs):
                found[source.node].append((node, position))
        for position, head in enumerate(self.heads):
            found[head.node].append((None, position))
        return found

    def replace(self, replacements: Dict[Output, Output]) -> None:
        """Let all that read a key of ``replacements`` (``Output`` → ``Output``) read its value instead.

        A value may be a key as well. The values' own nodes are among the readers, so that a value must not be computed
        from its key.
        """

        def settled(source):
            while source in replacements:
                source = replacements[source]
            return source

        for node in Graph([*self.heads, *replacements.values()]).nodes():
            node.inputs = [settled(source) for source in node.inputs]
        self.heads = [settled(head) for head in self.heads]

    def copy(self) -> Graph:
        """The same graph with nodes of its own."""
        twins: Dict[Node, Node] = {}
        for node in self.nodes():
            inputs = [Output(twins[source], index) for source, index in node.inputs]
            twins[node] = Node(node.op, node.name, node.attrs, inputs, node.subgraphs)
        return Graph([Output(twins[node], index) for node, index in self.heads], self.attrs)

    def fresh_name(self, wish: str, taken: Optional[Set[str]] = None) -> str:
        """``wish``, or ``wish`` with the first number behind it that makes a name no node has.

        ``taken`` are the names of the nodes, where many are asked for; the new one is added.
        """
        taken = {node.name for node in self.nodes()} if taken is None else taken
        name, number = wish, 1
        while name in taken:
            name, number = f'{wish}_{number}', number + 1
        taken.add(name)
        return name

    def shapes(self, known: Mapping[str, Sequence[int]]) -> Shapes:
        """The shape of every output that a node or head reads: a dict ``Output`` → tuple of ints.

        ``known`` maps names of variables to shapes; at least the data's must be there. Raises ``GraphError`` where
        MXNet cannot tell a shape.
        """
        wanted = list(dict.fromkeys([source for node in self.nodes() for source in node.inputs] + self.heads))
        everything = Graph(wanted, self.attrs).to_symbol()
        names = {node.name for node in self.variables()}
        try:
            given = {name: tuple(shape) for name, shape in known.items() if name in names}
            _, shapes, _ = everything.infer_shape_partial(**given)
        except mx.base.MXNetError as error:
            raise GraphError(f'the shapes of this network do not fit together: {first_line(error)}') from None
        for source, shape in zip(wanted, shapes):
            if not shape or 0 in shape:
                raise GraphError(
                    f'the shape of {source.node.name} does not follow from those of '
                    f'{", ".join(sorted(known))}; give the shape of every input'
                )
        return dict(zip(wanted, shapes))


def labels(graph: Graph) -> Set[str]:
    """The names of the variables that only a loss reads, as labels."""
    found = set()
    for node, readers in graph.readers().items():
        as_label = [
            reader is not None and reader.op in LABEL_OPERATORS and position == 1 for reader, position in readers
        ]
        if node.is_variable and as_label and (all(as_label) or node.name.endswith('_label')):
            found.add(node.name)
    return found


def fed(graph: Graph, inputs: Container[str] = ('data',)) -> Set[Node]:
    """The nodes that are computed from the images, as a set.

    Those are all but parameters, labels and what is computed of parameters alone.
    """
    found = set()
    for node in graph.nodes():
        if node.name in inputs if node.is_variable else any(source in found for source in node.sources):
            found.add(node)
    return found


def only_input(names: Sequence[str]) -> str:
    """The only one of the ``names`` of a network's inputs, the images. Raises GraphError where there are none or
    several.
    """
    if len(names) != 1:
        raise GraphError(
            f'exactly one input is expected, the images; without parameters are: {", ".join(names) or "none"}'
        )
    return names[0]


def input_names(graph: Graph, params: Container[str]) -> List[str]:
    """The names of the variables of ``graph`` that are neither parameters nor labels: what the network is fed."""
    known_labels = labels(graph)
    return [node.name for node in graph.variables() if node.name not in params and node.name not in known_labels]


def data_shape_of(symbol: mx.sym.Symbol) -> Optional[Tuple[int, ...]]:
    """The shape (channels, height, width) of the images that a symbol was built or stripped for, or None where the
    symbol does not say. Of several inputs, ``data`` or else the first one that says it counts.
    """
    shapes = image_shapes(symbol)
    names = [name for name in ('data', *symbol.list_arguments()) if name in shapes]
    return shapes[names[0]][1:] if names else None


def image_shape_of(symbol: mx.sym.Symbol, image_shape: Optional[Sequence[int]] = None) -> Tuple[int, ...]:
    """(channels, height, width) as given, or as the symbol itself says. Raises GraphError where neither does."""
    shape = tuple(image_shape) if image_shape else data_shape_of(symbol)
    if not shape:
        raise GraphError('this symbol does not say which images it takes: give --image-shape channels,height,width')
    return shape


def record_image_shapes(graph: Graph, data_shapes: Mapping[str, Shape]) -> None:
    """Let each input say the shape of one sample: ``data_shapes`` maps names to shapes, the batch first."""
    for node in graph.variables():
        shape = data_shapes.get(node.name, ())
        if len(shape) > 1:
            node.attrs[IMAGE_SHAPE] = ','.join(map(str, shape[1:]))
