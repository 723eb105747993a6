"""Which operator of MXNet follows which rule about channels. What is not listed is opaque: its inputs stay whole."""

import math
from typing import Tuple

import numpy as np

from .attributes import flag, integers, number, text
from .channel_rules import Concat, Elementwise, Like, Moved, Multiply, Opaque, Pointwise, Pooling, SliceAxis
from .graph import Node
from .reshape_rule import Reshape
from .rule_interface import Net
from .weighted_rules import BatchNorm, Convolution, Deconvolution, FullyConnected, LeakyReLU

OPAQUE = Opaque()


def rule_of(node: Node) -> Opaque:
    """The rule of a node that is no variable."""
    return RULES.get(node.op, OPAQUE)


def _same(node):
    return lambda x: x


def _zero_only(node):
    """Zero stays zero; what becomes of other constants is not said."""
    return lambda x: np.where(x == 0, 0, np.nan)


def _activation(node):
    return ACTIVATIONS.get(text(node, 'act_type'))


def _leaky(node):
    slope = number(node, 'slope', 0.25)
    return {
        'leaky': lambda x: np.where(x > 0, x, slope * x),
        'elu': lambda x: np.where(x > 0, x, slope * np.expm1(x)),
    }.get(text(node, 'act_type', 'leaky'), _zero_only(node))


def _clip(node):
    return lambda x: np.clip(x, number(node, 'a_min'), number(node, 'a_max'))


def _constant_as(function):
    return Pointwise(lambda node: function)


def _scalar(function):
    return Pointwise(lambda node: lambda x: function(x, float(number(node, 'scalar'))))


def _pad(node):
    """Padding that leaves batch and channels alone, and puts zeros around."""
    zeros = text(node, 'mode') == 'constant' and number(node, 'constant_value', 0) == 0
    return _zero_only(node) if zeros or text(node, 'mode') in ('edge', 'reflect') else None


class _Pad(Pointwise):
    def flow(self, node: Node, net: Net) -> None:
        width = integers(node, 'pad_width')
        channels = net.channels.get(node.inputs[0])
        if channels is None or any(width[2 * channels.axis : 2 * channels.axis + 2]):
            return Opaque.flow(self, node, net)
        return super().flow(node, net)


def _flatten(node, axis, shape, out):
    return (1, math.prod(shape[2:])) if axis == 1 else None


def _transpose(node, axis, shape, out):
    return permutation(node, len(shape)).index(axis), 1


def permutation(node: Node, rank: int) -> Tuple[int, ...]:
    """The axes of a transposition of a tensor with ``rank`` axes, as a tuple."""
    return integers(node, 'axes', tuple(reversed(range(rank))))


def _swap(node, axis, shape, out):
    first, second = number(node, 'dim1', 0), number(node, 'dim2', 0)
    return {first: second, second: first}.get(axis, axis), 1


def _expand(node, axis, shape, out):
    return axis + (number(node, 'axis') % len(out) <= axis), 1


def _reduce(node, axis, shape, out):
    """A mean or sum over axes that are neither the batch nor the channels."""
    axes = {one % len(shape) for one in integers(node, 'axis')}
    if not axes or 0 in axes or axis in axes or flag(node, 'exclude'):
        return None
    return (axis if flag(node, 'keepdims') else axis - sum(one < axis for one in axes)), 1


def _squeeze(node, axis, shape, out):
    ones = tuple(position for position, length in enumerate(shape) if length == 1)
    axes = {one % len(shape) for one in integers(node, 'axis', ones)}
    return None if axis in axes else (axis - sum(one < axis for one in axes), 1)


