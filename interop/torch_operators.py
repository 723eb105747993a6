"""One table from MXNet's operators to PyTorch's calls.

An entry is a function of the node, which reads the attributes once and returns what computes the node's output from its
inputs: a function of tensors or, where training differs from inference, a ``torch.nn.Module``. ``torch_layers`` has
the entries of layers.
"""

import functools
import operator
from typing import Callable, Dict

import torch
import torch.nn.functional as F

from graphs import attributes
from graphs.attributes import flag, integers, number, require, single, text
from graphs.graph import Node

from .torch_layers import (
    BatchNorm,
    Dropout,
    Function,
    Outputs,
    activation,
    adaptive_average,
    convolution,
    deconvolution,
    fully_connected,
    leaky_relu,
    pooling,
)

Entry = Callable[[Node], Function]
ScalarFunction = Callable[[torch.Tensor, float], torch.Tensor]


def reshape(node: Node) -> Function:
    require(not flag(node, 'reverse'), node, 'reverse is not converted')
    codes = integers(node, 'shape')
    return lambda x: x.reshape(attributes.reshaped(x.shape, codes, node))


def transpose(node: Node) -> Function:
    axes = integers(node, 'axes')
    return lambda x: x.permute(axes or tuple(reversed(range(x.dim()))))


def slice_channel(node: Node) -> Function:
    count, axis, squeeze = number(node, 'num_outputs'), number(node, 'axis', 1), flag(node, 'squeeze_axis')

    def run(x: torch.Tensor) -> Outputs:
        parts = x.split(x.shape[axis] // count, axis)
        return tuple(part.squeeze(axis) for part in parts) if squeeze else parts

    return run


def slice_axis(node: Node) -> Function:
    axis, begin, end = (number(node, name) for name in ('axis', 'begin', 'end'))

    def run(x: torch.Tensor) -> Outputs:
        index = [slice(None)] * x.dim()
        index[axis] = slice(begin, end)
        return x[tuple(index)]

    return run


def pad(node: Node) -> Function:
    mode, widths = text(node, 'mode'), integers(node, 'pad_width')
    pairs = list(zip(widths[::2], widths[1::2]))
    amounts = [amount for pair in reversed(pairs) for amount in pair]
    if mode == 'constant':
        return lambda x: F.pad(x, amounts, value=number(node, 'constant_value', 0))
    require(not any(widths[:4]), node, f'mode={mode} pads batch or channels')
    return lambda x: F.pad(x, amounts[:-4], mode={'edge': 'replicate'}.get(mode, mode))


def dot(node: Node) -> Function:
    first, second = flag(node, 'transpose_a'), flag(node, 'transpose_b')

    def run(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        require(
            a.dim() <= 2 and b.dim() <= 2 or not (first or second),
            node,
            'transposed arrays of more than two dimensions are not converted',
        )
        a, b = a.t() if first else a, b.t() if second else b
        if a.dtype != b.dtype:
            return torch.tensordot(a, b, dims=1)
        # λ meets the weights in a product like this one, which autocast must not round to half precision.
        with torch.autocast(a.device.type, enabled=False):
            return torch.tensordot(a, b, dims=1)

    return run


def repeat(node: Node) -> Function:
    repeats, axis = number(node, 'repeats'), number(node, 'axis')
    return lambda x: x.repeat_interleave(repeats, axis)


def up_sampling(node: Node) -> Function:
    scale = number(node, 'scale')
    require(
        text(node, 'sample_type') == 'nearest' and len(node.inputs) == 1,
        node,
        'only the nearest neighbour of one input is converted',
    )
    return lambda x: F.interpolate(x, scale_factor=scale)


def clip(node: Node) -> Function:
    low, high = single(node, 'a_min'), single(node, 'a_max')
    return lambda x: x.clamp(low, high)


def softmax(node: Node) -> Function:
    axis = number(node, 'axis', -1)
    require(number(node, 'temperature') is None, node, 'temperature is not converted')
    call = torch.log_softmax if node.op == 'log_softmax' else torch.softmax
    return lambda x: call(x, axis)


def softmax_activation(node: Node) -> Function:
    if text(node, 'mode', 'instance') == 'channel':
        return lambda x: torch.softmax(x, 1)
    return lambda x: torch.softmax(x.flatten(1), 1).view_as(x)


def reduction(call: Callable[..., torch.Tensor]) -> Entry:
    """An entry for a reduction: over all axes where none is given, and over all the others where ``exclude`` is set."""

    def read(node: Node) -> Function:
        axes, keep, exclude = integers(node, 'axis'), flag(node, 'keepdims'), flag(node, 'exclude')

        def run(x: torch.Tensor) -> Outputs:
            chosen = {axis % x.dim() for axis in axes} or set(range(x.dim()))
            return call(x, dim=tuple(set(range(x.dim())) - chosen if exclude else chosen), keepdim=keep)

        return run

    return read


def cast(node: Node) -> Function:
    kind = getattr(torch, text(node, 'dtype'), None)
    require(isinstance(kind, torch.dtype), node, f'dtype={text(node, "dtype")} is not converted')
    return lambda x: x.to(kind)


def plain(call: Function) -> Entry:
    """An entry for an operator without attributes that matter."""
    return lambda node: call


def with_scalar(call: ScalarFunction) -> Entry:
    """An entry for an operator between an array and the number in ``scalar``."""

    def read(node: Node) -> Function:
        scalar = number(node, 'scalar')
        return lambda x: call(x, scalar)

    return read


def reversed_scalar(call: ScalarFunction) -> Entry:
    """The same with the number on the left."""
    return with_scalar(lambda x, scalar: call(scalar, x))


ARITHMETIC = {'add': operator.add, 'sub': operator.sub, 'mul': operator.mul, 'div': operator.truediv}
SCALAR = {
    'plus': operator.add,
    'minus': operator.sub,
    'mul': operator.mul,
    'div': operator.truediv,
    'power': operator.pow,
}

OPERATORS: Dict[str, Entry] = {
    'Convolution': convolution,
    'Deconvolution': deconvolution,
    'FullyConnected': fully_connected,
    'BatchNorm': BatchNorm,
    '_contrib_SyncBatchNorm': BatchNorm,
    'Dropout': Dropout,
    'Activation': activation,
    'LeakyReLU': leaky_relu,
    'Pooling': pooling,
    '_contrib_AdaptiveAvgPooling2D': adaptive_average,
    'softmax': softmax,
    'log_softmax': softmax,
    'SoftmaxActivation': softmax_activation,
    'Flatten': plain(lambda x: x.flatten(1)),
    'Reshape': reshape,
    'transpose': transpose,
    'SwapAxis': lambda node: functools.partial(
        torch.transpose, dim0=number(node, 'dim1', 0), dim1=number(node, 'dim2', 0)
    ),
    'expand_dims': lambda node: functools.partial(torch.unsqueeze, dim=number(node, 'axis')),
    'squeeze': lambda node: (
        functools.partial(torch.squeeze, dim=integers(node, 'axis')) if integers(node, 'axis') else torch.squeeze
    ),
    'Concat': lambda node: lambda *arrays: torch.cat(arrays, number(node, 'dim', 1)),
    'SliceChannel': slice_channel,
    'slice_axis': slice_axis,
    'Pad': pad,
    'repeat': repeat,
    'UpSampling': up_sampling,
    'dot': dot,
    'clip': clip,
    'Cast': cast,
    'mean': reduction(torch.mean),
    'sum': reduction(torch.sum),
    'zeros_like': plain(torch.zeros_like),
    'ones_like': plain(torch.ones_like),
    '_copy': plain(lambda x: x),
    'BlockGrad': plain(torch.detach),
    'add_n': plain(lambda *arrays: functools.reduce(operator.add, arrays)),
    **{f'elemwise_{name}': plain(call) for name, call in ARITHMETIC.items()},
    **{f'broadcast_{name}': plain(call) for name, call in ARITHMETIC.items()},
    **{f'_{name}_scalar': with_scalar(call) for name, call in SCALAR.items()},
    **{f'_r{name}_scalar': reversed_scalar(SCALAR[name]) for name in ('minus', 'div', 'power')},
    '_maximum_scalar': with_scalar(lambda x, scalar: x.clamp(min=scalar)),
    '_minimum_scalar': with_scalar(lambda x, scalar: x.clamp(max=scalar)),
    **{
        name: plain(getattr(torch, name))
        for name in (
            'relu',
            'sigmoid',
            'tanh',
            'exp',
            'log',
            'sqrt',
            'rsqrt',
            'square',
            'abs',
            'negative',
            'reciprocal',
        )
    },
}


def converted(node: Node) -> Function:
    """What computes a node in PyTorch. Raises GraphError, naming operator and node, for one that is not in the table or
    an attribute it has no answer to.
    """
    if node.op not in OPERATORS:
        raise attributes.unknown_operator(node, 'the PyTorch conversion', OPERATORS)
    return OPERATORS[node.op](node)
