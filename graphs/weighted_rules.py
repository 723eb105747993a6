"""The rules of operators that have parameters: convolutions, full connection, batch normalisation and PReLU."""

import math
from typing import Dict, Optional

import numpy as np

from .attributes import channels_last, flag, integers, number
from .channel_rules import Opaque, Pointwise
from .graph import Node, Output
from .rule_interface import UNKNOWN, Channels, Needs, Net


class Weighted(Opaque):
    """Convolution and full connection: each output channel is a weighted sum over input channels, within its group."""

    def axis_in(self, node: Node, net: Net) -> int:
        """The axis of the input channels in what it reads."""
        raise NotImplementedError

    def axis_out(self, node: Node, net: Net) -> int:
        """The axis of the output channels in what it puts out."""
        raise NotImplementedError

    def weight_axis_in(self, node: Node, net: Net) -> int:
        """The axis of the input channels in the weight; the output channels lie along the first."""
        raise NotImplementedError

    def repeats(self, node: Node, net: Net) -> int:
        """How many neighbouring inputs of the weight belong to one input channel."""
        raise NotImplementedError

    def is_padded(self, node: Node) -> bool:
        """Whether zeros are put around the map."""
        raise NotImplementedError

    def flow(self, node: Node, net: Net) -> None:
        groups, axis = _groups(node), self.axis_in(node, net)
        source = node.inputs[0]
        if not all(net.is_parameter(parameter) for parameter in node.inputs[1:]):
            return Opaque.flow(self, node, net)
        inside = net.ids_along(source, axis)
        if inside is None:
            net.pin_whole(source)
            inside = net.pinned(net.shapes[source][axis])
        inside = np.repeat(inside, self.repeats(node, net))
        outside = net.fresh(net.shapes[node.inputs[1]][0])
        if groups > 1:
            # A grouped convolution stays rectangular: a group goes whole, inputs and outputs together, or not at all.
            for ids in np.hstack([inside.reshape(groups, -1), outside.reshape(groups, -1)]):
                net.join(ids[1:], ids[:-1])
        else:
            net.tie(node.inputs[1], self.weight_axis_in(node, net), inside)
        net.tie(node.inputs[1], 0, outside)
        for bias in node.inputs[2:]:
            net.tie(bias, 0, outside)
        net.channels[Output(node)] = Channels(self.axis_out(node, net), outside)
        return None

    def known(self, node: Node, net: Net) -> np.ndarray:
        nonzero, groups = self.nonzero(node, net), _groups(node)
        inputs = np.repeat(net.known_along(node.inputs[0], self.axis_in(node, net)), self.repeats(node, net))
        # Padding puts zeros around a map, so that only a constant of zero stays constant under it.
        unknown = np.isnan(inputs) if not self.is_padded(node) else inputs != 0
        values = np.where(unknown, 0, inputs)
        mixed = _by_group(nonzero, unknown, groups).any(axis=1)
        found = net.weights.vector(node.inputs[2]) if len(node.inputs) > 2 else np.zeros(len(mixed))
        if values.any():
            sums = net.weights.sums(node.inputs[1], self.weight_axis_in(node, net))
            found = found + _by_group(sums, values, groups).sum(axis=1)
        return np.where(mixed, UNKNOWN, found)

    def needs(self, node: Node, net: Net, wanted: np.ndarray) -> Needs:
        source, groups = node.inputs[0], _groups(node)
        nonzero = self.nonzero(node, net)
        met = (nonzero & wanted[:, None]).reshape(groups, -1, nonzero.shape[1]).any(axis=1).reshape(-1)
        met = met.reshape(-1, self.repeats(node, net)).any(axis=1)
        if self.takes_constants(node, net):
            met &= np.isnan(net.known_along(source, self.axis_in(node, net)))
        return [net.along(source, self.axis_in(node, net), met)] + [None] * (len(node.inputs) - 1)

    def takes_constants(self, node: Node, net: Net) -> bool:
        """Whether input channels that are constants can become part of the bias."""
        own_bias = all(net.is_read_once(bias) for bias in node.inputs[2:])
        return _groups(node) == 1 and not self.is_padded(node) and own_bias

    def shift(self, node: Node, net: Net, kept: Dict[Output, np.ndarray]) -> Optional[np.ndarray]:
        """What the input channels that are constants, and go, add to each output channel; None where there are none."""
        source = node.inputs[0]
        if net.ids_along(source, self.axis_in(node, net)) is None or not self.takes_constants(node, net):
            return None
        values = np.where(kept[source], 0, np.nan_to_num(net.known[source]))
        if not values.any():
            return None
        sums = net.weights.sums(node.inputs[1], self.weight_axis_in(node, net))
        return sums @ np.repeat(values, self.repeats(node, net))

    def nonzero(self, node: Node, net: Net) -> np.ndarray:
        return net.weights.nonzero(node.inputs[1], self.weight_axis_in(node, net))


