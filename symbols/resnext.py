"""ResNeXt (Xie et al. 2017), post-activation, 32 groups: the network of the paper's tables 3 and 4.

λ_group multiplies the output of each group of the 3×3 convolution, behind its batch normalisation and before the ReLU;
λ_block multiplies the whole branch. ResNeXt-18 and 34 are the authors' too: two 3×3 convolutions without groups.
"""

from __future__ import annotations

from typing import Callable, Optional, Sequence

from graphs.graph import Shape
from runtime import mx

from .layers import batch_norm, classifier, convolution, imagenet_stem, input_images, relu, small_stem
from .scaling import Scaling

SCALES = ('block', 'group', 'neuron')
PAPER_SCALE = 'block,group'

# Residual units of each stage.
UNITS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),  # ImageNet; from 50 on 32×4d
    20: (2, 2, 2),
    164: (18, 18, 18),
}  # CIFAR, 2 + 9 n layers
CIFAR = (20, 164)
BASIC = (18, 34)
# Without grouped convolutions there is no λ_group.
SCALES_OF_DEPTH = dict.fromkeys(BASIC, ('block', 'neuron'))
NUM_GROUP = 32


def build(
    num_layers: int,
    num_classes: int,
    image_shape: Shape,
    kinds: Sequence[str],
    placement: str,
    stem: Optional[int] = None,
) -> mx.sym.Symbol:
    """The symbol of the ResNeXt with ``num_layers`` layers, a key of UNITS; ``stem`` is that of ``network``."""
    small = num_layers in CIFAR
    widths = (64, 128, 256) if small else (256, 512, 1024, 2048)
    unit = _bottleneck_unit
    if num_layers in BASIC:
        widths, unit = (64, 128, 256, 512), _basic_unit
    return network(UNITS[num_layers], widths, NUM_GROUP, small, num_classes, image_shape, kinds, placement, unit, stem)


def network(
    units: Sequence[int],
    widths: Sequence[int],
    num_group: int,
    small: bool,
    num_classes: int,
    image_shape: Shape,
    kinds: Sequence[str],
    placement: str,
    unit: Optional[Callable[..., mx.sym.Symbol]] = None,
    stem: Optional[int] = None,
) -> mx.sym.Symbol:
    """A ResNeXt of ``units[i]`` residual units with ``widths[i]`` output channels in stage i; ``small`` takes CIFAR's
    stem, a 3×3 convolution. ``unit`` is what a unit is made of (default: the bottleneck). In the place of ImageNet's
    stem, a number ``stem`` asks for a 3×3 convolution of that stride.
    """
    scale = Scaling(kinds, placement, units, num_group)
    data = input_images(image_shape)
    channels = 64
    if small or stem:
        x = relu(batch_norm(small_stem(data, image_shape[0], channels, stem or 1), channels, 'bn0'), 'relu0')
    else:
        x = imagenet_stem(data, image_shape[0], channels)
    block = 0
    for stage, (count, width) in enumerate(zip(units, widths), start=1):
        for index in range(1, count + 1):
            stride = 2 if index == 1 and stage > 1 else 1
            name, project = f'stage{stage}_unit{index}', index == 1
            branch = (unit or _bottleneck_unit)(x, channels, width, stride, num_group, name, stage, scale, block)
            x = relu(branch + _shortcut(x, channels, width, stride, project, name), f'{name}_relu')
            channels, block = width, block + 1
    return classifier(x, num_classes)


def _bottleneck_unit(x, channels_in, channels_out, stride, num_group, name, stage, scale, block):
    """1×1 to half of the width, grouped 3×3 (which takes the stride), 1×1 back."""
    inner = channels_out // 2
    conv1 = convolution(x, channels_in, inner, kernel=1, name=f'{name}_conv1')
    act1 = relu(batch_norm(conv1, inner, f'{name}_bn1', scale.neuron(f'{name}_conv1', inner, stage)), f'{name}_relu1')
    conv2 = convolution(act1, inner, inner, kernel=3, stride=stride, num_group=num_group, name=f'{name}_conv2')
    factors = scale.group(block, inner) + scale.neuron(f'{name}_conv2', inner, stage)
    act2 = relu(batch_norm(conv2, inner, f'{name}_bn2', factors), f'{name}_relu2')
    conv3 = convolution(act2, inner, channels_out, kernel=1, name=f'{name}_conv3')
    return batch_norm(conv3, channels_out, f'{name}_bn3', scale.block(block))


def _basic_unit(x, channels_in, channels_out, stride, num_group, name, stage, scale, block):
    """Two 3×3 convolutions, the first takes the stride; ``num_group`` has no use here."""
    conv1 = convolution(x, channels_in, channels_out, kernel=3, stride=stride, name=f'{name}_conv1')
    factors = scale.neuron(f'{name}_conv1', channels_out, stage)
    act1 = relu(batch_norm(conv1, channels_out, f'{name}_bn1', factors), f'{name}_relu1')
    conv2 = convolution(act1, channels_out, channels_out, kernel=3, name=f'{name}_conv2')
    return batch_norm(conv2, channels_out, f'{name}_bn2', scale.block(block))


def _shortcut(x, channels_in, channels_out, stride, project, name):
    """The block input, or its projection to the new width: never scaled, so it outlives its block."""
    if not project:
        return x
    return batch_norm(
        convolution(x, channels_in, channels_out, kernel=1, stride=stride, name=f'{name}_sc'),
        channels_out,
        f'{name}_sc_bn',
    )
