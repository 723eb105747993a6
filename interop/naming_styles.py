"""What the authors, GluonCV and PyTorch's code bases call the same parameter, as rules.

A :class:`Style` is how one code base names one of our families, for those depths where its network is the same one,
layer by layer. What only looks alike has no style: GluonCV's ``cifar_resnet*_v1`` project their shortcuts, its
``cifar_resnet*_v2`` have no bottlenecks, everybody's pre-activation ResNets 18 and 34 lack the authors' projection in
the first stage, and torchvision's ``resnet*`` are post-activation. Strides leave no trace in names and shapes:
pytorchcv's ``preresnet50`` strides in the first convolution of a unit and computes something else, ``preresnet50b`` is
ours.
"""

import re
from dataclasses import dataclass, field
from typing import Callable, Collection, Dict, Optional, Tuple

from symbols import NETWORKS, vgg

from .data_bn import DATA_BN

GLUON_ROLES = {
    'weight': 'weight',
    'bias': 'bias',
    'gamma': 'gamma',
    'beta': 'beta',
    'moving_mean': 'running_mean',
    'moving_var': 'running_var',
}
TORCH_ROLES = {**GLUON_ROLES, 'gamma': 'weight', 'beta': 'bias'}

_PARAMETER = re.compile(f'(.+)_({"|".join(GLUON_ROLES)})')
_IN_UNIT = re.compile(r'stage(\d+)_unit(\d+)_(.+)')


@dataclass(frozen=True, eq=False)
class Style:
    """How one code base names the parameters of one of our families.

    ``outside`` maps the layers outside residual units, ``unit`` gives a unit's name from its stage and number (both
    counted from 1), ``inside`` maps the layers of a unit, those left out keep their names; ``roles`` maps what a
    parameter is to its layer. ``depths`` are those that the code base has too.
    """

    name: str
    network: str
    depths: Tuple[int, ...]
    roles: Dict[str, str]
    outside: Dict[str, str]
    unit: Optional[Callable[[int, int], str]] = None
    inside: Dict[str, str] = field(default_factory=dict)

    def rename(self, name: str) -> Optional[str]:
        """Their name for the authors' parameter or state ``name``; None for what they have no name for, such as λ."""
        parameter = _PARAMETER.fullmatch(name)
        if not parameter:
            return None
        layer = self._layer(parameter.group(1))
        return layer and f'{layer}.{self.roles[parameter.group(2)]}'

    def _layer(self, layer):
        within = _IN_UNIT.fullmatch(layer)
        if not within or not self.unit:
            return self.outside.get(layer)
        stage, unit, part = int(within.group(1)), int(within.group(2)), within.group(3)
        return f'{self.unit(stage, unit)}.{self.inside.get(part, part)}'


class OwnStyle(Style):
    """The authors' names themselves, for files that hold nothing but parameters."""

    def rename(self, name: str) -> Optional[str]:
        return name if _PARAMETER.fullmatch(name) else None


def family_of(names: Collection[str]) -> str:
    """The family whose parameters these are, by the authors' names: also of a network that structures were stripped out
    of.
    """
    if 'conv1_1_weight' in names:
        return 'vgg'
    if 'bn1_gamma' in names:
        return 'resnet'
    return 'resnext' if any(name.endswith('_sc_bn_gamma') for name in names) else 'resnet-v1'


def vgg_features() -> Dict[str, str]:
    """The convolutions and BNs of VGG-16 in a row of layers that counts ReLU and pooling too, as torchvision and
    GluonCV both do.
    """
    places, place = {}, 0
    for stage, count in enumerate(vgg.UNITS[16], start=1):
        for index in range(1, count + 1):
            places[f'conv{stage}_{index}'], places[f'bn{stage}_{index}'] = f'features.{place}', f'features.{place + 1}'
            place += 3
        place += 1
    return places


def _torch_unit(stage, unit):
    return f'layer{stage}.{unit - 1}'


def _pytorchcv_unit(stage, unit):
    return f'features.stage{stage}.unit{unit}'


