"""Pre-activation ResNet (He et al. 2016), the network of the paper's tables 1 and 2: batch normalisation and ReLU stand
before each convolution.

A residual block computes ``x + λ · F(x)``; with λ = 0 the block is its shortcut (equation 6 of the paper).
"""

from __future__ import annotations

from typing import Callable, Optional, Sequence

from graphs.graph import Shape
from runtime import mx

from .layers import batch_norm, classifier, convolution, imagenet_stem, input_images, relu, small_stem
from .scaling import Factor, Scaling

SCALES = ('block', 'neuron')
PAPER_SCALE = 'block'

# Residual units of each stage.
UNITS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),  # ImageNet
    20: (2, 2, 2),
    164: (18, 18, 18),
}  # CIFAR, 2 + 9 n layers
BASIC = (18, 34)
CIFAR = (20, 164)


def build(
    num_layers: int,
    num_classes: int,
    image_shape: Shape,
    kinds: Sequence[str],
    placement: str,
    stem: Optional[int] = None,
) -> mx.sym.Symbol:
    """The symbol of the ResNet with ``num_layers`` layers, a key of UNITS; ``stem`` is that of ``network``."""
    small = num_layers in CIFAR
    unit = basic_unit if num_layers in BASIC else bottleneck_unit
    widths = (64, 128, 256) if small else (64, 128, 256, 512) if num_layers in BASIC else (256, 512, 1024, 2048)
    return network(UNITS[num_layers], widths, unit, small, num_classes, image_shape, kinds, placement, stem)


def network(
    units: Sequence[int],
    widths: Sequence[int],
    unit: Callable[..., mx.sym.Symbol],
    small: bool,
    num_classes: int,
    image_shape: Shape,
    kinds: Sequence[str],
    placement: str,
    stem: Optional[int] = None,
) -> mx.sym.Symbol:
    """A ResNet of ``units[i]`` residual units with ``widths[i]`` output channels in stage i; ``small`` takes CIFAR's
    stem, a bare 3×3 convolution. A number ``stem`` asks for one of that stride in the place of ImageNet's.
    """
    scale = Scaling(kinds, placement, units)
    data = input_images(image_shape)
    channels = 16 if small else 64
    if small or stem:
        x = small_stem(data, image_shape[0], channels, stride=stem or 1)
    else:
        x = imagenet_stem(data, image_shape[0], channels)
    block = 0
    for stage, (count, width) in enumerate(zip(units, widths), start=1):
        for index in range(1, count + 1):
            stride = 2 if index == 1 and stage > 1 else 1
            x = unit(
                x, channels, width, stride, index == 1, f'stage{stage}_unit{index}', stage, scale, scale.block(block)
            )
            channels, block = width, block + 1
    return classifier(relu(batch_norm(x, channels, 'bn1'), 'relu1'), num_classes)


def bottleneck_unit(
    x: mx.sym.Symbol,
    channels_in: int,
    channels_out: int,
    stride: int,
    project: bool,
    name: str,
    stage: int,
    scale: Scaling,
    block: Sequence[Factor],
) -> mx.sym.Symbol:
    """1×1 to a quarter of the width, 3×3 (which takes the stride), 1×1 back; then + shortcut. A projection reads
    ``relu1``.
    """
    inner = channels_out // 4
    act1 = relu(batch_norm(x, channels_in, f'{name}_bn1'), f'{name}_relu1')
    conv1 = convolution(act1, channels_in, inner, kernel=1, name=f'{name}_conv1')
    act2 = relu(batch_norm(conv1, inner, f'{name}_bn2', scale.neuron(f'{name}_conv1', inner, stage)), f'{name}_relu2')
    conv2 = convolution(act2, inner, inner, kernel=3, stride=stride, name=f'{name}_conv2')
    act3 = relu(batch_norm(conv2, inner, f'{name}_bn3', scale.neuron(f'{name}_conv2', inner, stage)), f'{name}_relu3')
    conv3 = convolution(act3, inner, channels_out, kernel=1, name=f'{name}_conv3', factors=block)
    return conv3 + _shortcut(x, act1, channels_in, channels_out, stride, project, name)


def basic_unit(
    x: mx.sym.Symbol,
    channels_in: int,
    channels_out: int,
    stride: int,
    project: bool,
    name: str,
    stage: int,
    scale: Scaling,
    block: Sequence[Factor],
) -> mx.sym.Symbol:
    """Two 3×3 convolutions, the first of which takes the stride; then + shortcut."""
    act1 = relu(batch_norm(x, channels_in, f'{name}_bn1'), f'{name}_relu1')
    conv1 = convolution(act1, channels_in, channels_out, kernel=3, stride=stride, name=f'{name}_conv1')
    act2 = relu(
        batch_norm(conv1, channels_out, f'{name}_bn2', scale.neuron(f'{name}_conv1', channels_out, stage)),
        f'{name}_relu2',
    )
    conv2 = convolution(act2, channels_out, channels_out, kernel=3, name=f'{name}_conv2', factors=block)
    return conv2 + _shortcut(x, act1, channels_in, channels_out, stride, project, name)


def _shortcut(x, act1, channels_in, channels_out, stride, project, name):
    """The block input, or its projection to the new width: never scaled, so it outlives its block."""
    return convolution(act1, channels_in, channels_out, kernel=1, stride=stride, name=f'{name}_sc') if project else x