class Convolution(Weighted):
    def axis_in(self, node: Node, net: Net) -> int:
        return len(net.shapes[node.inputs[0]]) - 1 if channels_last(node) else 1

    axis_out = axis_in

    def weight_axis_in(self, node: Node, net: Net) -> int:
        return len(net.shapes[node.inputs[1]]) - 1 if channels_last(node) else 1

    def repeats(self, node: Node, net: Net) -> int:
        return 1

    def is_padded(self, node: Node) -> bool:
        return any(integers(node, 'pad'))

    def slim(self, node: Node, net: Net, kept: Dict[Output, np.ndarray]) -> None:
        outputs = kept[Output(node)]
        groups = _groups(node)
        if groups > 1:
            node.attrs['num_group'] = str(int(outputs.reshape(groups, -1).any(axis=1).sum()))
        node.attrs['num_filter'] = str(int(outputs.sum()))


class FullyConnected(Weighted):
    def axis_in(self, node: Node, net: Net) -> int:
        return 1 if flag(node, 'flatten', True) else len(net.shapes[node.inputs[0]]) - 1

    def axis_out(self, node: Node, net: Net) -> int:
        return len(net.shapes[node.inputs[0]]) - 1 if not flag(node, 'flatten', True) else 1

    def weight_axis_in(self, node: Node, net: Net) -> int:
        return 1

    def repeats(self, node: Node, net: Net) -> int:
        """How many entries flattening makes of each channel: the positions of its map."""
        return math.prod(net.shapes[node.inputs[0]][2:]) if flag(node, 'flatten', True) else 1

    def is_padded(self, node: Node) -> bool:
        return False

    def slim(self, node: Node, net: Net, kept: Dict[Output, np.ndarray]) -> None:
        node.attrs['num_hidden'] = str(int(kept[Output(node)].sum()))


class BatchNorm(Opaque):
    """Per channel: beta + gamma (x − mean) / √(var + eps)."""

    def flow(self, node: Node, net: Net) -> None:
        source = node.inputs[0]
        ids = net.ids_along(source, _axis(node, net))
        plain = all(net.is_parameter(parameter) for parameter in node.inputs[1:]) and not flag(node, 'output_mean_var')
        if ids is None or not plain:
            return Opaque.flow(self, node, net)
        for parameter in node.inputs[1:]:
            net.tie(parameter, 0, ids)
        net.channels[Output(node)] = net.channels[source]
        return None

    def known(self, node: Node, net: Net) -> np.ndarray:
        gamma = self.gamma(node, net)
        beta, mean, var = (net.weights.vector(parameter) for parameter in node.inputs[2:])
        inputs = net.known[node.inputs[0]]
        return np.where(gamma == 0, beta, beta + gamma * (inputs - mean) / np.sqrt(var + number(node, 'eps', 1e-3)))

    def needs(self, node: Node, net: Net, wanted: np.ndarray) -> Needs:
        return [wanted & (self.gamma(node, net) != 0), None, None, None, None]

    def gamma(self, node: Node, net: Net) -> np.ndarray:
        """The gamma that MXNet computes with: 1 where it is fixed, whatever the file holds."""
        gamma = net.weights.vector(node.inputs[1])
        return np.ones_like(gamma) if flag(node, 'fix_gamma', True) else gamma


