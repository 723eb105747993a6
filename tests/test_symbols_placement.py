"""λ in the parameters and λ on the feature map are the same network: outputs and every gradient, in float64."""

import numpy as np
import pytest
from helpers.training_step import drawn_values, ran

from symbols import get_symbol, resnet, resnext

CIFAR = (3, 32, 32)
TOLERANCE = 1e-10


def assert_the_same_network(build, image=CIFAR, batch=4, seed=0):
    twins = {placement: build(placement) for placement in ('weight', 'output')}
    values = drawn_values(twins['output'], image, seed)
    generator = np.random.default_rng(seed + 1)
    images, labels = generator.standard_normal((batch, *image)), generator.integers(0, 10, batch)
    folded, authors = (ran(symbol, values, images, labels) for symbol in twins.values())
    assert np.abs(folded[0] - authors[0]).max() < TOLERANCE
    assert folded[1].keys() == authors[1].keys() == values.keys()
    # The bias of a convolution before BN has gradient 0 up to rounding, so the measure is the largest gradient of all.
    largest = max(np.abs(gradient).max() for gradient in authors[1].values())
    assert largest > 1e-3
    worst = {name: np.abs(folded[1][name] - gradient).max() / largest for name, gradient in authors[1].items()}
    assert max(worst.values()) < TOLERANCE, max(worst, key=worst.get)
    assert any(np.abs(authors[1][name]).max() > 1e-6 * largest for name in values if 'lambda' in name)


@pytest.mark.parametrize(
    ('network', 'depth', 'scale'),
    [
        ('resnet', 20, 'block'),
        ('resnet', 20, 'neuron'),
        ('resnet', 20, 'block,neuron'),
        ('resnet', 18, 'block,neuron'),
        ('resnet-v1', 20, 'block'),
        ('resnet-v1', 20, 'neuron'),
        ('resnet-v1', 20, 'block,neuron'),
        ('resnext', 20, 'block'),
        ('resnext', 20, 'group'),
        ('resnext', 20, 'neuron'),
        ('resnext', 20, 'block,group'),
        ('resnext', 20, 'block,group,neuron'),
        ('vgg', 16, 'neuron'),
    ],
)
def test_both_placements_agree_in_outputs_and_all_gradients(network, depth, scale):
    image = (3, 16, 16) if network != 'vgg' else CIFAR
    assert_the_same_network(lambda placement: get_symbol(network, depth, 10, image, scale, placement), image)


@pytest.mark.parametrize(
    ('family', 'kinds', 'arguments'),
    [
        (resnet, ('block', 'neuron'), ((1, 1), (64, 128), resnet.bottleneck_unit, False)),
        (resnext, ('block', 'group', 'neuron'), ((1, 1), (64, 128), 8, False)),
    ],
    ids=['resnet', 'resnext'],
)
def test_both_placements_agree_behind_the_imagenet_stem(family, kinds, arguments):
    image = (3, 32, 32)
    assert_the_same_network(lambda placement: family.network(*arguments, 10, image, kinds, placement), image)


@pytest.mark.parametrize('placement', ['weight', 'output'])
def test_a_dead_group_stays_dead_because_relu_passes_nothing_back(placement):
    symbol = get_symbol('resnext', 20, 10, (3, 16, 16), 'group', placement)
    values = drawn_values(symbol, (3, 16, 16), seed=3)
    dead = values['lambda_group'] == 0
    generator = np.random.default_rng(4)
    _, gradients = ran(symbol, values, generator.standard_normal((4, 3, 16, 16)), generator.integers(0, 10, 4))
    assert dead.any()
    assert not gradients['lambda_group'][dead].any()
    assert gradients['lambda_group'][~dead].any()


@pytest.mark.parametrize('placement', ['weight', 'output'])
def test_a_dead_block_is_its_shortcut(placement):
    """Equation 6 of the paper: with λ = 0 the parameters of the branch have no say, and those of the projection do."""
    symbol = get_symbol('resnet', 20, 10, (3, 16, 16), 'block', placement)
    values = drawn_values(symbol, (3, 16, 16), seed=5)
    values['lambda_block'][:] = [1, 1, 0, 1, 1, 1]
    generator = np.random.default_rng(6)
    images, labels = generator.standard_normal((4, 3, 16, 16)), generator.integers(0, 10, 4)
    before, gradients = ran(symbol, values, images, labels)
    changed = {
        name: value + 1
        if name.startswith('stage2_unit1_') and not name.startswith(('stage2_unit1_bn1', 'stage2_unit1_sc'))
        else value
        for name, value in values.items()
    }
    after, _ = ran(symbol, changed, images, labels)
    assert np.array_equal(before, after)
    assert gradients['stage2_unit1_sc_weight'].any()
    assert not gradients['stage2_unit1_conv3_weight'].any()
    assert gradients['lambda_block'][2] != 0


@pytest.mark.parametrize('placement', ['weight', 'output'])
@pytest.mark.parametrize('network', ['resnet', 'resnet-v1', 'resnext', 'vgg'])
def test_lambda_at_one_is_the_network_without_lambda(network, placement):
    depth = 16 if network == 'vgg' else 20
    plain, scaled = (get_symbol(network, depth, 10, CIFAR, scale, placement) for scale in ('none', None))
    values = drawn_values(scaled, CIFAR, seed=7)
    values.update({name: np.ones_like(value) for name, value in values.items() if 'lambda' in name})
    generator = np.random.default_rng(8)
    images, labels = generator.standard_normal((2, *CIFAR)), generator.integers(0, 10, 2)
    bare = {name: value for name, value in values.items() if 'lambda' not in name}
    assert np.abs(ran(plain, bare, images, labels)[0] - ran(scaled, values, images, labels)[0]).max() < TOLERANCE
