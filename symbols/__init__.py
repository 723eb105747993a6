"""Networks as MXNet symbols, with the scaling factors of Sparse Structure Selection in them. :func:`get_symbol` builds
all of them.
"""

from __future__ import annotations

import re
from typing import Optional, Sequence, Tuple, Union

from graphs.graph import Shape
from runtime import mx
from runtime.cli import did_you_mean
from runtime.errors import UnknownNetworkError

from . import resnet, resnet_v1, resnext, vgg
from .scaling import parse_kinds

NETWORKS = {'resnet': resnet, 'resnet-v1': resnet_v1, 'resnext': resnext, 'vgg': vgg}


def get_symbol(
    network: str,
    num_layers: int,
    num_classes: int,
    image_shape: Union[str, Sequence[int]],
    scale: Optional[str] = None,
    lambda_placement: str = 'weight',
    stem: Optional[int] = None,
) -> mx.sym.Symbol:
    """Build a network whose structures are multiplied by scaling factors.

    Parameters
    ----------
    network : a key of NETWORKS.
    num_layers : depth; each network's module lists the known ones in ``UNITS``.
    num_classes : width of the classifier.
    image_shape : 'channels,height,width' as MXNet's scripts pass it ('3,224,224'), or a tuple.
    scale : what gets a factor, for example 'block,group'; 'none' leaves every λ out of the graph; None is the paper's
    choice for the network. lambda_placement : 'weight' multiplies λ into the parameters beside it (as fast as without
    λ), 'output' into the feature map (as the authors do).
    stem : for networks with ImageNet's stem (``has_imagenet_stem``): 1 or 2 is a 3×3 convolution of that stride in its
    place, for small images; None keeps it.

    Returns
    -------
    mx.sym.Symbol with inputs ``data`` (N, C, H, W) and ``softmax_label`` (N,), whose output are the class probabilities
    (N, num_classes). Names and shapes of arguments and auxiliary states are those of the authors' checkpoints.

    Raises
    ------
    UnknownNetworkError, which lists what is known.
    """
    if stem and not (network in NETWORKS and has_imagenet_stem(network, num_layers)):
        raise UnknownNetworkError(f'{network}-{num_layers} has no ImageNet stem that --stem {stem} could replace')
    if network not in NETWORKS:
        raise UnknownNetworkError(f'unknown network {network!r}; known: {", ".join(NETWORKS)}{_suggestion(network)}')
    family = NETWORKS[network]
    if num_layers not in family.UNITS:
        raise UnknownNetworkError(
            f'{network} has no depth {num_layers}; known: {", ".join(map(str, sorted(family.UNITS)))}'
            + ''.join(f'; {name} has {num_layers}' for name, other in NETWORKS.items() if num_layers in other.UNITS)
        )
    allowed = scales_of(network, num_layers)
    paper = ','.join(kind for kind in family.PAPER_SCALE.split(',') if kind in allowed)
    kinds = parse_kinds(paper if scale is None else scale, allowed, f'{network}-{num_layers}')
    # Names that MXNet gives by counting must not depend on what the process built before.
    with mx.name.NameManager():
        shape, more = parse_image_shape(image_shape), {'stem': stem} if stem else {}
        return family.build(num_layers, num_classes, shape, kinds, lambda_placement, **more)


def _suggestion(name):
    """'; did you mean --network resnet --num-layers 50?' for 'ResNet-50', '' where nothing is near."""
    found = re.match(r'([a-z]+(?:[-_]?v1)?)[-_]?(\d*)', name.lower())
    near = did_you_mean(found.group(1), NETWORKS) if found else ''
    family = near[len('; did you mean ') : -1]
    if not near or not found.group(2) or int(found.group(2)) not in NETWORKS[family].UNITS:
        return near.replace('mean ', 'mean --network ')
    return f'; did you mean --network {family} --num-layers {found.group(2)}?'


def scales_of(network: str, num_layers: int) -> Tuple[str, ...]:
    """The kinds of structures that a network of this depth has, a tuple of keys of ``scaling.KINDS``."""
    family = NETWORKS[network]
    return getattr(family, 'SCALES_OF_DEPTH', {}).get(num_layers, family.SCALES)


def has_imagenet_stem(network: str, num_layers: int) -> bool:
    """Whether a network begins with a 7×7 convolution and a pooling, which small images do not survive."""
    return network in ('resnet', 'resnext') and num_layers not in NETWORKS[network].CIFAR


def parse_image_shape(image_shape: Union[str, Sequence[int]]) -> Shape:
    """(channels, height, width) from '3,224,224' or a tuple; UnknownNetworkError for anything else."""
    try:
        shape = tuple(int(size) for size in (image_shape.split(',') if isinstance(image_shape, str) else image_shape))
    except ValueError:
        shape = ()
    if len(shape) != 3 or min(shape) < 1:
        given = image_shape if isinstance(image_shape, str) else ','.join(map(str, image_shape))
        raise UnknownNetworkError(f"--image-shape {given}: give 'channels,height,width', for example 3,224,224")
    return shape
