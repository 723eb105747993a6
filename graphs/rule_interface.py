"""What a rule about the channels of an operator answers, and what it asks of the network around it.

A rule (``channel_rules``, ``weighted_rules``) answers three questions about a node of the graph:

* ``flow(node, net)``: which channels does its output have? Channels carry integer ids. An operator that keeps channels
  apart passes their ids on. One that mixes them (a convolution) makes new ids. One that needs two alike (an addition)
  joins their ids. Parameters are tied to the ids along their axes.
* ``known(node, net)``: which channels of its output hold one and the same number at every position, whatever the data?
  Above all zero.
* ``needs(node, net, wanted)``: which channels of each input matter, given the channels of the output that matter?

``operator_table`` has a rule for each operator, and ``liveness`` asks them.
"""

from typing import Callable, Dict, List, NamedTuple, Optional, Protocol, Union

import numpy as np

from .graph import Node, Output, Shapes
from .weights import UNKNOWN as UNKNOWN
from .weights import Weights

# What a rule needs of each input: a mask over its channels, or None for an input whose channels are not followed.
Needs = List[Optional[np.ndarray]]
# What becomes of a constant in an operator, where that is known.
OfConstants = Callable[[Node], Optional[Callable[[np.ndarray], np.ndarray]]]


class Channels(NamedTuple):
    """The channel axis of a tensor and, along it, the id of each channel."""

    axis: int
    ids: np.ndarray


class Net(Protocol):
    """What a rule asks and tells about the tensors of a network. ``Liveness`` is one.

    ``channels`` maps an ``Output`` to its ``Channels``, ``known`` to the known value of each channel (NaN where it
    depends on the data or the position); tensors whose channels cannot be followed are missing from both. ``shapes`` is
    as from ``Graph.shapes``.
    """

    weights: Weights
    shapes: Shapes
    channels: Dict[Output, Channels]
    known: Dict[Output, np.ndarray]

    def fresh(self, count: int) -> np.ndarray:
        """``count`` new ids."""

    def pinned(self, count: int) -> np.ndarray:
        """The ids of ``count`` channels that must stay."""

    def join(self, first: Union[int, np.ndarray], second: np.ndarray) -> None:
        """From now on these ids, pair by pair, stay or go together."""

    def tie(self, source: Output, axis: int, ids: np.ndarray) -> None:
        """The entries of a parameter along ``axis`` belong to channels ``ids``."""

    def pin_whole(self, source: Output) -> None:
        """Nothing of this tensor or parameter may go."""

    def is_parameter(self, source: Output) -> bool:
        """Whether this is a parameter."""

    def is_read_once(self, source: Output) -> bool:
        """Whether one operator alone reads this."""

    def ids_along(self, source: Output, axis: int) -> Optional[np.ndarray]:
        """The ids of a tensor's channels where they lie along ``axis``, else None."""

    def known_along(self, source: Output, axis: int) -> np.ndarray:
        """What is known of a tensor or parameter at each position of ``axis``: NaN where it is not one number."""

    def everything(self, source: Output) -> Optional[np.ndarray]:
        """The mask of all channels of a tensor, None for one that is not followed."""

    def along(self, source: Output, axis: int, mask: np.ndarray) -> Optional[np.ndarray]:
        """``mask`` where the channels of ``source`` lie along ``axis``; all channels where they do not."""
