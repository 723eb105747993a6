"""The name rules against GluonCV's own networks, and against torchvision's, pytorchcv's and akamaster's names as they
are published.
"""

import numpy as np
import pytest

from interop.gluon_zoo import zoo_network, zoo_structure
from interop.naming_styles import OWN_STYLES, STYLES, family_of
from interop.recognise import expected_shapes, is_bookkeeping, recognise
from runtime import mx
from runtime.errors import CheckpointError, UnknownNetworkError
from symbols import get_symbol

ZOO = {
    ('resnet', 50): 'resnet50_v2',
    ('resnet', 101): 'resnet101_v2',
    ('resnet', 152): 'resnet152_v2',
    ('resnext', 50): 'resnext50_32x4d',
    ('resnext', 101): 'resnext101_32x4d',
    ('vgg', 16): 'vgg16_bn',
}


def zoo_shapes(name, side=224):
    """The shape of every parameter of a GluonCV network, by its name in the structure."""
    block = zoo_network(name)
    block.initialize()
    block.infer_shape(mx.nd.zeros((1, 3, side, side)))
    structure = zoo_structure(block)
    return {
        structure[parameter.name[len(block.prefix) :]]: parameter.shape for parameter in block.collect_params().values()
    }


def own_shapes(network, depth, classes=10, image=(3, 32, 32)):
    return expected_shapes(get_symbol(network, depth, classes, image, scale='none'), image)


def style(name, network, depth):
    return next(style for style in STYLES if (style.name, style.network) == (name, network) and depth in style.depths)


@pytest.mark.parametrize(('network', 'depth'), ZOO)
def test_gluoncvs_network_is_ours_to_the_last_name_and_shape(network, depth):
    match = recognise(zoo_shapes(ZOO[network, depth]))
    assert (match.style.name, match.style.network, match.num_layers, match.num_classes) == (
        'gluoncv',
        network,
        depth,
        1000,
    )
    assert match.problems == []
    assert match.image_shape == (3, 224, 224)


def test_every_style_of_every_depth_names_each_parameter_once_and_is_recognised():
    for some in STYLES + OWN_STYLES:
        for depth in some.depths:
            shapes = own_shapes(some.network, depth, image=(3, 64, 64) if some.rename('fc8_weight') else (3, 32, 32))
            renamed = {some.rename(name): shape for name, shape in shapes.items()}
            assert len(renamed) == len(shapes)
            if 'bn_data' in some.outside:
                renamed.update(
                    (f'features.0.{role}', (3,)) for role in ('gamma', 'beta', 'running_mean', 'running_var')
                )
            match = recognise(renamed)
            assert (match.style, match.num_layers, match.problems) == (some, depth, [])
            assert {own: name for name, own in match.ours.items() if 'data' not in own} == {
                name: some.rename(name) for name in shapes
            }


# Names as the code bases themselves write them down.
PUBLISHED = [
    (
        'torchvision',
        'resnext',
        50,
        {
            'conv0_weight': 'conv1.weight',
            'bn0_moving_var': 'bn1.running_var',
            'stage1_unit1_conv2_weight': 'layer1.0.conv2.weight',
            'stage4_unit3_bn3_beta': 'layer4.2.bn3.bias',
            'stage3_unit1_sc_weight': 'layer3.0.downsample.0.weight',
            'stage3_unit1_sc_bn_gamma': 'layer3.0.downsample.1.weight',
            'fc1_bias': 'fc.bias',
        },
    ),
    (
        'torchvision',
        'vgg',
        16,
        {
            'conv1_1_weight': 'features.0.weight',
            'bn1_1_gamma': 'features.1.weight',
            'conv1_2_bias': 'features.3.bias',
            'conv2_1_weight': 'features.7.weight',
            'conv3_1_weight': 'features.14.weight',
            'conv4_1_weight': 'features.24.weight',
            'conv5_3_weight': 'features.40.weight',
            'bn5_3_moving_mean': 'features.41.running_mean',
            'fc6_weight': 'classifier.0.weight',
            'fc7_bias': 'classifier.3.bias',
            'fc8_weight': 'classifier.6.weight',
        },
    ),
    (
        'akamaster',
        'resnet-v1',
        20,
        {
            'conv0_weight': 'conv1.weight',
            'bn0_gamma': 'bn1.weight',
            'stage1_unit1_conv1_weight': 'layer1.0.conv1.weight',
            'stage3_unit3_bn2_moving_var': 'layer3.2.bn2.running_var',
            'fc1_weight': 'linear.weight',
        },
    ),
    (
        'pytorchcv',
        'resnet',
        50,
        {
            'conv0_weight': 'features.init_block.conv.weight',
            'bn0_beta': 'features.init_block.bn.bias',
            'stage1_unit1_bn1_gamma': 'features.stage1.unit1.body.conv1.bn.weight',
            'stage1_unit1_conv1_weight': 'features.stage1.unit1.body.conv1.conv.weight',
            'stage1_unit1_sc_weight': 'features.stage1.unit1.identity_conv.weight',
            'bn1_moving_mean': 'features.post_activ.bn.running_mean',
            'fc1_weight': 'output.weight',
        },
    ),
    ('pytorchcv', 'resnet', 164, {'conv0_weight': 'features.init_block.weight'}),
    (
        'pytorchcv',
        'resnext',
        50,
        {
            'conv0_weight': 'features.init_block.conv.conv.weight',
            'stage1_unit1_bn3_gamma': 'features.stage1.unit1.body.conv3.bn.weight',
            'stage2_unit1_sc_weight': 'features.stage2.unit1.identity_conv.conv.weight',
            'stage2_unit1_sc_bn_moving_var': 'features.stage2.unit1.identity_conv.bn.running_var',
        },
    ),
]


