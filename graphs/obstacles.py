"""Why dead channels stay: the operators of a stripped network that need them."""

from typing import Dict, List, NamedTuple

import numpy as np

from .attributes import describe
from .graph import Graph, Output, Shapes
from .liveness import NO_CHANNELS, Liveness
from .operator_table import OPAQUE, RESHAPES, WEIGHTED, rule_of
from .values import Array
from .weights import Weights


class Obstacle(NamedTuple):
    """``channels`` channels that hold the same number whatever the image stay in the output of ``layer``, since
    ``operator`` needs them, for ``reason``.
    """

    layer: str
    channels: int
    operator: str
    reason: str


def obstacles(graph: Graph, values: Dict[str, Array], shapes: Shapes) -> List[Obstacle]:
    """The ``Obstacle`` for every operator that holds dead channels in ``graph``, which is stripped. ``values`` are its
    parameters, ``shapes`` as from ``Graph.shapes``.
    """
    live = Liveness(graph, Weights(values), shapes)
    live.find_needed()
    found = []
    for node in graph.nodes():
        is_followed = Output(node) in live.needed
        if node.is_variable or is_followed and node.op not in (*WEIGHTED, *RESHAPES):
            continue
        rule = rule_of(node) if is_followed else OPAQUE
        wanted = live.needed.get(Output(node), NO_CHANNELS)
        for source, mask in zip(node.inputs, rule.needs(node, live, wanted)):
            if mask is None or source not in live.known:
                continue
            held = mask & _stays_for(node, is_followed, live.known[source])
            if held.any():
                reason = _reason(node, is_followed)
                found.append(Obstacle(source.node.name, int(held.sum()), describe(node), reason))
    return found


def _stays_for(node, is_followed, known):
    """Which channels of these ``known`` numbers ``node`` holds, of those that it needs."""
    if not is_followed:
        return ~np.isnan(known)
    # A layer drops what is 0; another constant would have to go into its bias. A split keeps what is 0, too.
    return known == 0 if node.op in RESHAPES else ~np.isnan(known) & (known != 0)


def _reason(node, is_followed):
    if not is_followed:
        return 'strip does not know what it does with each channel'
    if node.op in RESHAPES:
        return 'it splits channels into equal groups, and a channel at the same place of another group is alive'
    return 'they are a constant that is not 0, which a layer with padding or groups cannot take into its bias'