_IMAGENET_RESNETS = (50, 101, 152)
_TORCH_STEM = {'conv0': 'conv1', 'bn0': 'bn1'}
_BODY = {f'{kind}{number}': f'body.conv{number}.{kind}' for kind in ('conv', 'bn') for number in (1, 2, 3)}
_CONV, _BN = 'features.init_block.conv', 'features.init_block.bn'

STYLES = (
    Style(
        'gluoncv',
        'resnet',
        _IMAGENET_RESNETS,
        GLUON_ROLES,
        {DATA_BN: 'features.0', 'conv0': 'features.1', 'bn0': 'features.2', 'bn1': 'features.9', 'fc1': 'output'},
        lambda stage, unit: f'features.{stage + 4}.{unit - 1}',
        {'sc': 'downsample'},
    ),
    Style(
        'gluoncv',
        'resnext',
        (50, 101),
        GLUON_ROLES,
        {'conv0': 'features.0', 'bn0': 'features.1', 'fc1': 'output'},
        lambda stage, unit: f'features.{stage + 3}.{unit - 1}',
        {
            'conv1': 'body.0',
            'bn1': 'body.1',
            'conv2': 'body.3',
            'bn2': 'body.4',
            'conv3': 'body.6',
            'bn3': 'body.7',
            'sc': 'downsample.0',
            'sc_bn': 'downsample.1',
        },
    ),
    Style(
        'gluoncv',
        'vgg',
        (16,),
        GLUON_ROLES,
        {**vgg_features(), 'fc6': 'features.44', 'fc7': 'features.46', 'fc8': 'output'},
    ),
    Style(
        'torchvision',
        'resnext',
        (50, 101, 20, 164),
        TORCH_ROLES,
        {**_TORCH_STEM, 'fc1': 'fc'},
        _torch_unit,
        {'sc': 'downsample.0', 'sc_bn': 'downsample.1'},
    ),
    # With CIFAR's single classifier it is the VGG of kuangliu/pytorch-cifar, which has torchvision's names.
    Style(
        'torchvision',
        'vgg',
        (16,),
        TORCH_ROLES,
        {**vgg_features(), 'fc6': 'classifier.0', 'fc7': 'classifier.3', 'fc8': 'classifier.6', 'fc1': 'classifier'},
    ),
    Style('akamaster', 'resnet-v1', (20, 32, 44, 56, 110), TORCH_ROLES, {**_TORCH_STEM, 'fc1': 'linear'}, _torch_unit),
    Style(
        'pytorchcv',
        'resnet',
        _IMAGENET_RESNETS,
        TORCH_ROLES,
        {'conv0': _CONV, 'bn0': _BN, 'bn1': 'features.post_activ.bn', 'fc1': 'output'},
        _pytorchcv_unit,
        {**_BODY, 'sc': 'identity_conv'},
    ),
    Style(
        'pytorchcv',
        'resnet',
        (20, 164),
        TORCH_ROLES,
        {'conv0': 'features.init_block', 'bn1': 'features.post_activ.bn', 'fc1': 'output'},
        _pytorchcv_unit,
        {**_BODY, 'sc': 'identity_conv'},
    ),
    Style(
        'pytorchcv',
        'resnext',
        (50, 101),
        TORCH_ROLES,
        {'conv0': f'{_CONV}.conv', 'bn0': f'{_CONV}.bn', 'fc1': 'output'},
        _pytorchcv_unit,
        {**_BODY, 'sc': 'identity_conv.conv', 'sc_bn': 'identity_conv.bn'},
    ),
)

OWN_STYLES = tuple(
    OwnStyle('the authors', network, tuple(family.UNITS), {}, {}) for network, family in NETWORKS.items()
)

# The style in which a family goes to PyTorch where nobody asks for another.
PYTORCH_STYLE = {'resnet': 'pytorchcv', 'resnet-v1': 'akamaster', 'resnext': 'torchvision', 'vgg': 'torchvision'}
