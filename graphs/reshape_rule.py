"""What Reshape does to channels: they stay as they are, are spread over positions, or are split into groups.

A channel shuffle is a Reshape from (N, g·n, H, W) to (N, g, n, H, W), a transposition of g and n, and a Reshape back.
It moves channels and computes nothing. To stay a shuffle when channels go, every group must lose channels at the same
places. So the g channels at one place of their groups stay or go together.
"""

from typing import Dict, NamedTuple, Optional

import numpy as np

from .attributes import flag
from .channel_rules import Opaque
from .graph import Node, Output
from .rule_interface import UNKNOWN, Channels, Needs, Net


class _Plan(NamedTuple):
    """The channels lie along ``axis`` afterwards. They are split into ``groups``; or each is repeated, ``copies``
    neighbours for each, and the whole row of them ``rows`` times.
    """

    axis: int
    groups: int = 1
    copies: int = 1
    rows: int = 1


class Reshape(Opaque):
    def flow(self, node: Node, net: Net) -> None:
        channels, plan = net.channels.get(node.inputs[0]), self._plan(node, net)
        if channels is None or plan is None:
            return Opaque.flow(self, node, net)
        groups = channels.ids.reshape(plan.groups, -1)
        net.join(groups[1:], groups[:-1])
        net.channels[Output(node)] = Channels(plan.axis, np.tile(np.repeat(groups[0], plan.copies), plan.rows))
        return None

    def known(self, node: Node, net: Net) -> np.ndarray:
        plan = self._plan(node, net)
        assert plan is not None  # flow has followed the channels
        groups = net.known[node.inputs[0]].reshape(plan.groups, -1)
        common = np.where((groups == groups[0]).all(axis=0), groups[0], UNKNOWN)
        return np.tile(np.repeat(common, plan.copies), plan.rows)

    def needs(self, node: Node, net: Net, wanted: np.ndarray) -> Needs:
        plan = self._plan(node, net)
        assert plan is not None
        return [np.tile(wanted.reshape(plan.rows, -1, plan.copies).any(axis=(0, 2)), plan.groups)]

    def slim(self, node: Node, net: Net, kept: Dict[Output, np.ndarray]) -> None:
        axis, shape = net.channels[Output(node)].axis, net.shapes[Output(node)]
        node.attrs['shape'] = str((0, *shape[1:axis], -1, *shape[axis + 1 :]))

    def _plan(self, node: Node, net: Net) -> Optional[_Plan]:
        """What becomes of channels on axis 1 or 2 where the batch stays; None for any other Reshape."""
        before, after = net.shapes[node.inputs[0]], net.shapes[Output(node)]
        if len(after) < 2 or before[0] != after[0] or flag(node, 'reverse'):
            return None
        if net.ids_along(node.inputs[0], 1) is not None:
            if after[1] % before[1] == 0:
                return _Plan(1, copies=after[1] // before[1])
            return _Plan(2, groups=after[1]) if len(after) > 2 and after[1] * after[2] == before[1] else None
        if net.ids_along(node.inputs[0], 2) is not None and after[1] == before[1] * before[2]:
            return _Plan(1, rows=before[1])
        return None
