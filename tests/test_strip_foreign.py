"""Networks that are not ours: λ along the last axis, concatenations, GluonCV and Gluon with λ added by a user."""

import numpy as np
import pytest
from helpers.strip_networks import (
    assert_same_function,
    images,
    operators,
    predict,
    random_parameters,
    strip_twice,
    with_dead,
)

from interop.gluon_zoo import zoo_network
from runtime import mx

GROUPS, WIDTH = 4, 3


def last_axis_block(x, index, name, lambda_block, lambda_group):
    """A grouped unit with λ sliced out of one matrix, repeated, and multiplied along the last axis (channels last)."""
    channels = GROUPS * WIDTH
    x1 = mx.sym.Activation(batch_norm(convolution(x, channels, 1, f'{name}_conv1'), f'{name}_bn1'), act_type='relu')
    x2 = batch_norm(convolution(x1, channels, 3, f'{name}_conv2', num_group=GROUPS), f'{name}_bn2')
    row = mx.sym.slice_axis(lambda_group, axis=0, begin=index, end=index + 1)
    row = mx.sym.Reshape(mx.sym.repeat(row, repeats=WIDTH, axis=1), shape=(1, 1, 1, channels))
    x2 = mx.sym.transpose(mx.sym.broadcast_mul(mx.sym.transpose(x2, axes=(0, 2, 3, 1)), row), axes=(0, 3, 1, 2))
    x3 = batch_norm(convolution(mx.sym.Activation(x2, act_type='relu'), 16, 1, f'{name}_conv3'), f'{name}_bn3')
    x3 = mx.sym.broadcast_mul(x3, mx.sym.Reshape(lambda_block[index], shape=(1, 1, 1, 1)))
    return mx.sym.Activation(x3 + x, act_type='relu')


def last_axis_network():
    lambda_block = mx.sym.SliceChannel(mx.sym.Variable('lambda_block', shape=(3,)), axis=0, num_outputs=3)
    lambda_group = mx.sym.Variable('lambda_group', shape=(3, GROUPS))
    x = convolution(mx.sym.Variable('data'), 16, 3, 'conv0')
    for index in range(3):
        x = last_axis_block(x, index, f'unit{index}', lambda_block, lambda_group)
    return classified(x)


def dense_network(units=3, growth=4):
    """DenseNet's way: each unit adds channels to all before it, λ scales what it adds, and BN stands before the
    convolution.
    """
    x = convolution(mx.sym.Variable('data'), 6, 3, 'stem')
    for unit in range(units):
        new = mx.sym.Activation(batch_norm(x, f'unit{unit}_bn1'), act_type='relu')
        new = mx.sym.Activation(
            batch_norm(convolution(new, 8, 1, f'unit{unit}_conv1'), f'unit{unit}_bn2'), act_type='relu'
        )
        new = convolution(new, growth, 3, f'unit{unit}_conv2')
        factor = mx.sym.reshape(mx.sym.Variable(f'lambda_unit{unit}', shape=(growth,)), shape=(1, -1, 1, 1))
        x = mx.sym.Concat(x, mx.sym.broadcast_mul(new, factor), dim=1, name=f'unit{unit}_concat')
    x = mx.sym.Activation(batch_norm(x, 'transition_bn'), act_type='relu')
    return classified(
        mx.sym.Pooling(convolution(x, 10, 1, 'transition'), kernel=(2, 2), stride=(2, 2), pool_type='avg')
    )


