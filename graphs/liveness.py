"""Which channels of a network are alive: two sweeps over its graph.

Forward: the channels that hold one known number whatever the data, zero above all. Backward: the channels that are
still needed (not those that are zero, not those that only meet zero weights). Channels that must stay alike, because
they are added to one another, share a parameter or form a group of a grouped convolution, carry the same id in the end;
an id can go when no tensor needs it.
"""

from typing import Dict, List, Optional, Tuple, Union

import numpy as np

from .graph import Graph, Node, Output, Readers, Shapes
from .operator_table import CONCATENATIONS, OPAQUE, WEIGHTED, rule_of
from .rule_interface import UNKNOWN, Channels
from .weights import Weights

PINNED = 0
NO_CHANNELS = np.zeros(0, bool)


class Liveness:
    """The channels of every tensor of ``graph``, the numbers known of them, and which of them are needed.

    ``channels``, ``known`` and ``needed`` map an ``Output`` to its ``Channels``, to the known value of each channel
    (NaN where it depends on the data or the position) and to a mask; tensors whose channels cannot be followed are
    missing from all three. ``weights`` is a ``Weights``, ``shapes`` as from ``Graph.shapes``.
    """

    def __init__(self, graph: Graph, weights: Weights, shapes: Shapes) -> None:
        self.graph, self.weights, self.shapes = graph, weights, shapes
        self.channels: Dict[Output, Channels] = {}
        self.known: Dict[Output, np.ndarray] = {}
        self.needed: Dict[Output, np.ndarray] = {}
        self.axes: Dict[
            Node, List[Optional[np.ndarray]]
        ] = {}  # parameter → the ids along each of its axes, None where they are its own
        self._ids = 1  # id 0 stands for whatever must stay
        self._joins: List[Tuple[np.ndarray, np.ndarray]] = []
        self._readers: Readers = graph.readers()
        self._nodes = [node for node in self._readers if not node.is_variable]
        for node in self._nodes:
            rule_of(node).flow(node, self)
            if Output(node) in self.channels:
                with np.errstate(all='ignore'):
                    self.known[Output(node)] = np.asarray(rule_of(node).known(node, self), np.float64)
        for head in graph.heads:
            self.pin_whole(head)

    def is_known(self, source: Output) -> bool:
        """Whether every channel of a tensor holds a known number."""
        return source in self.known and not np.isnan(self.known[source]).any()

    def find_needed(self) -> None:
        """The backward sweep: fill ``needed``."""
        for source, channels in self.channels.items():
            self.needed[source] = np.zeros(len(channels.ids), bool)
        for head in self.graph.heads:
            self._need(head, self.everything(head))
        for node in reversed(self._nodes):
            wanted = self.needed.get(Output(node), NO_CHANNELS)
            rule = rule_of(node) if Output(node) in self.needed else OPAQUE
            for source, mask in zip(node.inputs, rule.needs(node, self, wanted)):
                self._need(source, mask)

    def kept(self, round_to: int = 1) -> Dict[Output, np.ndarray]:
        """A mask over the channels of every followed tensor: those that stay.

        Every tensor keeps at least one channel unless a concatenation drops it whole. Every layer keeps dead channels
        up to a multiple of ``round_to``, or all it has.
        """
        label = self.labels()
        stays = np.zeros(self._ids, bool)
        stays[label[PINNED]] = True
        for source, channels in self.channels.items():
            stays[label[channels.ids[self.needed[source]]]] = True
        for source in iter(lambda: self._emptied(stays, label), None):
            stays[label[self.channels[source].ids[0]]] = True
        if round_to > 1:
            self._round_up(stays, label, round_to)
        self._stays = stays[label]
        return {source: self._stays[channels.ids] for source, channels in self.channels.items()}

    def _round_up(self, stays: np.ndarray, label: np.ndarray, round_to: int) -> None:
        """Let more ids stay until the layers have multiples of ``round_to``: see ``kept``."""
        layers = [Output(node) for node in self._nodes if node.op in WEIGHTED and Output(node) in self.channels]
        labels_of = [label[self.channels[source].ids] for source in layers]
        added = True
        while added:  # an id may belong to several layers
            added = False
            for labels in labels_of:
                while np.count_nonzero(stays[labels]) % round_to and not stays[labels].all():
                    stays[labels[np.argmin(stays[labels])]] = added = True

    def kept_of_parameter(self, parameter: Node) -> List[Optional[np.ndarray]]:
        """For each axis of a parameter a mask of what stays, or None for all; to be asked after ``kept``."""
        return [
            None if ids is None or self._stays[ids].all() else self._stays[ids] for ids in self.axes.get(parameter, ())
        ]

    # The methods of ``rule_interface.Net``.

    def fresh(self, count: int) -> np.ndarray:
        """``count`` new ids."""
        self._ids += count
        return np.arange(self._ids - count, self._ids)

    def pinned(self, count: int) -> np.ndarray:
        """The ids of ``count`` channels that must stay."""
        return np.full(count, PINNED)

    def join(self, first: Union[int, np.ndarray], second: np.ndarray) -> None:
        """From now on these ids, pair by pair, stay or go together."""
        if first is not second:
            self._joins.append((np.broadcast_to(first, np.shape(second)), second))

    def tie(self, source: Output, axis: int, ids: np.ndarray) -> None:
        """The entries of a parameter along ``axis`` belong to channels ``ids``."""
        axes = self.axes.setdefault(source.node, [None] * len(self.shapes[source]))
        known = axes[axis]
        if known is None:
            axes[axis] = ids
        else:
            self.join(known, ids)

    def pin_whole(self, source: Output) -> None:
        """Nothing of this tensor or parameter may go."""
        if source in self.channels:
            self.join(PINNED, self.channels[source].ids)
        if self.is_parameter(source):
            for axis, length in enumerate(self.shapes[source]):
                self.tie(source, axis, self.pinned(length))

    def is_parameter(self, source: Output) -> bool:
        return source.node.is_variable and source.node.name in self.weights

    def is_read_once(self, source: Output) -> bool:
        return len(self._readers[source.node]) == 1

    def ids_along(self, source: Output, axis: int) -> Optional[np.ndarray]:
        """The ids of a tensor's channels where they lie along ``axis``, else None."""
        channels = self.channels.get(source)
        return channels.ids if channels is not None and channels.axis == axis else None

    def known_along(self, source: Output, axis: int) -> np.ndarray:
        """What is known of a tensor or parameter at each position of ``axis``: NaN where it is not one number."""
        if self.ids_along(source, axis) is not None:
            return self.known[source]
        if self.is_parameter(source):
            return self.weights.along(source, axis)
        return np.full(self.shapes[source][axis], UNKNOWN)

    def everything(self, source: Output) -> Optional[np.ndarray]:
        """The mask of all channels of a tensor, None for one that is not followed."""
        return np.ones(len(self.channels[source].ids), bool) if source in self.channels else None

    def along(self, source: Output, axis: int, mask: np.ndarray) -> Optional[np.ndarray]:
        """``mask`` where the channels of ``source`` lie along ``axis``; all of them where they do not."""
        return mask if self.ids_along(source, axis) is not None else self.everything(source)

    def _need(self, source, mask):
        if mask is not None and source in self.needed:
            self.needed[source] |= mask & (self.known[source] != 0)

    def labels(self) -> np.ndarray:
        """For every id, the smallest id that it is joined with."""
        label = np.arange(self._ids)
        if not self._joins:
            return label
        first, second = (np.concatenate([np.ravel(pair[side]) for pair in self._joins]) for side in (0, 1))
        while (label[first] != label[second]).any():
            low = np.minimum(label[first], label[second])
            np.minimum.at(label, label[first], low)
            np.minimum.at(label, label[second], low)
            label = label[label]
        return label

    def _emptied(self, stays, label):
        """A tensor that the heads reach and of which nothing would stay, or None.

        A padded convolution whose inputs are all zero reads such a one: what is left of it is its bias, but it cannot
        read nothing.
        """
        seen, stack = set(), [head.node for head in self.graph.heads]
        while stack:
            node = stack.pop()
            seen.add(node)
            for source in node.inputs:
                empty = source in self.channels and not stays[label[self.channels[source].ids]].any()
                if empty and node.op not in CONCATENATIONS:
                    return source
                if not empty and source.node not in seen:
                    stack.append(source.node)
        return None
