"""Maps that are computed twice: less memory, the same gradients to the bit, and statistics that move once."""

import re

import numpy as np
import pytest
from helpers.mxnet_twin import BATCH, FAMILIES, PLACEMENTS, Pass, random_images, random_params, small_network

from graphs.half import LOSS_SCALE, half
from graphs.memonger import recomputed
from runtime import mx
from symbols import get_symbol
from symbols.layers import relu


def values(symbol, shape):
    parameters, states = random_params(symbol, shape, 'float32')
    images, labels = random_images(shape, 'float32')
    return {
        'data': images,
        'softmax_label': labels,
        **{name: array.asnumpy() for name, array in parameters.items()},
    }, states


def allocated(symbol, **shapes):
    """MiB that a training step takes, by MXNet's own plan."""
    plan = symbol.simple_bind(mx.cpu(), **shapes).debug_str()
    return int(re.search(r'Total (\d+) MB allocated', plan).group(1))


@pytest.mark.parametrize('placement', PLACEMENTS)
@pytest.mark.parametrize('family', FAMILIES)
def test_the_same_step_to_the_bit(family, placement):
    symbol, shape = small_network(family, placement)
    arguments, states = values(symbol, shape)
    plain, again = Pass(symbol, arguments, states), Pass(recomputed(symbol), arguments, states)
    np.testing.assert_array_equal(again.trained, plain.trained)
    for name, gradient in plain.gradients.items():
        np.testing.assert_array_equal(again.gradients[name], gradient, err_msg=name)
    for name, statistic in plain.statistics.items():
        np.testing.assert_array_equal(again.statistics[name], statistic, err_msg=name)
        assert (statistic != states[name].asnumpy()).any()


def test_statistics_move_once():
    """By the rule itself, not only as without recomputation."""
    symbol, shape = small_network('vgg')
    arguments, states = values(symbol, shape)
    internals = symbol.get_internals()
    maps = internals['conv1_1_output']
    (first,) = maps.bind(mx.cpu(), {name: mx.nd.array(arguments[name]) for name in maps.list_arguments()}).forward()
    expected = 0.9 * states['bn1_1_moving_mean'].asnumpy() + 0.1 * first.asnumpy().mean(axis=(0, 2, 3))
    found = Pass(recomputed(symbol), arguments, states).statistics['bn1_1_moving_mean']
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ('network', 'depth', 'share'),
    [('resnet', 20, 0.6), ('resnet', 50, 0.65), ('resnet-v1', 20, 0.6), ('resnext', 20, 0.6), ('vgg', 16, 0.8)],
)
def test_it_takes_less_memory(network, depth, share):
    """Networks of full depth: where there are only two units, one that is computed again is half of all there is to
    keep.
    """
    shape = (3, 64, 64) if depth == 50 else (3, 32, 32)
    symbol = get_symbol(network, depth, 10, shape)
    assert allocated(recomputed(symbol), data=(64, *shape)) < share * allocated(symbol, data=(64, *shape))


def test_half_precision_takes_less_memory_still():
    """The maps that are kept are half as large; the casts are computed again like all else."""
    symbol, shape = small_network('resnet')
    shapes = {'data': (64, *shape), LOSS_SCALE: (64,)}
    kept, again = (
        allocated(made, **shapes)
        for made in (half(symbol, wide_products=True), recomputed(half(symbol, wide_products=True)))
    )
    assert again < 0.7 * kept
    arguments, states = values(symbol, shape)
    arguments = {**arguments, LOSS_SCALE: np.full(BATCH, 256, np.float32)}
    gradients = [
        Pass(made, arguments, states).gradients for made in (half(symbol, True), recomputed(half(symbol, True)))
    ]
    for name, gradient in gradients[0].items():
        np.testing.assert_array_equal(gradients[1][name], gradient, err_msg=name)


def test_dropout_draws_once():
    """It is never repeated, so both passes see the same mask."""
    with mx.name.NameManager():
        hidden = relu(mx.sym.FullyConnected(mx.sym.Variable('data'), num_hidden=64, name='fc1'), 'relu1')
        dropped = mx.sym.Dropout(hidden, p=0.5, name='drop1')
        symbol = mx.sym.SoftmaxOutput(
            mx.sym.FullyConnected(relu(dropped, 'relu2'), num_hidden=10, name='fc2'), name='softmax'
        )
    arguments, states = values(symbol, (3, 4, 4))
    found = []
    for made in (symbol, recomputed(symbol)):
        mx.random.seed(7)
        found.append(Pass(made, arguments, states))
    np.testing.assert_array_equal(found[1].trained, found[0].trained)
    for name, gradient in found[0].gradients.items():
        np.testing.assert_array_equal(found[1].gradients[name], gradient, err_msg=name)
    assert (found[0].gradients['fc2_weight'] == 0).all(axis=0).any(), 'a unit that was dropped for all images'


def test_names_are_those_of_the_network():
    symbol, _ = small_network('resnext')
    marked = recomputed(symbol)
    assert marked.list_arguments() == symbol.list_arguments()
    assert marked.list_auxiliary_states() == symbol.list_auxiliary_states()
