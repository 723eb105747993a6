"""Which channels of a network could go if a scaling factor of 0 stood behind a layer: asked of the liveness analysis.

    net = Structures(symbol, {'data': (1, 3, 32, 32)})
    for site in net.sites():
        print(site.node.name, site.structures, [layer.name for layer in site.layers])

Channels that must stay or go together (they are added, or meet in a grouped convolution) are one *structure*. A *site*
is a layer behind which one λ for each structure would remove exactly that structure. Each structure has one site, the
last one: a depthwise convolution shares the λ of the convolution before it.
"""

from __future__ import annotations

from typing import Iterable, List, Mapping, NamedTuple, Set, Tuple

import numpy as np

from runtime import mx

from .channel_rules import Pointwise
from .complexity import macs_of
from .graph import AUXILIARY_INPUTS, Graph, Node, Output, Shape, labels
from .liveness import PINNED, Liveness
from .losses import drop_losses
from .operator_table import WEIGHTED, rule_of
from .sweep import prepare
from .values import stand_in
from .weights import Weights


class Site(NamedTuple):
    """A layer that λ can stand behind.

    ``node`` puts out so many ``structures``, of ``width`` neighbouring channels each. ``layers`` are all convolutions
    and full connections whose output channels go with these structures; ``macs`` counts what they cost for one image.
    """

    node: Node
    structures: int
    width: int
    layers: Tuple[Node, ...]
    macs: int


