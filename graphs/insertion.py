"""Scaling factors for any network: λ = 1 is multiplied in wherever a structure could be removed.

    symbol, scaled = add_lambda(symbol, (3, 224, 224), ('block', 'channel'))
    for one in scaled:
        print(one.name, one.kind, one.structures, one.layers, one.share)

λ multiplies the parameters of the layer that a structure ends in, as ``symbols.scaling`` writes it. Where that layer
has none to take it (a batch normalisation with ``fix_gamma``, the product of a squeeze-and-excitation), λ multiplies
the feature map.
"""

from __future__ import annotations

import fnmatch
import math
from typing import Iterable, List, NamedTuple, Set, Tuple

from runtime import mx
from runtime.errors import GraphError

from .attributes import flag, number
from .branches import Branch, residual_branches
from .factors import is_relu
from .graph import Graph, Node, Output, record_image_shapes
from .lambdas import KIND_ALIASES, is_lambda
from .operator_table import PRODUCTS, WEIGHTED
from .removable import Site, Structures
from .scaled_parameters import scaled_parameter

KINDS = ('channel', 'block', 'group')
# λ in front of these is λ behind them.
HOMOGENEOUS = ('Dropout', '_copy', 'identity', '_mul_scalar')
GLUON_ENDING = '_fwd'


class Scaled(NamedTuple):
    """What got a λ.

    ``name`` is that of the variable, ``kind`` one of KINDS, ``structures`` how many structures there are, ``place`` the
    layer or addition that they end in. ``layers`` are the convolutions and full connections that lose channels when
    they go, or that go whole; ``share`` is the part of the network's MACs that these structures cost.
    """

    name: str
    kind: str
    structures: int
    place: str
    layers: Tuple[str, ...]
    share: float


def add_lambda(
    symbol: mx.sym.Symbol,
    image_shape: Tuple[int, ...],
    kinds: Iterable[str] = ('channel',),
    exclude: Iterable[str] = (),
) -> Tuple[object, List[Scaled]]:
    """Multiply λ = 1 into a network that has none.

    Parameters
    ----------
    symbol : any ``mx.sym.Symbol`` with the input ``data`` (N, C, H, W).
    image_shape : (C, H, W), which the result records.
    kinds : of KINDS ('neuron' is understood for 'channel'). channel: each output channel of a convolution or full
        connection, where the liveness analysis says that λ = 0 removes it. block: each residual branch. group: each
        group of a grouped convolution that is not depthwise.
    exclude : patterns (as in the shell) of layer names; these layers keep all their channels, and their blocks stay.

    Returns
    -------
    (symbol, list of ``Scaled``): the same function, with new arguments whose names begin with ``lambda_``. The list is
    empty where there is no structure of these kinds.

    Raises
    ------
    GraphError for a network that has λ already or no input ``data``, shapes that do not fit, an unknown kind, and a
    pattern that no layer matches.
    """
    kinds = [_kind(kind) for kind in kinds]
    data_shapes = {'data': (1, *image_shape)}
    _check(symbol)
    net = Structures(symbol, data_shapes)
    excluded = layers_called(net.graph, exclude)
    branches = [
        branch
        for branch in (residual_branches(net.graph, net.shapes) if 'block' in kinds else ())
        if branch.addition in net.followed and not excluded & {branch.addition, *branch.layers}
    ]
    sites = [
        site
        for site in (net.sites(excluded) if {'channel', 'group'} & set(kinds) else ())
        if ('channel' if site.width == 1 else 'group') in kinds
    ]
    insertion = _Insertion(net, sites, branches)
    found = [insertion.scale_site(site) for site in sites] + insertion.scale_branches(branches)
    record_image_shapes(net.graph, data_shapes)
    return net.graph.to_symbol(), found