ACTIVATIONS = {
    'relu': lambda x: np.maximum(x, 0),
    'sigmoid': lambda x: 1 / (1 + np.exp(-x)),
    'tanh': np.tanh,
    'softrelu': lambda x: np.log1p(np.exp(x)),
    'softsign': lambda x: x / (1 + np.abs(x)),
}
UNARY = {
    'relu': ACTIVATIONS['relu'],
    'sigmoid': ACTIVATIONS['sigmoid'],
    'tanh': np.tanh,
    'abs': np.abs,
    'negative': np.negative,
    'square': np.square,
    'exp': np.exp,
    'softsign': ACTIVATIONS['softsign'],
}
SCALAR = {
    '_mul_scalar': np.multiply,
    '_div_scalar': np.divide,
    '_plus_scalar': np.add,
    '_minus_scalar': np.subtract,
    '_rminus_scalar': lambda x, scalar: scalar - x,
    '_maximum_scalar': np.maximum,
    '_minimum_scalar': np.minimum,
}
VARIADIC = ('add_n', 'ElementWiseSum')
ADDITIONS = ('elemwise_add', 'broadcast_add', 'broadcast_plus', '_plus', '_add', *VARIADIC)
SUBTRACTIONS = ('elemwise_sub', 'broadcast_sub', 'broadcast_minus', '_minus', '_sub')
WEIGHTED = ('Convolution', 'FullyConnected')
CONCATENATIONS = ('Concat', 'concat')
RESHAPES = ('Reshape', 'reshape')
PRODUCTS = ('elemwise_mul', 'broadcast_mul', '_mul')
# Operators of two tensors, and those that do the same with one of them broadcast.
BROADCASTING = {
    **{
        name: name
        for name in ('broadcast_add', 'broadcast_sub', 'broadcast_mul', 'broadcast_maximum', 'broadcast_minimum')
    },
    'elemwise_add': 'broadcast_add',
    '_plus': 'broadcast_add',
    '_add': 'broadcast_add',
    'broadcast_plus': 'broadcast_add',
    'elemwise_sub': 'broadcast_sub',
    '_minus': 'broadcast_sub',
    '_sub': 'broadcast_sub',
    'broadcast_minus': 'broadcast_sub',
    'elemwise_mul': 'broadcast_mul',
    '_mul': 'broadcast_mul',
    '_maximum': 'broadcast_maximum',
    '_minimum': 'broadcast_minimum',
}

RULES = {
    'Convolution': Convolution(),
    'FullyConnected': FullyConnected(),
    'Deconvolution': Deconvolution(),
    'BatchNorm': BatchNorm(),
    '_contrib_SyncBatchNorm': BatchNorm(),
    'Pooling': Pooling(),
    'slice_axis': SliceAxis(),
    **dict.fromkeys(CONCATENATIONS, Concat()),
    'Activation': Pointwise(_activation),
    'LeakyReLU': LeakyReLU(_leaky),
    'clip': Pointwise(_clip),
    'zeros_like': Like(0.0),
    'ones_like': Like(1.0),
    'Dropout': Pointwise(_zero_only),
    'UpSampling': Pointwise(_zero_only),
    'Pad': _Pad(_pad),
    'pad': _Pad(_pad),
    '_contrib_BilinearResize2D': Pointwise(_zero_only),
    '_contrib_AdaptiveAvgPooling2D': Pointwise(_zero_only),
    'Flatten': Moved(_flatten),
    'flatten': Moved(_flatten),
    **dict.fromkeys(RESHAPES, Reshape()),
    'transpose': Moved(_transpose),
    'SwapAxis': Moved(_swap),
    'swapaxes': Moved(_swap),
    'expand_dims': Moved(_expand),
    'squeeze': Moved(_squeeze),
    'mean': Moved(_reduce),
    'sum': Moved(_reduce),
    **dict.fromkeys(('_copy', 'identity', 'BlockGrad', 'Cast', 'amp_cast'), Pointwise(_same)),
    **{name: _constant_as(function) for name, function in UNARY.items()},
    **{name: _scalar(function) for name, function in SCALAR.items()},
    **dict.fromkeys(ADDITIONS, Elementwise(np.add)),
    **dict.fromkeys(SUBTRACTIONS, Elementwise(np.subtract)),
    **dict.fromkeys(PRODUCTS, Multiply()),
    **dict.fromkeys(('broadcast_maximum', '_maximum'), Elementwise(np.maximum)),
    **dict.fromkeys(('broadcast_minimum', '_minimum'), Elementwise(np.minimum)),
}