@pytest.mark.parametrize(('name', 'network', 'depth', 'names'), PUBLISHED)
def test_published_names(name, network, depth, names):
    assert {own: style(name, network, depth).rename(own) for own in names} == names


def test_lambda_and_inputs_have_no_foreign_name():
    assert all(
        some.rename(name) is None
        for some in STYLES
        for name in ('lambda_block', 'lambda_stage1_unit1_conv1', 'data', 'softmax_label')
    )


@pytest.mark.parametrize(
    ('name', 'problem'),
    [
        ('cifar_resnet20_v1', 'features.2.0.body.0.weight (16, 16, 3, 3) is not in it'),
        ('cifar_resnet20_v2', 'features.2.0.conv1.weight (16, 16, 3, 3) is not in it'),
        ('resnet18_v2', 'features.5.0.downsample.weight (256, 64, 1, 1) is missing'),
        ('vgg16', 'features.2.weight (64, 64, 3, 3) is not in it'),
    ],
)
def test_gluoncvs_networks_that_are_not_ours_are_refused(name, problem):
    match = recognise(zoo_shapes(name, 32 if 'cifar' in name else 224))
    assert problem in match.problems
    with pytest.raises(CheckpointError, match='not a network that can be converted') as error:
        match.require_whole(name)
    assert len(str(error.value)) < 1000


def test_whatever_does_not_match_is_reported_with_name_and_shape():
    akamaster = style('akamaster', 'resnet-v1', 20)
    shapes = {akamaster.rename(name): shape for name, shape in own_shapes('resnet-v1', 20).items()}
    del shapes['layer2.1.bn1.bias']
    shapes['layer2.0.downsample.0.weight'] = (32, 16, 1, 1)
    shapes['conv1.weight'] = (16, 3, 5, 5)
    match = recognise(shapes)
    assert match.problems == [
        'layer2.0.downsample.0.weight (32, 16, 1, 1) is not in it',
        'layer2.1.bn1.bias (32,) is missing',
        'conv1.weight has shape (16, 3, 5, 5) instead of (16, 3, 3, 3)',
    ]
    with pytest.raises(
        CheckpointError, match=r'x\.pth.*resnet-v1 20.*layer2\.0\.downsample\.0\.weight \(32, 16, 1, 1\)'
    ):
        match.require_whole('x.pth')


def test_the_same_names_with_other_shapes_are_another_network():
    """torchvision's resnet50 and resnext50_32x4d differ in nothing but shapes."""
    torchvision = style('torchvision', 'resnext', 50)
    shapes = {torchvision.rename(name): shape for name, shape in own_shapes('resnext', 50).items()}
    shapes['layer1.0.conv2.weight'] = (64, 64, 3, 3)
    with pytest.raises(
        CheckpointError, match=r'layer1\.0\.conv2\.weight has shape \(64, 64, 3, 3\) instead of \(128, 4, 3, 3\)'
    ):
        recognise(shapes).require_whole('resnet50.pth')


def test_family_and_depth_narrow_the_choice():
    torchvision = style('torchvision', 'resnext', 50)
    shapes = {torchvision.rename(name): shape for name, shape in own_shapes('resnext', 50).items()}
    assert recognise(shapes, 'resnext').num_layers == 50
    assert recognise(shapes, 'resnext', 101).problems
    with pytest.raises(CheckpointError, match='not those of resnext 29'):
        recognise(shapes, 'resnext', 29)


def test_names_of_nobody():
    with pytest.raises(CheckpointError, match='not those of any network we know: encoder.weight'):
        recognise({'encoder.weight': (3, 3)})


def test_batch_counters_are_ignored():
    akamaster = style('akamaster', 'resnet-v1', 20)
    shapes = {akamaster.rename(name): shape for name, shape in own_shapes('resnet-v1', 20).items()}
    assert recognise({**shapes, 'bn1.num_batches_tracked': ()}).problems == []
    assert is_bookkeeping('layer1.0.bn1.num_batches_tracked')
    assert not is_bookkeeping('layer1.0.bn1.weight')


@pytest.mark.parametrize(
    ('network', 'depth'), [('resnet', 18), ('resnet', 20), ('resnet-v1', 20), ('resnext', 20), ('vgg', 16)]
)
def test_the_family_shows_in_the_authors_names(network, depth):
    assert family_of(own_shapes(network, depth)) == network


def test_a_network_that_gluoncv_does_not_have():
    with pytest.raises(UnknownNetworkError, match="no network 'resnet51_v2'"):
        zoo_network('resnet51_v2')


def test_vgg_says_its_image_size_in_its_first_fully_connected_layer():
    gluoncv = style('gluoncv', 'vgg', 16)
    image = (1, 96, 96)
    shapes = expected_shapes(get_symbol('vgg', 16, 5, image, scale='none'), image)
    match = recognise({gluoncv.rename(name): shape for name, shape in shapes.items()})
    assert (match.image_shape, match.num_classes, match.problems) == (image, 5, [])
    assert np.prod(shapes['fc6_weight']) == 512 * 3 * 3 * 4096
