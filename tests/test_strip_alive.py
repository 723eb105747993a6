"""What would be left, counted without stripping; and the sums that MXNet gets wrong, kept away."""

import time

import numpy as np
import pytest
from helpers.strip_networks import SHAPES, images, operators, predict, random_parameters, small, strip_twice, with_dead

from graphs.alive import AliveCounter, alive_complexity
from graphs.complexity import complexity
from graphs.graph import Graph
from graphs.onednn_workaround import guard_sums
from runtime import mx
from symbols import get_symbol


@pytest.mark.parametrize('placement', ['weight', 'output'])
def test_with_every_factor_alive_it_is_the_network_without_lambda(placement):
    symbol = get_symbol('resnext', 20, 10, (3, 32, 32), lambda_placement=placement)
    shapes = {'data': (1, 3, 32, 32)}
    lambdas = {'lambda_block': np.full(6, -0.5), 'lambda_group': mx.nd.ones((6, 32))}
    found = alive_complexity(symbol, lambdas, shapes)
    expected = complexity(get_symbol('resnext', 20, 10, (3, 32, 32), scale='none'), shapes)
    assert found.totals() == {**expected.totals(), 'lambdas': 6 + 6 * 32}


def test_nothing_left_counts_nothing():
    symbol = small('vgg', 'weight')
    counter = AliveCounter(symbol, SHAPES)
    lambdas = {name: array for name, array in random_parameters(symbol)[0].items() if 'lambda' in name}
    assert counter(lambdas).macs > 0
    assert set(counter({**lambdas, 'lambda_conv2_2': np.zeros(8)}).totals().values()) == {0}
    # One call leaves no trace in the next.
    assert counter(lambdas).macs == complexity(symbol, SHAPES).macs


@pytest.mark.parametrize('placement', ['weight', 'output'])
def test_resnet_164_is_quick(placement):
    symbol = get_symbol('resnet', 164, 10, (3, 32, 32), lambda_placement=placement)
    counter = AliveCounter(symbol, {'data': (1, 3, 32, 32)})
    counter({'lambda_block': np.arange(54) % 2.0})
    start = time.process_time()
    counter({'lambda_block': np.arange(54) % 3.0})
    assert time.process_time() - start < 1


def test_only_another_pattern_is_counted_anew():
    counter = AliveCounter(get_symbol('resnet', 164, 10, (3, 32, 32)), {'data': (1, 3, 32, 32)})
    alive = np.arange(54) % 2.0
    first = counter({'lambda_block': alive})
    start = time.process_time()
    assert counter({'lambda_block': mx.nd.array(alive * 0.3)}) == first
    assert time.process_time() - start < 0.02
    assert counter({'lambda_block': 1 - alive}).macs != first.macs
    assert counter({'lambda_block': alive}) == first


@pytest.mark.parametrize('dtype', ['float16', 'float64'])
def test_every_type_of_number_counts(dtype):
    symbol = small('resnext', 'weight')
    arg_params, aux_params = random_parameters(symbol)
    arg_params = with_dead(arg_params, {'lambda_group': np.arange(12).reshape(3, 4) % 3 == 1})
    expected = AliveCounter(symbol, SHAPES)(arg_params)
    lambdas = {name: array for name, array in arg_params.items() if 'lambda' in name}
    assert AliveCounter(symbol, SHAPES)({name: array.asnumpy() != 0 for name, array in lambdas.items()}) == expected
    for given in (lambdas, {**arg_params, **aux_params}):
        assert AliveCounter(symbol, SHAPES)({name: array.astype(dtype) for name, array in given.items()}) == expected
        given = {name: array.asnumpy().astype(dtype) for name, array in given.items()}
        assert AliveCounter(symbol, SHAPES)(given) == expected


def two_convolutions():
    """The sum that MXNet 1.9.1 gets wrong: of a convolution, which a BN reads too, and a convolution behind that BN."""
    shortcut = mx.sym.Convolution(mx.sym.Variable('data'), num_filter=8, kernel=(1, 1), no_bias=True, name='shortcut')
    branch = mx.sym.Activation(mx.sym.BatchNorm(shortcut, fix_gamma=False, name='bn'), act_type='relu')
    return mx.sym.Convolution(branch, num_filter=8, kernel=(1, 1), no_bias=True, name='branch') + shortcut


def test_sums_that_mxnet_gets_wrong_are_guarded(monkeypatch):
    symbol = two_convolutions()
    arg_params, aux_params = random_parameters(symbol)
    graph = Graph.from_symbol(symbol)
    guard_sums(graph)
    guarded = predict(graph.to_symbol(), arg_params, aux_params, images())
    monkeypatch.setenv('MXNET_SUBGRAPH_BACKEND', 'NONE')
    assert np.abs(guarded - predict(symbol, arg_params, aux_params, images())).max() < 1e-5


def test_only_sums_at_risk_are_guarded():
    symbol = small('resnet', 'weight', ('block',))
    arg_params, aux_params = random_parameters(symbol)
    stripped = strip_twice(symbol, arg_params, aux_params)
    assert 'broadcast_add' not in operators(stripped.symbol)
    stripped = strip_twice(symbol, with_dead(arg_params, {'lambda_block': [True, False, False, False]}), aux_params)
    assert len(operators(stripped.symbol)['broadcast_add']) == 1
    assert len(operators(stripped.symbol)['elemwise_add']) == 2
