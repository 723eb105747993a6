"""Every network against arithmetic done by hand, published counts, and the names and shapes of the authors'
checkpoints.
"""

from collections import Counter

import pytest

from graphs.complexity import complexity
from graphs.lambdas import lambda_layout
from runtime.errors import UnknownNetworkError
from symbols import NETWORKS, get_symbol

CIFAR, IMAGENET = (3, 32, 32), (3, 224, 224)
SHAPES = {
    ('resnet', 20): CIFAR,
    ('resnet', 164): CIFAR,
    ('resnext', 20): CIFAR,
    ('resnext', 164): CIFAR,
    ('vgg', 16): IMAGENET,
}
EVERY_NETWORK = [
    (network, depth, SHAPES.get((network, depth), CIFAR if network == 'resnet-v1' else IMAGENET))
    for network, family in NETWORKS.items()
    for depth in family.UNITS
] + [('vgg', 16, CIFAR)]


class Tally:
    """Adds up a network layer by layer, from the text-book formulas."""

    def __init__(self, side):
        self.side, self.weights, self.biases, self.bn, self.macs = side, 0, 0, 0, 0

    def conv(self, channels_in, channels_out, kernel, stride=1, groups=1, bias=False):
        self.side = (self.side - 1) // stride + 1
        weights = channels_in // groups * channels_out * kernel**2
        self.weights += weights
        self.biases += channels_out if bias else 0
        self.macs += weights * self.side**2

    def norm(self, channels):
        self.bn += 2 * channels

    def dense(self, inputs, outputs):
        self.weights += inputs * outputs
        self.biases += outputs
        self.macs += inputs * outputs

    def shortcut(self, channels_in, channels_out, stride):
        """A 1×1 projection, which works beside the branch: the side of the map is the branch's business."""
        side = (self.side - 1) // stride + 1
        self.weights += channels_in * channels_out
        self.macs += channels_in * channels_out * side**2


UNITS = {
    18: [2, 2, 2, 2],
    34: [3, 4, 6, 3],
    50: [3, 4, 6, 3],
    101: [3, 4, 23, 3],
    152: [3, 8, 36, 3],
    20: [2, 2, 2],
    164: [18, 18, 18],
}


