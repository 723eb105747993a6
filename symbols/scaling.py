"""The scaling factors λ: which there are, and the one place that decides where they multiply.

A builder asks a :class:`Scaling` for the factor of a structure (section 3.2 of the paper: a residual block, a group of
a grouped convolution, a neuron, which is a channel) and hands it to the layer that the structure ends in::

    branch = convolution(x, 64, 256, kernel=1, name='stage1_unit1_conv3', factors=scale.block(unit))

With scaling off the same call returns no factor, and the graph holds no λ at all. The placement decides what a factor
does:

``output``   multiplies the feature map by λ, as the authors' graph does.
``weight``   multiplies the parameters of the layer by λ. The function and its gradients are the same, because
convolution is linear in its weight and
             batch normalisation in (γ, β); the feature maps, whose product with λ is what costs in the backward pass,
             are left alone.
"""

from __future__ import annotations

from typing import Callable, Iterable, List, NamedTuple, Optional, Sequence, Tuple, Union

from graphs.graph import Shape
from graphs.lambdas import KIND_ALIASES
from runtime import mx
from runtime.errors import UnknownNetworkError

KINDS = ('block', 'group', 'neuron')
PLACEMENTS = ('weight', 'output')


def parse_kinds(scale: str, allowed: Sequence[str], network: str) -> Tuple[str, ...]:
    """The kinds named in ``scale`` ('block,group'; 'channel' or the paper's 'neuron'; 'none' or '' for none), checked
    against the kinds that ``network`` has.

    Raises UnknownNetworkError for a kind that the network has no structure for.
    """
    kinds = tuple(kind for kind in in_papers_words(scale).split(',') if kind not in ('', 'none'))
    words = {kind: alias for alias, kind in KIND_ALIASES.items()}
    for kind in kinds:
        if kind not in allowed:
            raise UnknownNetworkError(
                f'--scale {kind}: {network} has no such structure; it can scale '
                f'{", ".join(words.get(one, one) for one in allowed)} or none'
            )
    return kinds


def in_papers_words(scale: str) -> str:
    """``--scale`` as runs and files record it: a channel is called a neuron."""
    kinds = (kind.strip() for kind in scale.split(','))
    return ','.join(KIND_ALIASES.get(kind, kind) for kind in kinds)


