"""Half precision, as a graph: what is float16 and what never is, and that its numbers are rounded where they should be
and nowhere else.
"""

import numpy as np
import pytest
from helpers.mxnet_twin import BATCH, FAMILIES, PLACEMENTS, Pass, random_images, random_params, small_network

from graphs.graph import Graph
from graphs.half import LOSS_SCALE, half
from runtime import mx
from runtime.errors import GraphError
from symbols.layers import batch_norm, classifier, convolution, input_images, relu

HALF, SINGLE = np.float16, np.float32


def types_of(symbol):
    """Dict from the name of every value of the graph to its type."""
    internals = symbol.get_internals()
    _, types, _ = internals.infer_type(data='float32')
    return dict(zip(internals.list_outputs(), types))


def called(symbol, *operators):
    """The names of the outputs of all nodes of these operators."""
    return [f'{node.name}_output' for node in Graph.from_symbol(symbol).nodes() if node.op in operators]


def values(symbol, image_shape):
    """(arguments, states) of a network, as ``Pass`` takes them."""
    parameters, states = random_params(symbol, image_shape, 'float32')
    images, labels = random_images(image_shape, 'float32')
    return {
        'data': images,
        'softmax_label': labels,
        **{name: array.asnumpy() for name, array in parameters.items()},
    }, states


@pytest.mark.parametrize('placement', PLACEMENTS)
@pytest.mark.parametrize('family', FAMILIES)
def test_what_is_half_and_what_never_is(family, placement):
    symbol, shape = small_network(family, placement)
    halved = half(symbol)
    assert set(halved.list_arguments()) == {*symbol.list_arguments(), LOSS_SCALE}
    assert halved.list_auxiliary_states() == symbol.list_auxiliary_states()
    assert halved.list_outputs() == symbol.list_outputs()
    types = types_of(halved)
    assert {
        types[name] for name in [*symbol.list_arguments(), *symbol.list_auxiliary_states()] if name != 'softmax_label'
    } == {SINGLE}
    assert {types[name] for name in called(symbol, 'SoftmaxOutput')} == {SINGLE}
    products = called(symbol, 'Convolution', 'FullyConnected')
    assert len(products) > 3
    assert {types[name] for name in products} == {HALF}
    for_lambda = called(symbol, 'dot', 'elemwise_mul', 'broadcast_mul', 'repeat')
    assert for_lambda
    assert {types[name] for name in for_lambda} == {SINGLE}, 'λ is rounded before it multiplies'
    maps = [types[name] == HALF for name in called(symbol, 'BatchNorm', 'Activation')]
    assert all(maps) if placement == 'weight' else sum(maps) >= len(maps) / 2


def test_shapes_and_initialisation_are_those_of_the_parameters():
    symbol, shape = small_network('resnext')
    halved = half(symbol)
    expected = dict(zip(symbol.list_arguments(), symbol.infer_shape(data=(BATCH, *shape))[0]))
    found = dict(zip(halved.list_arguments(), halved.infer_shape(data=(BATCH, *shape), **{LOSS_SCALE: (BATCH,)})[0]))
    assert {name: found[name] for name in expected} == expected
    assert halved.attr_dict()['lambda_block']['__init__'] == symbol.attr_dict()['lambda_block']['__init__']


def test_lambda_times_weight_is_formed_in_single_precision_and_rounded_once():
    symbol, shape = small_network('resnet', kinds=('block',))
    parameters, _ = random_params(symbol, shape, 'float32')
    graph = Graph.from_symbol(half(symbol))
    convolution = next(node for node in graph.nodes() if node.name == 'stage1_unit1_conv3')
    rounded = Graph(convolution.inputs[1:]).to_symbol()
    (found,) = rounded.bind(mx.cpu(), {name: parameters[name] for name in rounded.list_arguments()}).forward()
    factor, weight = parameters['lambda_block'].asnumpy()[0], parameters['stage1_unit1_conv3_weight'].asnumpy()
    assert found.dtype == HALF
    np.testing.assert_array_equal(found.asnumpy(), (factor * weight).astype(HALF))
    assert ((factor.astype(HALF) * weight.astype(HALF)) != found.asnumpy()).mean() > 0.1, (
        'the order of rounding must matter'
    )


def test_a_product_sums_in_single_precision_what_was_rounded():
    with mx.name.NameManager():
        symbol = classifier(
            relu(batch_norm(convolution(input_images((3, 8, 8)), 3, 8, 3, 'conv0'), 8, 'bn0'), 'relu0'), 10
        )
    parameters, states = random_params(symbol, (3, 8, 8), 'float32')
    images, _ = random_images((3, 8, 8), 'float32')
    internals = half(symbol, wide_products=True).get_internals()
    product = internals['conv0_float16_output']
    (found,) = product.bind(
        mx.cpu(), {'data': mx.nd.array(images), 'conv0_weight': parameters['conv0_weight']}
    ).forward()
    images, weight = (
        images.astype(HALF).astype(np.float64),
        parameters['conv0_weight'].asnumpy().astype(HALF).astype(np.float64),
    )
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    exact = np.einsum('nchwij,ocij->nohw', windows, weight)
    assert found.dtype == HALF
    difference = np.abs(found.asnumpy().astype(np.float64) - exact)
    assert (difference <= np.spacing(np.abs(exact).astype(HALF)).astype(np.float64) * 0.51).all(), (
        'one rounding, at the end'
    )


@pytest.mark.parametrize('family', FAMILIES)
def test_gradients_are_those_of_single_precision_up_to_rounding_and_the_scale(family):
    symbol, shape = small_network(family)
    arguments, states = values(symbol, shape)
    single = Pass(symbol, arguments, states)
    scaled = Pass(half(symbol, wide_products=True), {**arguments, LOSS_SCALE: np.full(BATCH, 1024, SINGLE)}, states)
    np.testing.assert_allclose(scaled.inferred, single.inferred, atol=0.02)
    names = [name for name in single.gradients if name not in ('data', 'softmax_label')]
    assert {scaled.gradients[name].dtype for name in names} == {np.dtype(SINGLE)}
    # All together: rounding moves some maps across the kink of ReLU, which alone changes small gradients by as much as
    # they are.
    found, expected = (
        np.concatenate([gradients[name].ravel() for name in names])
        for gradients in (scaled.gradients, single.gradients)
    )
    assert found @ expected / (np.linalg.norm(found) * np.linalg.norm(expected)) > 0.97
    assert np.linalg.norm(found) / np.linalg.norm(expected) == pytest.approx(1024, rel=0.05)
    for name, value in single.statistics.items():
        assert scaled.statistics[name].dtype == SINGLE
        np.testing.assert_allclose(scaled.statistics[name], value, atol=0.01)


def test_probabilities_do_not_depend_on_the_scale():
    symbol, shape = small_network('vgg')
    arguments, states = values(symbol, shape)
    outputs = [
        Pass(half(symbol, True), {**arguments, LOSS_SCALE: np.full(BATCH, scale, SINGLE)}, states).trained
        for scale in (1, 2**16)
    ]
    np.testing.assert_array_equal(*outputs)


def test_a_network_without_a_softmax_loss_is_refused():
    loss = mx.sym.LogisticRegressionOutput(
        mx.sym.FullyConnected(mx.sym.Variable('data'), num_hidden=3), mx.sym.Variable('softmax_label')
    )
    with pytest.raises(
        GraphError, match='scales the loss of a SoftmaxOutput; this network ends in LogisticRegressionOutput'
    ):
        half(loss)