def count_resnet(tally, depth, classes):
    basic, small = depth in (18, 34), depth in (20, 164)
    channels = stem(tally, small, 16 if small else 64, normalised=not small)
    first = 64 if small or basic else 256
    for stage, count in enumerate(UNITS[depth]):
        width = first * 2**stage
        for unit in range(count):
            stride = 2 if unit == 0 and stage > 0 else 1
            tally.norm(channels)
            if unit == 0:
                tally.shortcut(channels, width, stride)
            if basic:
                tally.conv(channels, width, 3, stride)
                tally.norm(width)
                tally.conv(width, width, 3)
            else:
                tally.conv(channels, width // 4, 1)
                tally.norm(width // 4)
                tally.conv(width // 4, width // 4, 3, stride)
                tally.norm(width // 4)
                tally.conv(width // 4, width, 1)
            channels = width
    tally.norm(channels)
    tally.dense(channels, classes)


def count_resnet_v1(tally, depth, classes):
    channels = stem(tally, True, 16)
    for width in (16, 32, 64):
        for _ in range((depth - 2) // 6):
            tally.conv(channels, width, 3, 1 if channels == width else 2)
            tally.conv(width, width, 3)
            tally.norm(2 * width)
            channels = width
    tally.dense(channels, classes)


def count_resnext(tally, depth, classes):
    small, basic = depth in (20, 164), depth in (18, 34)
    channels = stem(tally, small, 64)
    for stage, count in enumerate(UNITS[depth]):
        width = (64 if small or basic else 256) * 2**stage
        for unit in range(count):
            stride = 2 if unit == 0 and stage > 0 else 1
            if unit == 0:
                tally.shortcut(channels, width, stride)
                tally.norm(width)
            if basic:
                tally.conv(channels, width, 3, stride)
                tally.conv(width, width, 3)
                tally.norm(2 * width)
            else:
                tally.conv(channels, width // 2, 1)
                tally.conv(width // 2, width // 2, 3, stride, groups=32)
                tally.conv(width // 2, width, 1)
                tally.norm(2 * (width // 2) + width)
            channels = width
    tally.dense(channels, classes)


def count_vgg(tally, depth, classes):
    assert depth == 16
    small, channels = tally.side < 64, 3
    for count, width in zip((2, 2, 3, 3, 3), (64, 128, 256, 512, 512)):
        for _ in range(count):
            tally.conv(channels, width, 3, bias=True)
            tally.norm(width)
            channels = width
        tally.side //= 2
    if not small:
        tally.dense(channels * tally.side**2, 4096)
        tally.dense(4096, 4096)
    tally.dense(channels if small else 4096, classes)


def stem(tally, small, channels, normalised=True):
    tally.conv(3, channels, 3 if small else 7, 1 if small else 2)
    if normalised:
        tally.norm(channels)
    if not small:
        tally.side //= 2
    return channels


BY_HAND = {'resnet': count_resnet, 'resnet-v1': count_resnet_v1, 'resnext': count_resnext, 'vgg': count_vgg}


@pytest.mark.parametrize(('network', 'depth', 'image'), EVERY_NETWORK)
def test_every_network_has_the_size_and_cost_counted_by_hand(network, depth, image):
    found = complexity(get_symbol(network, depth, 37, image), {'data': (1, *image)})
    tally = Tally(image[1])
    BY_HAND[network](tally, depth, 37)
    assert found.params_without_bn == tally.weights + tally.biases
    assert found.params == tally.weights + tally.biases + tally.bn
    assert found.macs == tally.macs


@pytest.mark.parametrize(
    ('depth', 'params'), [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962)]
)
def test_resnet_v1_has_the_parameters_of_the_option_a_networks_in_pytorch(depth, params):
    assert complexity(get_symbol('resnet-v1', depth, 10, CIFAR), {'data': (1, *CIFAR)}).params == params


# Units that outlive selection, stage by stage, as paper.md and the published counts have them: (parameters without BN,
# MACs).
KEPT = [
    ('resnet', 50, 1000, IMAGENET, [[], range(1, 5), range(1, 7), range(1, 4)], '25.307', '3.4726'),  # ResNet-41
    ('resnet', 50, 1000, IMAGENET, [[], range(1, 5), range(1, 5), range(1, 3)], '18.623', '2.8175'),  # ResNet-32
    ('resnet', 50, 1000, IMAGENET, [[], [2], range(1, 7), [1]], '15.592', '2.3294'),  # ResNet-26
]


@pytest.mark.parametrize(('network', 'depth', 'classes', 'image', 'kept', 'params', 'macs'), KEPT)
def test_published_structures_of_resnet_50_come_out_to_every_digit(network, depth, classes, image, kept, params, macs):
    found = kept_counts(complexity(get_symbol(network, depth, classes, image), {'data': (1, *image)}), kept)
    assert (f'{found[0] / 1e6:.3f}', f'{found[1] / 1e9:.4f}') == (params, macs)


@pytest.mark.parametrize(
    ('classes', 'kept', 'macs', 'params'),
    [
        (10, [range(16, 19), range(1, 8), range(1, 19)], '53.530', '84.753'),
        (100, [range(17, 19), range(1, 10), range(1, 19)], '55.334', '86.750'),
    ],
)
def test_published_ratios_of_resnet_164_come_out_to_every_digit(classes, kept, macs, params):
    full = complexity(get_symbol('resnet', 164, classes, CIFAR), {'data': (1, *CIFAR)})
    found = kept_counts(full, kept)
    assert (f'{100 * found[1] / full.macs:.3f}', f'{100 * found[0] / full.params_without_bn:.3f}') == (macs, params)


def kept_counts(found, kept):
    """(parameters without BN, MACs) of the layers outside units, in the units ``kept[stage - 1]``, and of all
    projections, which nothing removes.
    """

    def stays(layer):
        if layer.name.endswith('_sc') or not layer.name.startswith('stage'):
            return True
        stage, unit = (int(part[5 if part.startswith('stage') else 4 :]) for part in layer.name.split('_')[:2])
        return unit in kept[stage - 1]

    layers = [layer for layer in found.layers if stays(layer) and layer.op != 'BatchNorm']
    return sum(layer.params for layer in layers), sum(layer.macs for layer in layers)


def shapes_of(symbol, image):
    arguments, _, states = symbol.infer_shape(data=(2, *image))
    return dict(zip(symbol.list_arguments(), arguments)), dict(zip(symbol.list_auxiliary_states(), states))


def bn_shapes(name, channels):
    return {f'{name}_gamma': (channels,), f'{name}_beta': (channels,)}, {
        f'{name}_moving_mean': (channels,),
        f'{name}_moving_var': (channels,),
    }


def authors_names(units, stem_channels, widths, classes, unit_of, stem_bn, last_bn):
    """(arguments, states) as name → shape, of a residual network of the authors: ``unit_of`` gives a unit's
    convolutions and BNs.
    """
    arguments = {
        'data': (2, 3, 224, 224),
        'softmax_label': (2,),
        'conv0_weight': (stem_channels, 3, 7, 7),
        'fc1_weight': (classes, widths[-1]),
        'fc1_bias': (classes,),
    }
    norms, channels = {}, stem_channels
    if stem_bn:
        norms['bn0'] = stem_channels
    if last_bn:
        norms['bn1'] = widths[-1]
    for stage, (count, width) in enumerate(zip(units, widths), start=1):
        for unit in range(1, count + 1):
            convs, bns = unit_of(channels, width, unit == 1)
            arguments.update({f'stage{stage}_unit{unit}_{name}_weight': shape for name, shape in convs.items()})
            norms.update({f'stage{stage}_unit{unit}_{name}': size for name, size in bns.items()})
            channels = width
    states = {}
    for name, size in norms.items():
        learned, moving = bn_shapes(name, size)
        arguments.update(learned)
        states.update(moving)
    return arguments, states


def preactivation_unit(channels, width, first):
    inner = width // 4
    convs = {'conv1': (inner, channels, 1, 1), 'conv2': (inner, inner, 3, 3), 'conv3': (width, inner, 1, 1)}
    if first:
        convs['sc'] = (width, channels, 1, 1)
    return convs, {'bn1': channels, 'bn2': inner, 'bn3': inner}


def resnext_unit(channels, width, first):
    inner = width // 2
    convs = {'conv1': (inner, channels, 1, 1), 'conv2': (inner, inner // 32, 3, 3), 'conv3': (width, inner, 1, 1)}
    bns = {'bn1': inner, 'bn2': inner, 'bn3': width}
    if first:
        convs['sc'], bns['sc_bn'] = (width, channels, 1, 1), width
    return convs, bns


@pytest.mark.parametrize('placement', ['weight', 'output'])
@pytest.mark.parametrize(
    ('network', 'unit_of', 'last_bn', 'lambdas'),
    [
        ('resnet', preactivation_unit, True, {'lambda_block': (16,)}),
        ('resnext', resnext_unit, False, {'lambda_block': (16,), 'lambda_group': (16, 32)}),
    ],
)
def test_names_and_shapes_are_those_of_the_authors(network, unit_of, last_bn, lambdas, placement):
    arguments, states = authors_names(
        (3, 4, 6, 3), 64, (256, 512, 1024, 2048), 1000, unit_of, stem_bn=True, last_bn=last_bn
    )
    symbol = get_symbol(network, 50, 1000, '3,224,224', lambda_placement=placement)
    assert shapes_of(symbol, IMAGENET) == ({**arguments, **lambdas}, states)


def test_each_depth_of_a_family_has_its_own_number_of_blocks():
    blocks = {
        (network, depth): shapes_of(get_symbol(network, depth, 10, image, scale='block'), image)[0]['lambda_block']
        for network, depth, image in EVERY_NETWORK
        if network != 'vgg'
    }
    assert blocks == {
        ('resnet', 18): (8,),
        ('resnet', 34): (16,),
        ('resnet', 50): (16,),
        ('resnet', 101): (33,),
        ('resnet', 152): (50,),
        ('resnet', 20): (6,),
        ('resnet', 164): (54,),
        ('resnet-v1', 20): (9,),
        ('resnet-v1', 32): (15,),
        ('resnet-v1', 44): (21,),
        ('resnet-v1', 56): (27,),
        ('resnet-v1', 110): (54,),
        ('resnext', 18): (8,),
        ('resnext', 34): (16,),
        ('resnext', 50): (16,),
        ('resnext', 101): (33,),
        ('resnext', 152): (50,),
        ('resnext', 20): (6,),
        ('resnext', 164): (54,),
    }


@pytest.mark.parametrize('depth', [18, 34])
def test_a_resnext_without_grouped_convolutions_has_blocks_only(depth):
    arguments, _ = shapes_of(get_symbol('resnext', depth, 10, IMAGENET), IMAGENET)
    assert [name for name in arguments if 'lambda' in name] == ['lambda_block']
    assert arguments['stage2_unit1_conv1_weight'] == (128, 64, 3, 3)
    with pytest.raises(UnknownNetworkError, match=f'resnext-{depth} has no such structure'):
        get_symbol('resnext', depth, 10, IMAGENET, scale='group')


def test_batch_normalisation_is_set_as_the_authors_set_it():
    attributes = get_symbol('resnext', 20, 10, CIFAR).attr_dict()
    bns = [attributes[name[: -len('_gamma')]] for name in attributes if name.endswith('_gamma')]
    settings = Counter((bn['fix_gamma'], float(bn['eps']), float(bn['momentum'])) for bn in bns)
    assert settings == {('False', 1e-5, 0.9): 1 + 6 * 3 + 3}


def test_layout_names_the_stage_of_every_lambda():
    layout = {
        vector.name: vector
        for vector in lambda_layout(get_symbol('resnext', 20, 10, CIFAR, scale='block,group,neuron'))
    }
    assert layout['lambda_block'][1:] == ('block', (1, 1, 2, 2, 3, 3))
    assert layout['lambda_group'][1:] == ('group', (1, 1, 2, 2, 3, 3))
    assert layout['lambda_stage2_unit1_conv2'][1:] == ('neuron', (2,))
    assert len(layout) == 2 + 6 * 2
