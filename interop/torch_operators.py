"""One table from MXNet's operators to PyTorch's calls.

An entry is a function of the node, which reads the attributes once and returns what computes the node's output from its
inputs: a function of tensors or, where training differs from inference, a ``torch.nn.Module``.
"""

import functools
import operator

import torch
import torch.nn.functional as F

from graphs import attributes
from graphs.attributes import flag, integers, number, require, single, text


def convolution(node):
    window, groups = attributes.window(node), number(node, 'num_group', 1)

    def run(x, weight, bias=None):
        return F.conv2d(x, weight, bias, window.stride, window.pad, window.dilate, groups)

    return run


def deconvolution(node):
    window, groups = attributes.window(node), number(node, 'num_group', 1)
    adjust = integers(node, 'adj', (0, 0))
    require(not integers(node, 'target_shape'), node, 'target_shape is not converted')

    def run(x, weight, bias=None):
        return F.conv_transpose2d(x, weight, bias, window.stride, window.pad, adjust, groups, window.dilate)

    return run


def fully_connected(node):
    flatten = flag(node, 'flatten', True)

    def run(x, weight, bias=None):
        return F.linear(x.flatten(1) if flatten else x, weight, bias)

    return run


class BatchNorm(torch.nn.Module):
    """Batch normalisation. MXNet's ``momentum`` is the share of the *old* statistics, and it keeps the variance of the
    batch as it is (biased), where PyTorch would keep that of the population.
    """

    def __init__(self, node):
        super().__init__()
        self.axis = attributes.batch_norm_axis(node)
        self.eps = attributes.batch_norm_eps(node)
        self.keep = single(node, 'momentum', 0.9)
        self.fix_gamma = flag(node, 'fix_gamma', True)
        self.use_global_stats = flag(node, 'use_global_stats')

    def forward(self, x, gamma, beta, moving_mean, moving_var):
        x = x.movedim(self.axis, 1)
        gamma = torch.ones_like(gamma) if self.fix_gamma else gamma
        if self.use_global_stats or not self.training:
            return F.batch_norm(x, moving_mean, moving_var, gamma, beta, False, 0.0, self.eps).movedim(1, self.axis)
        # PyTorch keeps n / (n - 1) of the batch's variance, MXNet the variance: the statistics are raised by that
        # factor while PyTorch adds to them. The backward pass never reads them, so autograd, which would object, is not
        # told (.data).
        count = x.numel() // x.shape[1]
        bias = (count - 1) / count
        moving_var.data.div_(bias)
        y = F.batch_norm(x, moving_mean, moving_var, gamma, beta, True, 1 - self.keep, self.eps)
        moving_var.data.mul_(bias)
        return y.movedim(1, self.axis)


class Dropout(torch.nn.Module):
    """Dropout, in training only unless the node says ``always``."""

    def __init__(self, node):
        super().__init__()
        self.p, self.always = single(node, 'p', 0.5), text(node, 'mode', 'training') == 'always'
        require(not integers(node, 'axes'), node, 'axes is not converted')

    def forward(self, x):
        return F.dropout(x, self.p, self.training or self.always)


ACTIVATIONS = {
    'relu': torch.relu,
    'sigmoid': torch.sigmoid,
    'tanh': torch.tanh,
    'softrelu': F.softplus,
    'softsign': F.softsign,
}


def activation(node):
    kind = text(node, 'act_type')
    require(kind in ACTIVATIONS, node, f'act_type={kind} is not converted')
    return ACTIVATIONS[kind]


def leaky_relu(node):
    slope, kind = single(node, 'slope', 0.25), text(node, 'act_type', 'leaky')
    kinds = {
        'leaky': lambda x: F.leaky_relu(x, slope),
        'elu': lambda x: F.elu(x, slope),
        'selu': F.selu,
        'gelu': F.gelu,
        'prelu': F.prelu,
    }
    require(kind in kinds, node, f'act_type={kind} is not converted')
    return kinds[kind]


def pooling(node):
    kind = text(node, 'pool_type', 'max')
    require(kind in ('max', 'avg', 'sum'), node, f'pool_type={kind} is not converted')
    if flag(node, 'global_pool'):
        return functools.partial(
            {'max': torch.amax, 'avg': torch.mean, 'sum': torch.sum}[kind], dim=(2, 3), keepdim=True
        )
    window, convention = attributes.window(node), attributes.pooling_convention(node)
    include = flag(node, 'count_include_pad', True)
    fits = convention == 'valid' and all(2 * pad <= side for pad, side in zip(window.pad, window.kernel))
    if fits and kind == 'max':
        return lambda x: F.max_pool2d(x, window.kernel, window.stride, window.pad)
    if fits and kind == 'avg':
        return lambda x: F.avg_pool2d(x, window.kernel, window.stride, window.pad, count_include_pad=include)
    return functools.partial(_pool_padded, window=window, convention=convention, kind=kind, include=include)


