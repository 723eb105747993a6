"""VGG-16 with batch normalisation (Simonyan & Zisserman 2015): the paper selects its neurons, the channels of its
thirteen convolutions.
"""

from __future__ import annotations

from typing import Sequence

from graphs.graph import Shape
from runtime import mx

from .layers import batch_norm, classifier, convolution, input_images, relu
from .scaling import Scaling

SCALES = ('neuron',)
PAPER_SCALE = 'neuron'

# Convolutions of each stage; every stage ends in a pooling that halves the map.
UNITS = {16: (2, 2, 3, 3, 3)}
WIDTHS = (64, 128, 256, 512, 512)
# Maps of images below this height are 1×1 behind the last stage, and the three fully connected layers become a single
# classifier.
IMAGENET_HEIGHT = 64


def build(num_layers: int, num_classes: int, image_shape: Shape, kinds: Sequence[str], placement: str) -> mx.sym.Symbol:
    """The symbol of VGG-16 for ImageNet (with its fully connected layers) or, for images lower than IMAGENET_HEIGHT,
    for CIFAR.
    """
    return network(
        UNITS[num_layers], WIDTHS, image_shape[1] < IMAGENET_HEIGHT, num_classes, image_shape, kinds, placement
    )


def network(
    units: Sequence[int],
    widths: Sequence[int],
    small: bool,
    num_classes: int,
    image_shape: Shape,
    kinds: Sequence[str],
    placement: str,
) -> mx.sym.Symbol:
    """A VGG of ``units[i]`` convolutions with ``widths[i]`` channels in stage i."""
    scale = Scaling(kinds, placement)
    x, channels = input_images(image_shape), image_shape[0]
    for stage, (count, width) in enumerate(zip(units, widths), start=1):
        for index in range(1, count + 1):
            x, channels = _layer(x, channels, width, f'{stage}_{index}', stage, scale), width
        x = mx.sym.Pooling(x, kernel=(2, 2), stride=(2, 2), pool_type='max', name=f'pool{stage}')
    return classifier(x, num_classes) if small else _imagenet_classifier(x, num_classes)


def _layer(x, channels_in, channels_out, number, stage, scale):
    """3×3 convolution, batch normalisation times λ_conv, ReLU."""
    conv = convolution(x, channels_in, channels_out, kernel=3, bias=True, name=f'conv{number}')
    return relu(
        batch_norm(conv, channels_out, f'bn{number}', scale.neuron(f'conv{number}', channels_out, stage)),
        f'relu{number}',
    )


def _imagenet_classifier(x, num_classes):
    """Two fully connected layers of 4096 with dropout, the classifier, and the softmax loss whose label is
    ``softmax_label``.
    """
    x = mx.sym.Flatten(x, name='flatten')
    for number in (6, 7):
        x = relu(mx.sym.FullyConnected(x, num_hidden=4096, name=f'fc{number}'), f'relu{number}')
        x = mx.sym.Dropout(x, p=0.5, name=f'drop{number}')
    return mx.sym.SoftmaxOutput(mx.sym.FullyConnected(x, num_hidden=num_classes, name='fc8'), name='softmax')