def convolution(x, channels, kernel, name, **options):
    return mx.sym.Convolution(
        x,
        num_filter=channels,
        kernel=(kernel, kernel),
        pad=(kernel // 2, kernel // 2),
        no_bias=True,
        name=name,
        **options,
    )


def batch_norm(x, name):
    return mx.sym.BatchNorm(x, fix_gamma=False, eps=1e-5, name=name)


def classified(x):
    x = mx.sym.Flatten(mx.sym.Pooling(x, global_pool=True, kernel=(1, 1), pool_type='avg'))
    return mx.sym.SoftmaxOutput(mx.sym.FullyConnected(x, num_hidden=5, name='fc1'), name='softmax')


@pytest.mark.parametrize('seed', range(4))
def test_groups_scaled_along_the_last_axis(seed):
    random = np.random.RandomState(seed)
    symbol = last_axis_network()
    arg_params, aux_params = random_parameters(symbol)
    blocks, groups = random.uniform(size=3) < 0.4, random.uniform(size=(3, GROUPS)) < 0.4
    arg_params = with_dead(arg_params, {'lambda_block': blocks, 'lambda_group': groups})
    stripped = strip_twice(symbol, arg_params, aux_params)
    assert_same_function(symbol, arg_params, aux_params, stripped)
    layers = {layer['name']: layer for layer in stripped.report['layers']}
    for unit in range(3):
        alive = 0 if blocks[unit] else GROUPS - groups[unit].sum()
        assert layers[f'unit{unit}_conv2']['kept_groups'] == alive
        assert layers[f'unit{unit}_conv1']['kept'] == alive * WIDTH
    assert not {'transpose', 'broadcast_mul', 'SliceChannel', 'repeat', 'Reshape'} & set(operators(stripped.symbol))


@pytest.mark.parametrize('seed', range(4))
def test_a_densely_connected_network(seed):
    random = np.random.RandomState(seed)
    symbol = dense_network()
    arg_params, aux_params = random_parameters(symbol)
    dead = {f'lambda_unit{unit}': random.uniform(size=4) < share for unit, share in enumerate((0.5, 1.1, 0.3))}
    arg_params = with_dead(arg_params, dead)
    stripped = strip_twice(symbol, arg_params, aux_params)
    assert assert_same_function(symbol, arg_params, aux_params, stripped)
    layers = {layer['name']: layer['kept'] for layer in stripped.report['layers']}
    # Behind a concatenation stands a BN, which makes a constant of a dead channel; the convolution behind it takes that
    # into its bias.
    alive = [int(np.logical_not(dead[f'lambda_unit{unit}']).sum()) for unit in range(3)]
    assert [layers[f'unit{unit}_conv2'] for unit in range(3)] == alive
    assert layers['unit1_conv1'] == (8 if alive[1] else 0)
    assert stripped.arg_params['transition_weight'].shape == (10, 6 + sum(alive), 1, 1)
    assert layers['transition_bn'] == 6 + sum(alive)


class Scale(mx.gluon.HybridBlock):
    """What a user of Gluon writes to scale channels: shape (1, channels, 1, 1)."""

    def __init__(self, channels, **options):
        super().__init__(**options)
        with self.name_scope():
            self.factor = self.params.get('lambda', shape=(1, channels, 1, 1), init='ones')

    def hybrid_forward(self, F, x, factor):
        return F.broadcast_mul(x, factor)


def exported(network, image, path):
    """Initialise a Gluon network at random, export it, and load what was exported."""
    network.initialize(mx.init.Normal(0.2))
    network.hybridize()
    network(mx.nd.zeros((1, *image)))
    random = np.random.RandomState(3)
    for name, parameter in network.collect_params().items():
        if name.endswith(('gamma', 'var', 'beta', 'mean')):
            spread = (
                random.uniform(0.5, 1.5, parameter.shape)
                if name.endswith(('gamma', 'var'))
                else random.normal(size=parameter.shape) * 0.3
            )
            parameter.set_data(mx.nd.array(spread))
    network.export(str(path))
    return mx.model.load_checkpoint(str(path), 0)


def check_exported(loaded, image, dead):
    """Strip an exported network with the factors of ``dead`` zero; returns kept channels by layer."""
    symbol, arg_params, aux_params = loaded
    arg_params = with_dead(arg_params, {name: np.reshape(mask, arg_params[name].shape) for name, mask in dead.items()})
    stripped = strip_twice(symbol, arg_params, aux_params, {'data': (1, *image)})
    data = images(shape=image)
    expected, found = predict(symbol, arg_params, aux_params, data), predict(*stripped[:3], data)
    assert np.abs(expected[0] - expected[1]).max() > 0
    assert np.abs(expected - found).max() <= 1e-5 * np.abs(expected).max()
    assert not [name for name in stripped.symbol.list_arguments() if 'lambda' in name]
    return {layer['name']: layer['kept'] for layer in stripped.report['layers']}


def test_a_gluoncv_resnet_whose_blocks_a_user_scales(tmp_path):
    network = zoo_network('cifar_resnet20_v1')
    for stage, width in zip(network.features[2:5], (16, 32, 64)):
        for block in stage:
            with block.body.name_scope():
                block.body.add(Scale(width))
    loaded = exported(network, (3, 32, 32), tmp_path / 'net')
    lambdas = [name for name in loaded[0].list_arguments() if 'lambda' in name]
    assert len(lambdas) == 9
    dead = {name: np.ones(loaded[1][name].size, bool) for name in (lambdas[0], lambdas[3], lambdas[8])}
    kept = check_exported(loaded, (3, 32, 32), dead)
    assert sum(count == 0 for name, count in kept.items() if 'conv' in name) == 6
    assert sum(count > 0 for name, count in kept.items() if 'conv' in name) == 1 + 12 + 2


def test_a_gluoncv_mobilenet_whose_channels_a_user_scales(tmp_path):
    network = zoo_network('mobilenet0.25', classes=7)
    features = mx.gluon.nn.HybridSequential(prefix='mobilenet_')
    widths = {}
    for layer in network.features:
        features.add(layer)
        if isinstance(layer, mx.gluon.nn.BatchNorm) and len(widths) < 8:
            width = layer.gamma.shape[0] or features[-2]._kwargs['num_filter']
            with features.name_scope():
                features.add(Scale(width))
            widths[features[-1].factor.name] = width
    network.features = features
    loaded = exported(network, (3, 64, 64), tmp_path / 'net')
    random = np.random.RandomState(0)
    dead = {name: random.uniform(size=width) < 0.5 for name, width in widths.items()}
    kept = check_exported(loaded, (3, 64, 64), dead)
    convolutions = [count for name, count in kept.items() if 'conv' in name]
    both = [np.logical_or(*masks) for masks in zip(list(dead.values())[:-1:2], list(dead.values())[1::2])]
    assert convolutions[0] == convolutions[1] == np.logical_not(both[0]).sum()
