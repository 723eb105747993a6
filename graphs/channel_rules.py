"""What kinds of operators without parameters do to channels; ``weighted_rules`` has those with parameters.

``rule_interface`` says what a rule answers. An operator without a rule is ``Opaque``.
"""

from typing import Callable, Dict, Optional, Tuple

import numpy as np

from .attributes import channels_last, flag, integers, number, text
from .graph import Node, Output, Shape
from .rule_interface import UNKNOWN, Channels, Needs, Net, OfConstants

# Where ``Moved`` channels lie afterwards: (axis, repeats of each), from node, axis, and the shapes before and after.
Where = Callable[[Node, int, Shape, Shape], Optional[Tuple[int, int]]]


class Opaque:
    """Nothing is known of the operator: every input must stay whole."""

    def flow(self, node: Node, net: Net) -> None:
        for source in node.inputs:
            net.pin_whole(source)

    def known(self, node: Node, net: Net) -> Optional[np.ndarray]:
        return None

    def needs(self, node: Node, net: Net, wanted: np.ndarray) -> Needs:
        return [net.everything(source) for source in node.inputs]

    def slim(self, node: Node, net: Net, kept: Dict[Output, np.ndarray]) -> None:
        """Mend the attributes of ``node`` for the channels that stay: ``kept`` maps an ``Output`` to a mask of them."""


class Pointwise(Opaque):
    """One input, one output, each position for itself: channels pass through.

    ``function`` is what becomes of a constant, if anything is known of that.
    """

    def __init__(self, function: Optional[OfConstants] = None) -> None:
        self.function = function

    def flow(self, node: Node, net: Net) -> None:
        channels = net.channels.get(node.inputs[0])
        if channels is None or len(node.inputs) > 1:
            return Opaque.flow(self, node, net)
        net.channels[Output(node)] = channels
        return None

    def known(self, node: Node, net: Net) -> np.ndarray:
        inputs = net.known[node.inputs[0]]
        function = self.function(node) if self.function else None
        return function(inputs) if function else np.full(len(inputs), UNKNOWN)

    def needs(self, node: Node, net: Net, wanted: np.ndarray) -> Needs:
        return [wanted]