def _pool_padded(x, window, convention, kind, include):
    """Pooling over a map that is padded by hand until every window fits: PyTorch's own rounding drops windows that
    MXNet keeps.
    """
    axes = list(zip(x.shape[2:], window.kernel, window.stride, window.pad))
    ends = [(attributes.pooled_length(*axis, convention) - 1) * axis[2] + axis[1] - axis[3] - axis[0] for axis in axes]
    padding = (window.pad[1], max(ends[1], 0), window.pad[0], max(ends[0], 0))
    if kind == 'max':
        return F.max_pool2d(F.pad(x, padding, value=torch.finfo(x.dtype).min), window.kernel, window.stride)
    total = F.avg_pool2d(F.pad(x, padding), window.kernel, window.stride, divisor_override=1)
    if kind == 'sum':
        return total
    # type_as: in a trace, a device would be written down.
    rows, columns = (torch.tensor(attributes.window_counts(*axis, convention, include)).type_as(x) for axis in axes)
    return total / (rows[:, None] * columns)


def adaptive_average(node):
    size = integers(node, 'output_size', (1, 1))
    return lambda x: F.adaptive_avg_pool2d(x, size[0] if len(size) == 1 else size)


def reshape(node):
    require(not flag(node, 'reverse'), node, 'reverse is not converted')
    codes = integers(node, 'shape')
    return lambda x: x.reshape(attributes.reshaped(x.shape, codes, node))


def transpose(node):
    axes = integers(node, 'axes')
    return lambda x: x.permute(axes or tuple(reversed(range(x.dim()))))


def slice_channel(node):
    count, axis, squeeze = number(node, 'num_outputs'), number(node, 'axis', 1), flag(node, 'squeeze_axis')

    def run(x):
        parts = x.split(x.shape[axis] // count, axis)
        return tuple(part.squeeze(axis) for part in parts) if squeeze else parts

    return run


def slice_axis(node):
    axis, begin, end = (number(node, name) for name in ('axis', 'begin', 'end'))

    def run(x):
        index = [slice(None)] * x.dim()
        index[axis] = slice(begin, end)
        return x[tuple(index)]

    return run


def pad(node):
    mode, widths = text(node, 'mode'), integers(node, 'pad_width')
    pairs = list(zip(widths[::2], widths[1::2]))
    amounts = [amount for pair in reversed(pairs) for amount in pair]
    if mode == 'constant':
        return lambda x: F.pad(x, amounts, value=number(node, 'constant_value', 0))
    require(not any(widths[:4]), node, f'mode={mode} pads batch or channels')
    return lambda x: F.pad(x, amounts[:-4], mode={'edge': 'replicate'}.get(mode, mode))


def dot(node):
    first, second = flag(node, 'transpose_a'), flag(node, 'transpose_b')

    def run(a, b):
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


def repeat(node):
    repeats, axis = number(node, 'repeats'), number(node, 'axis')
    return lambda x: x.repeat_interleave(repeats, axis)


def up_sampling(node):
    scale = number(node, 'scale')
    require(
        text(node, 'sample_type') == 'nearest' and len(node.inputs) == 1,
        node,
        'only the nearest neighbour of one input is converted',
    )
    return lambda x: F.interpolate(x, scale_factor=scale)


def clip(node):
    low, high = single(node, 'a_min'), single(node, 'a_max')
    return lambda x: x.clamp(low, high)


def softmax(node):
    axis = number(node, 'axis', -1)
    require(number(node, 'temperature') is None, node, 'temperature is not converted')
    call = torch.log_softmax if node.op == 'log_softmax' else torch.softmax
    return lambda x: call(x, axis)


def softmax_activation(node):
    if text(node, 'mode', 'instance') == 'channel':
        return lambda x: torch.softmax(x, 1)
    return lambda x: torch.softmax(x.flatten(1), 1).view_as(x)


def reduction(call):
    """An entry for a reduction: over all axes where none is given, and over all the others where ``exclude`` is set."""

    def read(node):
        axes, keep, exclude = integers(node, 'axis'), flag(node, 'keepdims'), flag(node, 'exclude')

        def run(x):
            chosen = {axis % x.dim() for axis in axes} or set(range(x.dim()))
            return call(x, dim=tuple(set(range(x.dim())) - chosen if exclude else chosen), keepdim=keep)

        return run

    return read


def cast(node):
    kind = getattr(torch, text(node, 'dtype'), None)
    require(isinstance(kind, torch.dtype), node, f'dtype={text(node, "dtype")} is not converted')
    return lambda x: x.to(kind)


def plain(call):
    """An entry for an operator without attributes that matter."""
    return lambda node: call


def with_scalar(call):
    """An entry for an operator between an array and the number in ``scalar``."""

    def read(node):
        scalar = number(node, 'scalar')
        return lambda x: call(x, scalar)

    return read


def reversed_scalar(call):
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

OPERATORS = {
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


def converted(node):
    """What computes a node in PyTorch. Raises GraphError, naming operator and node, for one that is not in the table or
    an attribute it has no answer to.
    """
    if node.op not in OPERATORS:
        raise attributes.unknown_operator(node, 'the PyTorch conversion', OPERATORS)
    return OPERATORS[node.op](node)
