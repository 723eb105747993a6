"""The layers that every family is built of, named as in the authors' checkpoints. Feature maps are (N, C, H, W)."""

from __future__ import annotations

from typing import Dict, Sequence, Tuple

from graphs.graph import Shape
from runtime import mx

from .scaling import Factor, scaled

BATCH_NORM = {'fix_gamma': False, 'eps': 1e-5, 'momentum': 0.9}


def input_images(image_shape: Shape) -> mx.sym.Symbol:
    """The variable ``data``; a saved symbol tells by its attribute ``__image_shape__`` which images,
    'channels,height,width', it was made for.
    """
    return mx.sym.Variable('data', attr={'__image_shape__': ','.join(map(str, image_shape))})


def convolution(
    data: mx.sym.Symbol,
    channels_in: int,
    channels_out: int,
    kernel: int,
    name: str,
    stride: int = 1,
    num_group: int = 1,
    bias: bool = False,
    factors: Sequence[Factor] = (),
) -> mx.sym.Symbol:
    """A square convolution that keeps the size of the map, but for its stride."""

    def layer(**parameters):
        return mx.sym.Convolution(
            data,
            name=name,
            num_filter=channels_out,
            kernel=(kernel, kernel),
            stride=(stride, stride),
            pad=(kernel // 2, kernel // 2),
            num_group=num_group,
            no_bias=not bias,
            workspace=512,
            **parameters,
        )

    parameters: Dict[str, Tuple[str, Shape]] = {
        'weight': (f'{name}_weight', (channels_out, channels_in // num_group, kernel, kernel))
    }
    if bias:
        parameters['bias'] = (f'{name}_bias', (channels_out,))
    return scaled(layer, factors, **parameters)


def batch_norm(data: mx.sym.Symbol, channels: int, name: str, factors: Sequence[Factor] = ()) -> mx.sym.Symbol:
    """Batch normalisation with a learned γ and β."""

    def layer(**parameters):
        return mx.sym.BatchNorm(data, name=name, **BATCH_NORM, **parameters)

    return scaled(layer, factors, gamma=(f'{name}_gamma', (channels,)), beta=(f'{name}_beta', (channels,)))


def relu(data: mx.sym.Symbol, name: str) -> mx.sym.Symbol:
    """max(x, 0)."""
    return mx.sym.Activation(data, act_type='relu', name=name)


def imagenet_stem(data: mx.sym.Symbol, channels_in: int, channels: int) -> mx.sym.Symbol:
    """7×7 convolution and 3×3 max pooling, each of stride 2: (N, 3, 224, 224) → (N, 64, 56, 56)."""
    x = convolution(data, channels_in, channels, kernel=7, stride=2, name='conv0')
    x = relu(batch_norm(x, channels, 'bn0'), 'relu0')
    return mx.sym.Pooling(x, kernel=(3, 3), stride=(2, 2), pad=(1, 1), pool_type='max', name='pooling0')


def small_stem(data: mx.sym.Symbol, channels_in: int, channels: int, stride: int) -> mx.sym.Symbol:
    """One 3×3 convolution, for images that would leave nothing to see behind ImageNet's stem."""
    return convolution(data, channels_in, channels, kernel=3, stride=stride, name='conv0')


def classifier(features: mx.sym.Symbol, num_classes: int) -> mx.sym.Symbol:
    """Global average pooling, one fully connected layer, and the softmax loss whose label is ``softmax_label``."""
    pooled = mx.sym.Pooling(features, global_pool=True, kernel=(7, 7), pool_type='avg', name='pool1')
    logits = mx.sym.FullyConnected(mx.sym.Flatten(pooled, name='flatten'), num_hidden=num_classes, name='fc1')
    return mx.sym.SoftmaxOutput(logits, name='softmax')
