"""MXNet's layers as PyTorch's: convolutions, full connection, batch normalisation, dropout, activations and poolings.

The functions and classes are entries of the table in ``torch_operators``.
"""

import functools
from typing import Callable, Optional, Tuple, Union

import torch
import torch.nn.functional as F

from graphs import attributes
from graphs.attributes import flag, integers, number, require, single, text
from graphs.graph import Node

Outputs = Union[torch.Tensor, Tuple[torch.Tensor, ...]]
# What computes the output of a node from its inputs: a function of tensors, or a module.
Function = Callable[..., Outputs]


def convolution(node: Node) -> Function:
    window, groups = attributes.window(node), number(node, 'num_group', 1)

    def run(x: torch.Tensor, weight: torch.Tensor, bias: Optional[torch.Tensor] = None) -> torch.Tensor:
        return F.conv2d(x, weight, bias, window.stride, window.pad, window.dilate, groups)

    return run


def deconvolution(node: Node) -> Function:
    window, groups = attributes.window(node), number(node, 'num_group', 1)
    adjust = integers(node, 'adj', (0, 0))
    require(not integers(node, 'target_shape'), node, 'target_shape is not converted')

    def run(x: torch.Tensor, weight: torch.Tensor, bias: Optional[torch.Tensor] = None) -> torch.Tensor:
        return F.conv_transpose2d(x, weight, bias, window.stride, window.pad, adjust, groups, window.dilate)

    return run


def fully_connected(node: Node) -> Function:
    flatten = flag(node, 'flatten', True)

    def run(x: torch.Tensor, weight: torch.Tensor, bias: Optional[torch.Tensor] = None) -> torch.Tensor:
        return F.linear(x.flatten(1) if flatten else x, weight, bias)

    return run


class BatchNorm(torch.nn.Module):
    """Batch normalisation. MXNet's ``momentum`` is the share of the *old* statistics, and it keeps the variance of the
    batch as it is (biased), where PyTorch would keep that of the population.
    """

    def __init__(self, node: Node) -> None:
        super().__init__()
        self.axis = attributes.batch_norm_axis(node)
        self.eps = attributes.batch_norm_eps(node)
        self.keep = single(node, 'momentum', 0.9)
        self.fix_gamma = flag(node, 'fix_gamma', True)
        self.use_global_stats = flag(node, 'use_global_stats')

    def forward(
        self,
        x: torch.Tensor,
        gamma: torch.Tensor,
        beta: torch.Tensor,
        moving_mean: torch.Tensor,
        moving_var: torch.Tensor,
    ) -> torch.Tensor:
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

    def __init__(self, node: Node) -> None:
        super().__init__()
        self.p, self.always = single(node, 'p', 0.5), text(node, 'mode', 'training') == 'always'
        require(not integers(node, 'axes'), node, 'axes is not converted')

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.dropout(x, self.p, self.training or self.always)


ACTIVATIONS = {
    'relu': torch.relu,
    'sigmoid': torch.sigmoid,
    'tanh': torch.tanh,
    'softrelu': F.softplus,
    'softsign': F.softsign,
}


def activation(node: Node) -> Function:
    kind = text(node, 'act_type')
    require(kind in ACTIVATIONS, node, f'act_type={kind} is not converted')
    return ACTIVATIONS[kind]


def leaky_relu(node: Node) -> Function:
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


def pooling(node: Node) -> Function:
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


def _pool_padded(x: torch.Tensor, window: attributes.Window, convention: str, kind: str, include: bool) -> torch.Tensor:
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


def adaptive_average(node: Node) -> Function:
    size = integers(node, 'output_size', (1, 1))
    return lambda x: F.adaptive_avg_pool2d(x, size[0] if len(size) == 1 else size)