class Structures:
    """The structures of ``symbol`` for inputs of ``data_shapes`` (name → shape, the batch first).

    Weights do not matter: every number in them is taken to be positive, and moving means to be 0. Raises ``GraphError``
    where the shapes cannot be inferred.
    """

    def __init__(self, symbol: mx.sym.Symbol, data_shapes: Mapping[str, Shape]) -> None:
        self.graph = Graph.from_symbol(symbol)
        self.shapes = self.graph.shapes(data_shapes)
        self.inputs = set(data_shapes) | labels(self.graph)
        batch = next(iter(data_shapes.values()))[0]
        self._macs = {node: macs_of(node, self.shapes) // batch for node in self.graph.nodes() if node.op in WEIGHTED}
        self.total_macs = sum(self._macs.values())
        self._trial, self._values, self._trial_shapes, twins = _trial(self.graph, self.shapes, self.inputs)
        self._masks = _insert_masks(self._trial, self._values, self._trial_shapes, twins)
        net = self._analysed({})
        label = net.labels()
        self.followed = {node for node, twin in twins.items() if Output(twin) in net.channels}
        # For each layer behind which λ could stand: the structure of each of its channels.
        self._structures = {
            node: label[net.channels[Output(twins[node])].ids] for node in self._masks if node in self.followed
        }

    def sites(self, excluded: Iterable[Node] = ()) -> List[Site]:
        """The sites, in the order of the graph. The channels that the layers ``excluded`` put out shall stay."""
        stay = {PINNED}.union(*(self._of(node) for node in excluded if node in self._structures))
        candidates = [node for node in self._structures if self._is_regular(node, stay)]
        # A depthwise convolution of several outputs a channel: what goes is the channel before it.
        narrow = {one for node in candidates if _runs(self._structures[node])[1] == 1 for one in self._of(node)}
        candidates = [
            node for node in candidates if _runs(self._structures[node])[1] == 1 or not narrow & set(self._of(node))
        ]
        chosen: List[Node] = []
        covered: Set[int] = set()
        removes = self._tried(candidates)
        for node in reversed(candidates):
            structures = set(self._of(node))
            if not structures & covered and all(removes.get((node, one), True) for one in structures):
                chosen.append(node)
                covered |= structures
        return [self._site(node) for node in self._confirmed(chosen[::-1])]

    def macs(self, layers: Iterable[Node]) -> int:
        """What these layers cost for one image, in multiply-accumulates."""
        return sum(self._macs[layer] for layer in layers)

    def why_whole(self, layer: Node, excluded: Iterable[Node] = ()) -> str:
        """Why no λ behind the convolution or full connection ``layer`` would remove a channel of it alone. The channels
        that the layers ``excluded`` put out shall stay.
        """
        own = set(self._of(layer)) if layer in self._structures else {PINNED}
        if PINNED in own:
            return 'the output of the network, or an operator that strip does not know, needs all channels'
        if any(own & set(self._of(other)) for other in excluded if other in self._structures):
            return 'excluded, or read by a layer that is'
        if any(own & set(self._of(other)) for other in self._structures if other.op in WEIGHTED and other != layer):
            return 'their channels are added to, or shuffled with, those of other layers, and stay or go with them'
        return 'at λ = 0 a constant would be left, which a layer with padding or groups cannot take into its bias'

    def map_size(self, node: Node) -> Shape:
        """(height, width) of the output of ``node``; for other outputs, all sides behind the first two."""
        return tuple(self.shapes[Output(node)][2:])

    def _of(self, node):
        """The structures that ``node`` puts out, each once, in order."""
        return list(dict.fromkeys(self._structures[node].tolist()))

    def _is_regular(self, node, stay):
        """Whether λ can address what ``node`` puts out: two structures or more, of equally many neighbours each."""
        structures = self._structures[node]
        count, width = _runs(structures)
        return count > 1 and width > 0 and not stay & set(self._of(node))

    def _tried(self, candidates):
        """Which candidates would remove their structures: a dict (node, structure) → bool, of samples.

        Structures with the same candidates share one fate. So each candidate is tried on another structure among them,
        many at once, and never on more than half of a layer: what reads a layer that is dead altogether is dead too.
        """
        families = {}
        places = {}
        for node in candidates:
            for place, structure in enumerate(self._of(node)):
                places.setdefault(structure, []).append((node, place))
        for structure, where in places.items():
            family = families.setdefault(tuple(node for node, _ in where), [])
            if where[0][1] % 2 == 0:
                family.append(structure)
        found, start = {}, 0
        while True:
            tried = [
                pair
                for nodes, samples in families.items()
                for pair in zip(nodes[start * len(samples) : (start + 1) * len(samples)], samples)
            ]
            if not tried:
                break
            fates = self._fates(tried)
            for nodes, samples in families.items():
                for node, sample in zip(nodes[start * len(samples) : (start + 1) * len(samples)], samples):
                    found.update({(node, structure): fates[node, sample] for structure in samples})
            start += 1
        return found

    def _confirmed(self, nodes):
        """Those of ``nodes`` that remove all of their structures, tried one half after the other."""
        fates = {}
        for half in (0, 1):
            fates.update(self._fates([(node, structure) for node in nodes for structure in self._of(node)[half::2]]))
        return [node for node in nodes if all(fates[node, one] for one in self._of(node))]

    def _fates(self, tried):
        """For each (node, structure) of ``tried``: whether the structure is removed when all of these have λ = 0."""
        dead = {}
        for node, structure in tried:
            dead[node] = dead.get(node, False) | (self._structures[node] == structure)
        net = self._analysed(dead)
        net.find_needed()
        kept = net.kept()
        stays = {node: kept[Output(self._masks[node].product)] for node in dead}
        return {
            (node, structure): not stays[node][self._structures[node] == structure].any() for node, structure in tried
        }

    def _analysed(self, dead):
        """The liveness of the network with the channels of ``dead`` (node → mask) multiplied by 0."""
        values = dict(self._values)
        for node, mask in dead.items():
            name = self._masks[node].name
            values[name] = np.where(mask, 0, values[name].reshape(-1)).reshape(values[name].shape).astype(np.float32)
        return Liveness(self._trial, Weights(values), self._trial_shapes)

    def _site(self, node):
        structures = self._structures[node]
        count, width = _runs(structures)
        own, layers, macs = self._of(node), [], 0
        for layer in self._structures:
            part = np.isin(self._structures[layer], own) if layer.op in WEIGHTED else np.zeros(1, bool)
            if part.any():
                layers.append(layer)
                macs += int(self.macs([layer]) * part.mean())
        return Site(node, count, width, tuple(layers), macs)


class _Mask(NamedTuple):
    """A trial factor: the name of its variable, and the node of its product."""

    name: str
    product: Node


def _trial(graph, shapes, inputs):
    """A copy of ``graph`` to try λ in: ``(copy, values, shapes, twins)``, with stand-ins for all parameters; ``twins``
    maps the nodes of ``graph`` to their copies.
    """
    means = {node.sources[AUXILIARY_INPUTS[node.op][0]].name for node in graph.nodes() if node.op in AUXILIARY_INPUTS}
    values = {
        node.name: stand_in(shapes[Output(node)], node.name not in means)
        for node in graph.variables()
        if node.name not in inputs
    }
    trial = graph.copy()
    twins = dict(zip(graph.nodes(), trial.nodes()))
    trial_shapes = {Output(twins[node], index): shape for (node, index), shape in shapes.items()}
    drop_losses(trial)
    folded = prepare(trial, trial_shapes, set(values))
    values.update({name: stand_in(trial_shapes[source]) for name, source in folded.items()})
    trial_shapes.update({Output(node): values[node.name].shape for node in trial.variables() if node.name in values})
    return trial, values, trial_shapes, twins


def _insert_masks(trial, values, shapes, twins):
    """Multiply a factor of ones in behind every layer of ``trial``: a dict from the original node to its ``_Mask``."""
    net = Liveness(trial, Weights(values), shapes)
    there = set(trial.nodes())
    masks, replacements = {}, {}
    for node, twin in twins.items():
        channels = net.channels.get(Output(twin))
        if twin not in there or channels is None or not _is_layer(twin):
            continue
        side = [1] * len(shapes[Output(twin)])
        side[channels.axis] = len(channels.ids)
        variable = Node('null', f'{len(masks)} mask')
        product = Node('broadcast_mul', f'{len(masks)} masked', {}, [Output(twin), Output(variable)])
        values[variable.name] = np.ones(side, np.float32)
        shapes[Output(variable)], shapes[Output(product)] = tuple(side), shapes[Output(twin)]
        masks[node], replacements[Output(twin)] = _Mask(variable.name, product), Output(product)
    readers = trial.readers()
    for source, product in replacements.items():
        for reader, position in readers[source.node]:
            (trial.heads if reader is None else reader.inputs)[position] = product
    return masks


def _is_layer(node):
    """Whether λ may stand behind ``node``: a convolution or full connection, or the batch normalisation of one."""
    if node.op in WEIGHTED:
        return True
    if node.op != 'BatchNorm':
        return False
    below = node.sources[0]
    while isinstance(rule_of(below), Pointwise) and not below.is_variable:
        below = below.sources[0]
    return below.op in WEIGHTED


def _runs(structures):
    """(how many structures, channels of each); the second is 0 where the channels of a structure lie apart or the
    structures differ in size.
    """
    starts = np.flatnonzero(np.concatenate([[True], structures[1:] != structures[:-1]]))
    widths = np.diff(np.concatenate([starts, [len(structures)]]))
    regular = (widths == widths[0]).all() and len(np.unique(structures[starts])) == len(starts)
    return len(starts), int(widths[0]) if regular else 0