class Like(Pointwise):
    """zeros_like and ones_like, which take only the shape from their input."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def known(self, node: Node, net: Net) -> np.ndarray:
        return np.full(len(net.known[node.inputs[0]]), self.value)

    def needs(self, node: Node, net: Net, wanted: np.ndarray) -> Needs:
        return [np.zeros_like(wanted)]


class Pooling(Pointwise):
    def flow(self, node: Node, net: Net) -> None:
        channels = net.channels.get(node.inputs[0])
        last = len(net.shapes[node.inputs[0]]) - 1
        if channels is None or channels.axis != (last if channels_last(node) else 1):
            return Opaque.flow(self, node, net)
        net.channels[Output(node)] = channels
        return None

    def known(self, node: Node, net: Net) -> np.ndarray:
        inputs = net.known[node.inputs[0]]
        if flag(node, 'global_pool'):
            return inputs if text(node, 'pool_type', 'max') in ('max', 'avg') else np.where(inputs == 0, 0, UNKNOWN)
        kernel = integers(node, 'kernel', (1,))
        pad, stride = integers(node, 'pad', (0,) * len(kernel)), integers(node, 'stride', (1,) * len(kernel))
        kind, is_valid = text(node, 'pool_type', 'max'), text(node, 'pooling_convention', 'valid') == 'valid'
        if kind == 'avg' and is_valid and not any(pad):
            return inputs
        if kind == 'max':
            # 'full' may put a window into the padding alone, whose maximum is no number of the map.
            covered = is_valid or all(p + s <= k for k, s, p in zip(kernel, stride, pad))
            return inputs if covered else np.full(len(inputs), UNKNOWN)
        return np.where(inputs == 0, 0, UNKNOWN)


class Moved(Opaque):
    """Flattening, transposing, reducing: the channels stay, perhaps on another axis, perhaps each repeated.

    ``where`` tells (new axis, repeats) or None.
    """

    def __init__(self, where: Where) -> None:
        self.where = where

    def flow(self, node: Node, net: Net) -> None:
        channels = net.channels.get(node.inputs[0])
        if channels is None:
            return Opaque.flow(self, node, net)
        place = self.where(node, channels.axis, net.shapes[node.inputs[0]], net.shapes[Output(node)])
        if place is None:
            return Opaque.flow(self, node, net)
        axis, repeats = place
        net.channels[Output(node)] = Channels(axis, np.repeat(channels.ids, repeats))
        return None

    def known(self, node: Node, net: Net) -> np.ndarray:
        inputs = net.known[node.inputs[0]]
        outputs = np.repeat(inputs, self._repeats(node, net))
        return np.where(outputs == 0, 0, UNKNOWN) if node.op == 'sum' else outputs

    def needs(self, node: Node, net: Net, wanted: np.ndarray) -> Needs:
        return [wanted.reshape(-1, self._repeats(node, net)).any(axis=1)]

    def _repeats(self, node, net):
        return len(net.channels[Output(node)].ids) // len(net.channels[node.inputs[0]].ids)


class Concat(Opaque):
    def flow(self, node: Node, net: Net) -> None:
        axis = _dim(node, net)
        along = [net.ids_along(source, axis) for source in node.inputs]
        if all(ids is None for ids in along):
            return Opaque.flow(self, node, net)
        whole = []
        for source, ids in zip(node.inputs, along):
            if ids is None:
                net.pin_whole(source)
                ids = net.pinned(net.shapes[source][axis])
            whole.append(ids)
        net.channels[Output(node)] = Channels(axis, np.concatenate(whole))
        return None

    def known(self, node: Node, net: Net) -> np.ndarray:
        return np.concatenate([net.known_along(source, _dim(node, net)) for source in node.inputs])

    def needs(self, node: Node, net: Net, wanted: np.ndarray) -> Needs:
        axis = _dim(node, net)
        ends = np.cumsum([net.shapes[source][axis] for source in node.inputs])
        return [net.along(source, axis, part) for source, part in zip(node.inputs, np.split(wanted, ends[:-1]))]


class SliceAxis(Opaque):
    """Channels ``begin`` to ``end``, or, along another axis, all channels."""

    def flow(self, node: Node, net: Net) -> None:
        channels = net.channels.get(node.inputs[0])
        if channels is None:
            return Opaque.flow(self, node, net)
        net.channels[Output(node)] = Channels(channels.axis, channels.ids[self.part(node, net)])
        return None

    def known(self, node: Node, net: Net) -> np.ndarray:
        return net.known[node.inputs[0]][self.part(node, net)]

    def needs(self, node: Node, net: Net, wanted: np.ndarray) -> Needs:
        needed = np.zeros(len(net.channels[node.inputs[0]].ids), bool)
        needed[self.part(node, net)] = wanted
        return [needed]

    def slim(self, node: Node, net: Net, kept: Dict[Output, np.ndarray]) -> None:
        part = self.part(node, net)
        if part != slice(None):
            before = kept[node.inputs[0]]
            node.attrs.update(begin=str(int(before[: part.start].sum())), end=str(int(before[: part.stop].sum())))

    def part(self, node: Node, net: Net) -> slice:
        shape = net.shapes[node.inputs[0]]
        axis = number(node, 'axis') % len(shape)
        if axis != net.channels[node.inputs[0]].axis:
            return slice(None)
        return slice(*slice(number(node, 'begin'), number(node, 'end')).indices(shape[axis])[:2])


class Elementwise(Opaque):
    """Operands combined position by position, small ones broadcast: channels that are combined stay or go together."""

    def __init__(self, combine: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
        self.combine = combine

    def flow(self, node: Node, net: Net) -> None:
        shape = net.shapes[Output(node)]
        followed = [source for source in node.inputs if source in net.channels]
        axes = {net.channels[source].axis for source in followed}
        if len(axes) != 1 or any(len(net.shapes[source]) != len(shape) for source in followed):
            return Opaque.flow(self, node, net)
        axis = axes.pop()
        outputs = None
        for source in node.inputs:
            if own_axis(source, shape, axis, net) is None:
                net.pin_whole(source)
                continue
            if net.is_parameter(source):
                continue
            ids = net.ids_along(source, axis)
            if ids is None:
                net.pin_whole(source)
                ids = net.pinned(shape[axis])
            if outputs is None:
                outputs = ids
            else:
                net.join(outputs, ids)
        if outputs is None:
            return Opaque.flow(self, node, net)
        for source in node.inputs:
            own = own_axis(source, shape, axis, net)
            if net.is_parameter(source) and own is not None:
                net.tie(source, own, outputs)
        net.channels[Output(node)] = Channels(axis, outputs)
        return None

    def known(self, node: Node, net: Net) -> np.ndarray:
        operands = [operand(source, node, net) for source in node.inputs]
        found = operands[0]
        for other in operands[1:]:
            found = self.combine(found, other)
        return found

    def needs(self, node: Node, net: Net, wanted: np.ndarray) -> Needs:
        return [self._asked(source, node, net, wanted) for source in node.inputs]

    def _asked(self, source, node, net, wanted):
        """Which channels of ``source`` matter where those of ``wanted`` do of the output."""
        shape, axis = net.shapes[Output(node)], net.channels[Output(node)].axis
        if own_axis(source, shape, axis, net) is None:
            wanted = wanted.any(keepdims=True)
        return net.along(source, axis, wanted)


class Multiply(Elementwise):
    def __init__(self) -> None:
        super().__init__(lambda a, b: np.where((a == 0) | (b == 0), 0, a * b))

    def needs(self, node: Node, net: Net, wanted: np.ndarray) -> Needs:
        first, second = (operand(source, node, net) for source in node.inputs)
        met = [wanted & (second != 0), wanted & (first != 0)]
        return [self._asked(source, node, net, part) for source, part in zip(node.inputs, met)]


def own_axis(source: Output, shape: Shape, axis: int, net: Net) -> Optional[int]:
    """The axis of ``source`` that becomes ``axis`` of an output of ``shape``; None where it is broadcast there."""
    own = axis - len(shape) + len(net.shapes[source])
    return own if own >= 0 and net.shapes[source][own] == shape[axis] else None


def operand(source: Output, node: Node, net: Net) -> np.ndarray:
    """What is known of ``source`` at each channel of an elementwise ``node``."""
    shape, axis = net.shapes[Output(node)], net.channels[Output(node)].axis
    own = axis - len(shape) + len(net.shapes[source])
    if own >= 0:
        return np.broadcast_to(net.known_along(source, own), (shape[axis],))
    return np.full(shape[axis], net.weights.number(source) if net.is_parameter(source) else UNKNOWN)


def _dim(node, net):
    return number(node, 'dim', 1) % len(net.shapes[Output(node)])