class Deconvolution(Opaque):
    """Each output channel is a weighted sum over input channels; the weight has the inputs along its first axis.

    One with groups needs all of its inputs.
    """

    def flow(self, node: Node, net: Net) -> None:
        source, weight = node.inputs[:2]
        inside = net.ids_along(source, 1)
        plain = all(net.is_parameter(parameter) for parameter in node.inputs[1:])
        if _groups(node) > 1 or channels_last(node) or not plain:
            return Opaque.flow(self, node, net)
        if inside is None:
            net.pin_whole(source)
            inside = net.pinned(net.shapes[source][1])
        outside = net.fresh(net.shapes[weight][1])
        net.tie(weight, 0, inside)
        net.tie(weight, 1, outside)
        for bias in node.inputs[2:]:
            net.tie(bias, 0, outside)
        net.channels[Output(node)] = Channels(1, outside)
        return None

    def known(self, node: Node, net: Net) -> np.ndarray:
        mixed = self._nonzero(node, net)[net.known_along(node.inputs[0], 1) != 0].any(axis=0)
        bias = net.weights.vector(node.inputs[2]) if len(node.inputs) > 2 else np.zeros(len(mixed))
        return np.where(mixed, UNKNOWN, bias)

    def needs(self, node: Node, net: Net, wanted: np.ndarray) -> Needs:
        met = self._nonzero(node, net)[:, wanted].any(axis=1)
        return [net.along(node.inputs[0], 1, met)] + [None] * (len(node.inputs) - 1)

    def slim(self, node: Node, net: Net, kept: Dict[Output, np.ndarray]) -> None:
        node.attrs['num_filter'] = str(int(kept[Output(node)].sum()))

    def _nonzero(self, node, net):
        """Whether any weight of each pair (input, output) is not zero."""
        return net.weights.nonzero(node.inputs[1], 1)


class LeakyReLU(Pointwise):
    """The operator of many names. ``prelu`` has a slope for each channel, or one for all, as a parameter."""

    def flow(self, node: Node, net: Net) -> None:
        if len(node.inputs) == 1:
            return super().flow(node, net)
        source, slope = node.inputs
        ids = net.ids_along(source, 1)
        count = int(np.prod(net.shapes[slope]))
        if ids is None or not net.is_parameter(slope) or len(net.shapes[slope]) != 1 or count not in (1, len(ids)):
            return Opaque.flow(self, node, net)
        if count == len(ids):
            net.tie(slope, 0, ids)
        net.channels[Output(node)] = net.channels[source]
        return None

    def known(self, node: Node, net: Net) -> np.ndarray:
        if len(node.inputs) == 1:
            return super().known(node, net)
        inputs = net.known[node.inputs[0]]
        return np.where(inputs > 0, inputs, net.weights.vector(node.inputs[1]) * inputs)

    def needs(self, node: Node, net: Net, wanted: np.ndarray) -> Needs:
        return [wanted, None][: len(node.inputs)]


def _groups(node):
    return number(node, 'num_group', 1)


def _axis(node, net):
    return number(node, 'axis', 1) % len(net.shapes[node.inputs[0]])


def _by_group(matrix, vector, groups):
    """The matrix (outputs, inputs of a group), each row times the entries of ``vector`` (all inputs) of its group."""
    rows = matrix.reshape(groups, -1, matrix.shape[1])
    product = rows & vector.reshape(groups, 1, -1) if vector.dtype == bool else rows * vector.reshape(groups, 1, -1)
    return product.reshape(matrix.shape)
