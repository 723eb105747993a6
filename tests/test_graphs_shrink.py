"""A network that is rebuilt without its dead structures: the same outputs, the same gradients, the same λ."""

import numpy as np
import pytest

from graphs.alive import AliveCounter
from graphs.complexity import complexity
from graphs.lambdas import is_lambda
from graphs.shrink import shrink
from runtime import mx
from runtime.errors import CannotShrinkError, GraphError
from symbols import get_symbol

NETWORKS = [
    ('resnet', 20, 'block'),
    ('resnet', 20, 'block,neuron'),
    ('resnet-v1', 20, 'neuron'),
    ('resnet-v1', 20, 'block,neuron'),
    ('resnext', 20, 'block,group'),
    ('vgg', 16, 'neuron'),
]
DATA = {'data': (4, 3, 32, 32)}


def random_params(symbol, seed):
    random = np.random.RandomState(seed)
    shapes, _, states = symbol.infer_shape(**DATA, softmax_label=(4,))
    args = {
        name: random.normal(scale=0.3, size=shape).astype(np.float64)
        for name, shape in zip(symbol.list_arguments(), shapes)
        if name not in ('data', 'softmax_label')
    }
    for name in args:
        if name.endswith('_gamma') or is_lambda(name):
            args[name] = random.uniform(0.5, 1.5, args[name].shape).astype(np.float64)
    aux = {
        name: random.uniform(0.5, 1.5, shape).astype(np.float64)
        for name, shape in zip(symbol.list_auxiliary_states(), states)
    }
    return args, aux


def random_dead(args, share, seed):
    """Some structures of every λ, never the whole of a vector."""
    random = np.random.RandomState(seed)
    dead = {name: random.uniform(size=array.shape) < share for name, array in args.items() if is_lambda(name)}
    for mask in dead.values():
        mask.reshape(-1)[random.randint(mask.size)] = False
    for name, mask in dead.items():
        args[name][mask] = 0
    return dead


def trained_step(symbol, args, aux, images, labels):
    """(outputs, gradients, moving statistics) of a pass forward and backward, in float64."""
    grads = {name: mx.nd.zeros(array.shape, dtype='float64') for name, array in args.items()}
    inputs = {**args, 'data': images, 'softmax_label': labels}
    executor = symbol.bind(
        mx.cpu(),
        {name: mx.nd.array(array, dtype='float64') for name, array in inputs.items()},
        args_grad=grads,
        aux_states={name: mx.nd.array(array, dtype='float64') for name, array in aux.items()},
    )
    output = executor.forward(is_train=True)[0].asnumpy()
    executor.backward()
    return (
        output,
        {name: array.asnumpy() for name, array in grads.items()},
        {name: array.asnumpy() for name, array in executor.aux_dict.items()},
    )


@pytest.mark.parametrize('seed', range(2))
@pytest.mark.parametrize(('network', 'depth', 'scale'), NETWORKS)
def test_a_step_of_the_shrunk_network_is_that_of_the_whole_one(network, depth, scale, seed):
    symbol = get_symbol(network, depth, 10, (3, 32, 32), scale)
    args, aux = random_params(symbol, seed)
    dead = random_dead(args, 0.6, seed)
    smaller = shrink(symbol, dead, DATA)
    random = np.random.RandomState(seed)
    images, labels = random.normal(size=DATA['data']).astype(np.float64), random.randint(0, 10, 4).astype(np.float64)
    small_args = {name: smaller.cut_array(name, args[name]) for name in smaller.symbol.list_arguments() if name in args}
    small_aux = {name: smaller.cut_array(name, aux[name]) for name in smaller.symbol.list_auxiliary_states()}
    expected, gradients, statistics = trained_step(symbol, args, aux, images, labels)
    found, small_gradients, small_statistics = trained_step(smaller.symbol, small_args, small_aux, images, labels)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    for name, gradient in small_gradients.items():
        whole = smaller.cut_array(name, gradients[name])
        np.testing.assert_allclose(
            gradient.reshape(whole.shape), whole, atol=1e-9 * max(1e-3, np.abs(gradients[name]).max()), err_msg=name
        )
    for name, array in small_statistics.items():
        np.testing.assert_allclose(array, smaller.cut_array(name, statistics[name]), atol=1e-12, err_msg=name)
    lambdas = {name: args[name] for name in dead}
    assert complexity(smaller.symbol, DATA).macs == AliveCounter(symbol, DATA)(lambdas).macs
    assert complexity(smaller.symbol, DATA).macs < complexity(symbol, DATA).macs


def test_what_was_cut_goes_back_to_its_place():
    symbol = get_symbol('resnext', 20, 10, (3, 32, 32), 'block,group')
    args, _ = random_params(symbol, 0)
    smaller = shrink(symbol, random_dead(args, 0.4, 0), DATA)
    for name in smaller.symbol.list_arguments():
        if name in args:
            small = smaller.cut_array(name, args[name])
            np.testing.assert_array_equal(smaller.expanded_array(name, small, args[name]), args[name])
            doubled = smaller.expanded_array(name, 2 * small, args[name])
            np.testing.assert_array_equal(smaller.cut_array(name, doubled), 2 * small)
            assert (doubled != args[name]).sum() == np.count_nonzero(small)


def test_nothing_dead_leaves_every_parameter():
    symbol = get_symbol('resnet', 20, 10, (3, 32, 32), 'block,neuron')
    smaller = shrink(symbol, {}, DATA)
    assert {
        name: tuple(map(len, axes)) if not is_lambda(name) else smaller.shapes[name]
        for name, axes in smaller.kept.items()
    } == smaller.shapes


def test_a_dead_layer_that_leaves_a_constant_is_refused():
    """What follows a dead layer of a post-activation block is the β of its normalisation."""
    symbol = get_symbol('resnet-v1', 20, 10, (3, 32, 32), 'neuron')
    name = next(name for name in symbol.list_arguments() if is_lambda(name))
    with pytest.raises(CannotShrinkError, match='whole layer'):
        shrink(symbol, {name: np.ones(16, bool)}, DATA)


def test_a_dead_layer_takes_its_whole_block_along_where_nothing_is_left_of_it():
    symbol = get_symbol('resnet', 20, 10, (3, 32, 32), 'neuron')
    smaller = shrink(symbol, {'lambda_stage2_unit1_conv2': np.ones(32, bool)}, DATA)
    assert not [name for name in smaller.kept if name.startswith('stage2_unit1_conv')]
    assert 'stage2_unit1_sc_weight' in smaller.kept


def test_factors_on_feature_maps_are_refused():
    symbol = get_symbol('resnet', 20, 10, (3, 32, 32), 'block', 'output')
    with pytest.raises(GraphError, match='lambda-placement weight'):
        shrink(symbol, {'lambda_block': np.arange(6) < 2}, DATA)