class Scaling:
    """The λ variables of one network.

    Parameters
    ----------
    kinds : which of KINDS get a factor; an empty tuple builds the network without λ.
    placement : one of PLACEMENTS.
    units : number of residual blocks in each stage; ``lambda_block`` has shape (num_block,), num_block their sum.
    num_group : groups in each block; ``lambda_group`` has shape (num_block, num_group).

    Each method returns a list of factors for the ``factors`` of a layer: of one factor, or empty when that kind is off.
    """

    def __init__(self, kinds: Sequence[str], placement: str, units: Sequence[int] = (), num_group: int = 1) -> None:
        if placement not in PLACEMENTS:
            raise UnknownNetworkError(f'--lambda-placement {placement}: it is one of {", ".join(PLACEMENTS)}')
        self._kinds = kinds
        self._place = OnParameters if placement == 'weight' else OnFeatures
        self._num_group = num_group
        stages = [stage for stage, count in enumerate(units, start=1) for _ in range(count)]
        self._blocks = self._rows('block', (len(stages),), stages)
        self._groups = self._rows('group', (len(stages), num_group), stages)

    def block(self, index: int) -> List[Factor]:
        """The factor of the whole residual block ``index``, counted from 0 through all stages."""
        return [self._place.whole(self._blocks[index])] if 'block' in self._kinds else []

    def group(self, index: int, channels: int) -> List[Factor]:
        """The factor of the groups of block ``index``: one λ a group, repeated over its ``channels / num_group``
        channels.
        """
        if 'group' not in self._kinds:
            return []
        row = mx.sym.repeat(self._groups[index].reshape((-1,)), repeats=channels // self._num_group, axis=0)
        return [self._place.by_group(row)]

    def neuron(self, layer: str, channels: int, stage: int) -> List[Factor]:
        """The factor of the channels of ``layer``: the vector ``lambda_<layer>``, shape (channels,)."""
        if 'neuron' not in self._kinds:
            return []
        return [self._place.by_channel(_variable(f'lambda_{layer}', 'neuron', (channels,), [stage]))]

    def _rows(self, kind, shape, stages):
        if kind not in self._kinds:
            return []
        return mx.sym.SliceChannel(
            _variable(f'lambda_{kind}', kind, shape, stages), axis=0, num_outputs=shape[0], name=f'lambda_{kind}_rows'
        )


def scaled(
    layer: Callable[..., mx.sym.Symbol], factors: Iterable[Factor], **parameters: Tuple[str, Shape]
) -> mx.sym.Symbol:
    """The output of ``layer``, a function of its parameters, with every factor of ``factors`` multiplied in where it
    belongs.

    ``parameters`` maps a role, such as ``weight``, to (name, shape). Those that no factor touches are left for MXNet to
    create under the same names.
    """
    roles = dict.fromkeys(parameters)
    for factor in factors:
        roles = {role: factor.parameter(symbol, *parameters[role]) for role, symbol in roles.items()}
    output = layer(**{role: symbol for role, symbol in roles.items() if symbol is not None})
    for factor in factors:
        output = factor.output(output)
    return output


class OnFeatures(NamedTuple):
    """A factor that multiplies the feature map (N, C, H, W) behind a layer: the authors' placement.

    The authors' graph has the same function, names and shapes, but other operators around λ. A piece of
    ``lambda_block`` (1,) multiplies the map as it is, where this reshapes it to (1,1,1,1). A row of ``lambda_group``
    multiplies along the first axis of the map, transposed by (1,0,2,3), where this takes the last axis, transposed by
    (0,2,3,1).
    """

    factor: mx.sym.Symbol
    channels_last: bool

    @classmethod
    def whole(cls, factor: mx.sym.Symbol) -> OnFeatures:
        return cls(factor.reshape((1, 1, 1, 1)), False)

    @classmethod
    def by_channel(cls, factor: mx.sym.Symbol) -> OnFeatures:
        return cls(factor.reshape((1, -1, 1, 1)), False)

    @classmethod
    def by_group(cls, factor: mx.sym.Symbol) -> OnFeatures:
        return cls(factor.reshape((1, 1, 1, -1)), True)

    def parameter(self, symbol: Optional[mx.sym.Symbol], name: str, shape: Shape) -> Optional[mx.sym.Symbol]:
        return symbol

    def output(self, features: mx.sym.Symbol) -> mx.sym.Symbol:
        if not self.channels_last:
            return mx.sym.broadcast_mul(features, self.factor)
        product = mx.sym.broadcast_mul(mx.sym.transpose(features, axes=(0, 2, 3, 1)), self.factor)
        return mx.sym.transpose(product, axes=(0, 3, 1, 2))


class OnParameters(NamedTuple):
    """A factor that multiplies the parameters of a layer: the weight of a convolution, or γ and β of a batch
    normalisation.
    """

    factor: mx.sym.Symbol
    is_scalar: bool

    @classmethod
    def whole(cls, factor: mx.sym.Symbol) -> OnParameters:
        return cls(factor.reshape((1, 1)), True)

    @classmethod
    def by_channel(cls, factor: mx.sym.Symbol) -> OnParameters:
        return cls(factor, False)

    @classmethod
    def by_group(cls, factor: mx.sym.Symbol) -> OnParameters:
        return cls(factor, False)

    def parameter(self, symbol: Optional[mx.sym.Symbol], name: str, shape: Shape) -> mx.sym.Symbol:
        if symbol is None:
            symbol = mx.sym.Variable(name, shape=shape)
        if not self.is_scalar:
            return symbol * self.factor
        # As a product of matrices (1,1)·(1,N) the backward pass is two BLAS calls; broadcast_mul's is a slow reduction.
        return mx.sym.dot(self.factor, symbol.reshape((1, -1))).reshape(shape)

    def output(self, features: mx.sym.Symbol) -> mx.sym.Symbol:
        return features


Factor = Union[OnFeatures, OnParameters]


def _variable(name, kind, shape, stages):
    """A λ variable: 1 at the start, and never decayed."""
    return mx.sym.Variable(
        name,
        shape=shape,
        init=mx.init.One(),
        wd_mult=0.0,
        attr={'__kind__': kind, '__stages__': ','.join(map(str, stages))},
    )
