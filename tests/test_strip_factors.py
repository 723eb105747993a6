"""Constant factors of every shape: which go into the layer beside them, which stay, and what of them is pruned."""

import numpy as np
import pytest
from helpers.strip_networks import (
    IMAGE,
    SIDE,
    assert_same_function,
    operators,
    random_parameters,
    strip_twice,
    with_dead,
)

from runtime import mx

CHANNELS = SIDE  # as many as a map is wide, so that axes can be mistaken for one another
TO_LAST, FROM_LAST, SWAPPED = (0, 2, 3, 1), (0, 3, 1, 2), (1, 0, 2, 3)


def conv(x, name, channels=CHANNELS, kernel=3):
    pad = (kernel // 2, kernel // 2)
    return mx.sym.Convolution(x, num_filter=channels, kernel=(kernel, kernel), pad=pad, no_bias=True, name=name)


def classify(x):
    return mx.sym.SoftmaxOutput(mx.sym.FullyConnected(mx.sym.Flatten(x), num_hidden=5, name='fc1'), name='softmax')


def factor(*shape):
    return mx.sym.Variable('lambda_factor', shape=shape)


def scaled(kind, x):
    """``x`` (N,C,H,W), C = W, times λ in the way of ``kind``."""
    if kind == 'rank 1, whole':
        return mx.sym.broadcast_mul(x, factor(1))
    if kind == 'rank 1, last axis':
        moved = mx.sym.broadcast_mul(mx.sym.transpose(x, axes=TO_LAST), factor(CHANNELS))
        return mx.sym.transpose(moved, axes=FROM_LAST)
    if kind == 'rank 3, channels':
        return mx.sym.broadcast_mul(x, factor(CHANNELS, 1, 1))
    if kind == 'rank 4, first axis':
        column = mx.sym.reshape(factor(CHANNELS), shape=(-1, 1, 1, 1))
        return mx.sym.transpose(mx.sym.broadcast_mul(mx.sym.transpose(x, axes=SWAPPED), column), axes=SWAPPED)
    if kind == 'rank 1, width':
        return mx.sym.broadcast_mul(x, factor(CHANNELS))
    assert kind == 'rank 1, width of a swapped map'
    return mx.sym.transpose(mx.sym.broadcast_mul(mx.sym.transpose(x, axes=SWAPPED), factor(CHANNELS)), axes=SWAPPED)


def stripped(symbol, dead):
    """Strip ``symbol`` with these entries of its λ zero, and make sure that the function stays."""
    arg_params, aux_params = random_parameters(symbol)
    mask = np.isin(np.arange(arg_params['lambda_factor'].size), dead).reshape(arg_params['lambda_factor'].shape)
    arg_params = with_dead(arg_params, {'lambda_factor': mask})
    found = strip_twice(symbol, arg_params, aux_params)
    assert assert_same_function(symbol, arg_params, aux_params, found)
    return found


@pytest.mark.parametrize('kind', ['rank 1, whole', 'rank 1, last axis', 'rank 3, channels', 'rank 4, first axis'])
def test_a_factor_along_the_channels_goes_into_the_layer(kind):
    dead = [] if kind.endswith('whole') else [1, 4]
    found = stripped(classify(scaled(kind, conv(mx.sym.Variable('data'), 'conv'))), dead)
    assert not {'broadcast_mul', 'transpose'} & set(operators(found.symbol))
    assert found.arg_params['conv_weight'].shape[0] == CHANNELS - len(dead)


@pytest.mark.parametrize('kind', ['rank 1, width', 'rank 1, width of a swapped map'])
def test_a_factor_along_the_width_stays(kind):
    found = stripped(classify(scaled(kind, conv(mx.sym.Variable('data'), 'conv'))), [1, 4])
    assert len(operators(found.symbol)['broadcast_mul']) == 1
    assert found.arg_params['conv_weight'].shape[0] == CHANNELS


def pool(x):
    return mx.sym.Pooling(x, kernel=(3, 3), pad=(1, 1), pool_type='avg')


@pytest.mark.parametrize('kind', ['rank 1, last axis', 'rank 3, channels', 'rank 4, first axis'])
def test_dead_channels_go_even_where_no_layer_can_take_the_factor(kind):
    found = stripped(classify(pool(scaled(kind, pool(conv(mx.sym.Variable('data'), 'conv'))))), [1, 4])
    assert len(operators(found.symbol)['broadcast_mul']) == 1
    assert found.arg_params['conv_weight'].shape[0] == CHANNELS - 2


def test_a_dead_branch_goes_even_where_no_layer_can_take_the_factor():
    x = conv(mx.sym.Variable('data'), 'conv')
    symbol = classify(conv(pool(scaled('rank 1, whole', x)), 'behind') + mx.sym.tanh(x))
    assert 'behind_weight' in stripped(symbol, []).arg_params
    assert 'behind_weight' not in stripped(symbol, [0]).arg_params


def test_a_factor_that_widens_what_it_multiplies_stays():
    x = conv(mx.sym.Variable('data'), 'conv', channels=1)
    found = stripped(classify(mx.sym.broadcast_mul(x, factor(1, IMAGE[0], 1, 1))), [1])
    assert found.arg_params['conv_weight'].shape[0] == 1
