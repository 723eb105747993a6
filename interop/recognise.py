"""Recognises which of our networks a file of named tensors holds, and what each tensor is called here."""

from __future__ import annotations

import functools
from typing import Dict, KeysView, List, Mapping, NamedTuple, Optional

from graphs.graph import Shape
from runtime import mx
from runtime.errors import CheckpointError
from symbols import NETWORKS, get_symbol

from .data_bn import DATA_BN, with_data_bn
from .naming_styles import OWN_STYLES, STYLES, Style

# PyTorch counts batches in every BN; nothing reads the count.
_BOOKKEEPING = 'num_batches_tracked'
_SHOWN = 5
# More classes than any network has, and few enough for MXNet.
_MOST_CLASSES = 1 << 24


class Match(NamedTuple):
    """What was recognised.

    ``ours`` maps names of the file to the authors' names; ``symbol`` is the network, without λ, whose parameters they
    are; ``problems`` lists in words whatever does not fit, and is empty for a network that is ours.
    """

    style: Style
    num_layers: int
    num_classes: int
    image_shape: Shape
    symbol: mx.sym.Symbol
    ours: Dict[str, str]
    problems: List[str]

    @property
    def description(self) -> str:
        """For example 'resnext 50 with the names of torchvision'."""
        return f'{self.style.network} {self.num_layers} with the names of {self.style.name}'

    def require_whole(self, path: str) -> None:
        """Raise CheckpointError, naming ``path`` and the first tensors that do not fit, unless all do."""
        if self.problems:
            more = f'; and {len(self.problems) - _SHOWN} more' if len(self.problems) > _SHOWN else ''
            raise CheckpointError(
                f'{path} is not a network that can be converted; the nearest is {self.description}, but '
                f'{"; ".join(self.problems[:_SHOWN])}{more}'
            )


def is_bookkeeping(name: str) -> bool:
    """Whether a tensor of a PyTorch file has no say in what its network computes."""
    return name.rpartition('.')[2] == _BOOKKEEPING


def recognise(shapes: Mapping[str, Shape], network: Optional[str] = None, num_layers: Optional[int] = None) -> Match:
    """The network that the tensors ``shapes`` (name → shape) belong to, of one family and depth where these are given:
    the Match with fewest problems.

    Raises CheckpointError where not a single name is known.
    """
    names = frozenset(name for name in shapes if not is_bookkeeping(name))
    candidates = [
        _Candidate(style, depth, full)
        for style in STYLES + OWN_STYLES
        if network in (None, style.network)
        for depth in style.depths
        if num_layers in (None, depth)
        for full in _variants(style)
    ]
    best = min(candidates, key=lambda candidate: len(names ^ candidate.names), default=None)
    if best is None or not names & best.names:
        wanted = f'{network} {num_layers}' if network else 'any network we know'
        raise CheckpointError(
            f'the names of the tensors are not those of {wanted}: {", ".join(sorted(names)[:_SHOWN])}'
        )
    return best.matched({name: tuple(shapes[name]) for name in sorted(names)})


def expected_shapes(symbol: mx.sym.Symbol, image_shape: Shape) -> Dict[str, Shape]:
    """The shape of every parameter and state of ``symbol``, by name; inputs are left out."""
    arguments, _, states = symbol.infer_shape(data=(1, *image_shape))
    shapes = dict(zip(symbol.list_arguments() + symbol.list_auxiliary_states(), arguments + states))
    return {name: shape for name, shape in shapes.items() if name not in ('data', 'softmax_label')}


class _Candidate(NamedTuple):
    """A network that a file may hold. ``full`` is VGG with its fully connected layers; for the others it follows from
    the depth.
    """

    style: Style
    num_layers: int
    full: bool

    @property
    def names(self) -> KeysView[Optional[str]]:
        return _names(*self).keys()

    def matched(self, shapes: Mapping[str, Shape]) -> Match:
        """The Match of the tensors ``shapes``, name → shape, with this network."""
        theirs = _names(*self)
        ours = {name: theirs[name] for name in shapes if name in theirs}
        image_shape, num_classes = self._image_shape(ours, shapes), self._num_classes(ours, shapes)
        symbol = _built(self.style, self.num_layers, num_classes, image_shape)
        expected = expected_shapes(symbol, image_shape)
        problems = [f'{name} {shape} is not in it' for name, shape in shapes.items() if name not in theirs]
        problems += [f'{name} {expected[own]} is missing' for name, own in theirs.items() if name not in ours]
        problems += [
            f'{name} has shape {shapes[name]} instead of {expected[own]}'
            for name, own in ours.items()
            if shapes[name] != expected[own]
        ]
        return Match(self.style, self.num_layers, num_classes, image_shape, symbol, ours, problems)

    def _image_shape(self, ours, shapes):
        """The channels as the first convolution has them; the sides as the family's data set has them, or VGG's first
        fully connected layer.
        """
        by_own_name = {own: shapes[name] for name, own in ours.items()}
        channels = (*by_own_name.get('conv0_weight', by_own_name.get('conv1_1_weight', ())), 3, 3)[1]
        side = _default_side(self.style.network, self.num_layers, self.full)
        if self.full and len(by_own_name.get('fc6_weight', ())) == 2:
            pixels = by_own_name['fc6_weight'][1] // 512
            side = max(2, round(pixels**0.5)) * 32
        return channels, side, side

    @staticmethod
    def _num_classes(ours, shapes):
        last = next((name for name, own in ours.items() if own in ('fc1_weight', 'fc8_weight')), None)
        return min(max(shapes[last][0], 1), _MOST_CLASSES) if last and shapes[last] else 10


def _variants(style):
    if style.network != 'vgg':
        return [True]
    return [full for full, classifier in ((True, 'fc8_weight'), (False, 'fc1_weight')) if style.rename(classifier)]


def _default_side(network, num_layers, full):
    small = network == 'resnet-v1' or not full or num_layers in getattr(NETWORKS[network], 'CIFAR', ())
    return 32 if small else 224


@functools.lru_cache(maxsize=None)
def _names(style, num_layers, full):
    """Their names → ours."""
    side = _default_side(style.network, num_layers, full)
    symbol = _built(style, num_layers, 10, (3, side, side))
    own = [
        name
        for name in symbol.list_arguments() + symbol.list_auxiliary_states()
        if name not in ('data', 'softmax_label')
    ]
    return {style.rename(name): name for name in own}


def _built(style, num_layers, num_classes, image_shape):
    symbol = get_symbol(style.network, num_layers, num_classes, image_shape, scale='none')
    return with_data_bn(symbol) if DATA_BN in style.outside else symbol