class _Insertion:
    """Writes λ into the graph of ``net``."""

    def __init__(self, net: Structures, sites: List[Site], branches: List[Branch]) -> None:
        self._graph, self._shapes, self._net = net.graph, dict(net.shapes), net
        places = {site.node for site in sites} | {branch.addition for branch in branches}
        sizes = [net.map_size(node) for node in self._graph.nodes() if node in places]
        self._stages = {size: stage for stage, size in enumerate(dict.fromkeys(sizes), start=1)}
        self._readers = self._graph.readers()

    def scale_site(self, site: Site) -> Scaled:
        """A λ for each structure of a ``Site``."""
        layer, kind = _layer_below(site.node), 'channel' if site.width == 1 else 'group'
        name = f'lambda_{plain_name(layer.name)}' + ('_group' if kind == 'group' else '')
        shape = (site.structures,) if kind == 'channel' else (1, site.structures)
        variable = self._variable(name, kind, shape, [self._stage(site.node)])
        factor = variable
        if kind == 'group':
            factor = Output(Node('Reshape', f'{variable.node.name}_row', {'shape': '(-1,)'}, [variable]))
        if _takes_factor(site.node):
            self._scale_parameters(site.node, factor, site.structures, site.width, variable.node.name)
        else:
            self._scale_map(site, factor, variable.node.name)
        names = tuple(plain_name(layer.name) for layer in site.layers)
        share = self._share(site.macs)
        return Scaled(variable.node.name, kind, site.structures, plain_name(layer.name), names, share)

    def scale_branches(self, branches: List[Branch]) -> List[Scaled]:
        """One vector ``lambda_block`` with an element for each ``Branch``."""
        if not branches:
            return []
        stages = [self._stage(branch.addition) for branch in branches]
        vector = self._variable('lambda_block', 'block', (len(branches),), stages)
        name = vector.node.name
        rows = Node('SliceChannel', f'{name}_rows', {'axis': '0', 'num_outputs': str(len(branches))}, [vector])
        found = []
        for index, branch in enumerate(branches):
            self._scale_branch(branch, Output(rows, index), f'{name}_{index}')
            names = tuple(plain_name(layer.name) for layer in branch.layers)
            share = self._share(self._net.macs(branch.layers))
            found.append(Scaled(name, 'block', 1, plain_name(branch.addition.name), names, share))
        return found

    def _scale_branch(self, branch, factor, stem):
        """Multiply λ in as far down the branch as it means the same: best into the parameters of a layer."""
        reader, position = branch.addition, branch.position
        source = reader.inputs[position]
        while self._is_read_once(source) and (source.node.op in HOMOGENEOUS or is_relu(source.node)):
            reader, position = source.node, 0
            source = reader.inputs[0]
        if self._is_read_once(source) and source.node in self._net.followed and _takes_factor(source.node):
            self._scale_parameters(source.node, factor, 1, 0, stem)
            return
        if self._is_read_once(source) and source.node.op in PRODUCTS:
            # The gate of a squeeze-and-excitation is much smaller than the map that it multiplies.
            sizes = [math.prod(self._shapes.get(operand, ())) for operand in source.node.inputs]
            reader, position = source.node, sizes.index(min(sizes))
            source = reader.inputs[position]
        one = Output(Node('Reshape', f'{stem}_one', {'shape': str((1,) * len(self._shapes[source]))}, [factor]))
        reader.inputs[position] = Output(Node('broadcast_mul', f'{stem}_product', {}, [source, one]))

    def _scale_parameters(self, layer, factor, count, width, stem):
        """Multiply λ into the weight and bias, or γ and β, of ``layer``."""
        for position in (1, 2) if layer.op == 'BatchNorm' else range(1, len(layer.inputs)):
            parameter = layer.inputs[position]
            shape = self._shapes[parameter]
            if parameter.node.is_variable:  # what it is read by no longer tells MXNet its shape
                parameter.node.attrs['__shape__'] = str(tuple(shape))
            product = scaled_parameter(parameter, shape, factor, count, width, f'{parameter.node.name}_{stem}')
            self._shapes[product] = shape
            layer.inputs[position] = product

    def _scale_map(self, site, factor, stem):
        """Multiply λ into what ``site.node`` puts out."""
        source = Output(site.node)
        if site.width > 1:
            factor = Output(Node('repeat', f'{stem}_repeat', {'repeats': str(site.width), 'axis': '0'}, [factor]))
        shape = [1] * len(self._shapes[source])
        shape[number(site.node, 'axis', 1)] = -1
        column = Output(Node('Reshape', f'{stem}_column', {'shape': str(tuple(shape))}, [factor]))
        product = Output(Node('broadcast_mul', f'{stem}_product', {}, [source, column]))
        self._shapes[product] = self._shapes[source]
        for reader, position in self._readers[site.node]:
            (self._graph.heads if reader is None else reader.inputs)[position] = product
        self._readers[product.node], self._readers[site.node] = self._readers[site.node], [(product.node, 0)]

    def _variable(self, wish, kind, shape, stages):
        """A λ variable as ``symbols.scaling`` makes it: 1 at the start, and never decayed."""
        attrs = {
            '__shape__': str(shape),
            '__init__': mx.init.One().dumps(),
            '__wd_mult__': '0.0',
            '__kind__': KIND_ALIASES.get(kind, kind),
            '__stages__': ','.join(map(str, stages)),
        }
        return Output(Node('null', self._graph.fresh_name(wish), attrs))

    def _share(self, macs):
        return macs / max(1, self._net.total_macs)

    def _is_read_once(self, source):
        return len(self._readers.get(source.node, ())) == 1

    def _stage(self, node):
        """Which of the sizes of map that λ stand at this is, counted from 1."""
        return self._stages[self._net.map_size(node)]


def _check(symbol):
    names = symbol.list_arguments()
    known = [name for name in names if is_lambda(name)]
    if known:
        raise GraphError(
            f'the network has λ already ({", ".join(known[:3])}); λ can only be added to a network without λ'
        )
    if 'data' not in names:
        raise GraphError('the network has no input called data; rename its input of images')


def _kind(name):
    kind = {alias: kind for kind, alias in KIND_ALIASES.items()}.get(name, name)
    if kind not in KINDS:
        raise GraphError(f'there is no structure called {name!r}; λ can scale {", ".join(KINDS)}')
    return kind


def layers_called(graph: Graph, patterns: Iterable[str]) -> Set[Node]:
    """The operators whose name one of the shell's ``patterns`` matches. Raises GraphError for one that matches none."""
    nodes = [node for node in graph.nodes() if not node.is_variable]
    found = set()
    for pattern in patterns:
        matched = {
            node for node in nodes if fnmatch.fnmatchcase(plain_name(node.name), pattern) or node.name == pattern
        }
        if not matched:
            raise GraphError(f'no layer of the network is called {pattern!r}; {_examples(nodes)}')
        found |= matched
    return found


def _examples(nodes):
    layers = [plain_name(node.name) for node in nodes if node.op in WEIGHTED]
    return f'its layers are {", ".join(layers[:3])}{", ..." if len(layers) > 3 else ""}'


def plain_name(name: str) -> str:
    """A node's name as a user knows it: Gluon puts an ending behind the name of the layer."""
    return name[: -len(GLUON_ENDING)] if name.endswith(GLUON_ENDING) else name


def _layer_below(node):
    """The convolution or full connection that a layer ends."""
    while node.op not in WEIGHTED:
        node = node.sources[0]
    return node


def _takes_factor(node):
    """Whether λ can be multiplied into the parameters of ``node``."""
    return node.op in WEIGHTED or node.op == 'BatchNorm' and not flag(node, 'fix_gamma', True)
