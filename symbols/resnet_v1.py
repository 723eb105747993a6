"""The CIFAR ResNets of He et al. 2015 (v1, post-activation) with the parameter-free shortcut, option A."""

from __future__ import annotations

from typing import Sequence

from graphs.graph import Shape
from runtime import mx

from .layers import batch_norm, classifier, convolution, input_images, relu
from .scaling import Scaling

SCALES = ('block', 'neuron')
PAPER_SCALE = 'block'

# 6 n + 2 layers: n units of two 3×3 convolutions in each of three stages.
UNITS = {layers: ((layers - 2) // 6,) * 3 for layers in (20, 32, 44, 56, 110)}
WIDTHS = (16, 32, 64)


def build(num_layers: int, num_classes: int, image_shape: Shape, kinds: Sequence[str], placement: str) -> mx.sym.Symbol:
    """The symbol of the CIFAR ResNet with ``num_layers`` layers, a key of UNITS."""
    return network(UNITS[num_layers], num_classes, image_shape, kinds, placement)


def network(
    units: Sequence[int], num_classes: int, image_shape: Shape, kinds: Sequence[str], placement: str
) -> mx.sym.Symbol:
    """A CIFAR ResNet of ``units[i]`` residual units in stage i."""
    scale = Scaling(kinds, placement, units)
    channels = WIDTHS[0]
    x = convolution(input_images(image_shape), image_shape[0], channels, kernel=3, name='conv0')
    x = relu(batch_norm(x, channels, 'bn0'), 'relu0')
    block = 0
    for stage, (count, width) in enumerate(zip(units, WIDTHS), start=1):
        for index in range(1, count + 1):
            x = _unit(x, channels, width, f'stage{stage}_unit{index}', stage, scale, scale.block(block))
            channels, block = width, block + 1
    return classifier(x, num_classes)


def _unit(x, channels_in, channels_out, name, stage, scale, block):
    """Two 3×3 convolutions; a change of width comes with stride 2. λ_block stands behind the last batch normalisation,
    before the sum.
    """
    grows = channels_out != channels_in
    conv1 = convolution(x, channels_in, channels_out, kernel=3, stride=2 if grows else 1, name=f'{name}_conv1')
    act1 = relu(
        batch_norm(conv1, channels_out, f'{name}_bn1', scale.neuron(f'{name}_conv1', channels_out, stage)),
        f'{name}_relu1',
    )
    conv2 = convolution(act1, channels_out, channels_out, kernel=3, name=f'{name}_conv2')
    bn2 = batch_norm(conv2, channels_out, f'{name}_bn2', block)
    shortcut = _widened(x, (channels_out - channels_in) // 2, name) if grows else x
    return relu(bn2 + shortcut, f'{name}_relu2')


def _widened(x, padding, name):
    """Option A: every second pixel of the block input, with ``padding`` channels of zeros on either side."""
    halved = mx.sym.Pooling(x, kernel=(1, 1), stride=(2, 2), pool_type='max', name=f'{name}_sc_half')
    zeros = mx.sym.zeros_like(mx.sym.slice_axis(halved, axis=1, begin=0, end=padding), name=f'{name}_sc_zeros')
    # The factor 1 gives Concat a gradient in plain layout: handed the blocked one of the convolution beside it,
    # oneDNN's Concat backward divides by zero (SIGFPE) because padding channels are not whole blocks.
    return mx.sym.Concat(zeros, halved, zeros, dim=1, name=f'{name}_sc') * 1
