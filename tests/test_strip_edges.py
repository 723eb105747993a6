"""What can be odd about a network or its scaling factors, one test each."""

import numpy as np
import pytest
from helpers.strip_networks import (
    IMAGE,
    SHAPES,
    assert_same_function,
    images,
    operators,
    predict,
    random_parameters,
    small,
    strip_twice,
    with_dead,
)

from graphs.complexity import complexity
from graphs.strip import strip
from runtime import mx
from runtime.errors import CheckpointError, NothingLeftError, UserError


def block_net(placement='output'):
    """A pre-activation ResNet of two stages of two units, with λ on its blocks."""
    symbol = small('resnet', placement, ('block',))
    return (symbol, *random_parameters(symbol))


def conv(x, name, channels, kernel=3, **options):
    return mx.sym.Convolution(
        x, kernel=(kernel, kernel), pad=(kernel // 2, kernel // 2), num_filter=channels, name=name, **options
    )


def bn(x, name):
    return mx.sym.BatchNorm(x, fix_gamma=False, eps=1e-5, name=name)


def relu(x):
    return mx.sym.Activation(x, act_type='relu')


def factor(name, *shape):
    """λ for a feature map, as one would write it by hand."""
    return mx.sym.reshape(mx.sym.Variable(f'lambda_{name}', shape=shape), shape=(1, -1, 1, 1))


def scaled(x, name, channels):
    return mx.sym.broadcast_mul(x, factor(name, channels))


def classify(x):
    x = mx.sym.Pooling(x, global_pool=True, kernel=(1, 1), pool_type='avg')
    return mx.sym.SoftmaxOutput(mx.sym.FullyConnected(mx.sym.Flatten(x), num_hidden=5, name='fc1'), name='softmax')


def stripped_by_hand(symbol, dead, **options):
    """Strip a hand-made symbol with the factors of ``dead`` (name → list of channels) zero, and check the function."""
    arg_params, aux_params = random_parameters(symbol)
    masks = {
        name: np.isin(np.arange(arg_params[name].size), channels).reshape(arg_params[name].shape)
        for name, channels in dead.items()
    }
    arg_params = with_dead(arg_params, masks)
    stripped = strip_twice(symbol, arg_params, aux_params, **options)
    assert assert_same_function(symbol, arg_params, aux_params, stripped)
    return stripped


def kept(stripped):
    return {layer['name']: layer['kept'] for layer in stripped.report['layers']}


def test_nothing_dead():
    symbol, arg_params, aux_params = block_net()
    stripped = strip_twice(symbol, arg_params, aux_params)
    assert assert_same_function(symbol, arg_params, aux_params, stripped)
    assert stripped.report['after']['macs'] == stripped.report['before']['macs']
    assert set(stripped.arg_params) == set(arg_params) - {'lambda_block'}
    assert 'broadcast_mul' not in operators(stripped.symbol)


def test_the_caller_keeps_his_parameters():
    symbol, arg_params, aux_params = block_net('weight')
    before = {name: array.asnumpy() for name, array in {**arg_params, **aux_params}.items()}
    strip(
        symbol,
        with_dead(arg_params, {'lambda_block': [True, False, False, True]}),
        aux_params,
        SHAPES,
        threshold=0.6,
        fold_bn=True,
    )
    assert all((array.asnumpy() == before[name]).all() for name, array in {**arg_params, **aux_params}.items())


@pytest.mark.parametrize('placement', ['weight', 'output'])
@pytest.mark.parametrize('dead', [[0, 1], [2, 3], [0, 1, 2, 3]], ids=['first stage', 'second stage', 'every block'])
def test_a_stage_without_blocks_keeps_its_projection(placement, dead):
    symbol, arg_params, aux_params = block_net(placement)
    arg_params = with_dead(arg_params, {'lambda_block': np.isin(range(4), dead)})
    stripped = strip_twice(symbol, arg_params, aux_params)
    assert assert_same_function(symbol, arg_params, aux_params, stripped)
    assert kept(stripped)['stage1_unit1_sc'] == 16
    assert kept(stripped)['stage2_unit1_sc'] == 24
    assert len([name for name, count in kept(stripped).items() if name.endswith('conv3') and count]) == 4 - len(dead)


@pytest.mark.parametrize('placement', ['weight', 'output'])
def test_all_groups_of_one_block_dead(placement):
    symbol = small('resnext', placement)
    arg_params, aux_params = random_parameters(symbol)
    arg_params = with_dead(arg_params, {'lambda_group': np.arange(12).reshape(3, 4) // 4 == 1})
    stripped = strip_twice(symbol, arg_params, aux_params)
    assert assert_same_function(symbol, arg_params, aux_params, stripped)
    assert not [name for name, count in kept(stripped).items() if name.startswith('stage1_unit2') and count]


@pytest.mark.parametrize('groups', [1, 2, 3])
def test_some_groups_dead_keep_their_width(groups):
    symbol = small('resnext', 'weight')
    arg_params, aux_params = random_parameters(symbol)
    dead = np.zeros((3, 4), bool)
    dead[0, [0, 2, 3][:groups]] = True
    stripped = strip_twice(symbol, with_dead(arg_params, {'lambda_group': dead}), aux_params)
    layers = {layer['name']: layer for layer in stripped.report['layers']}
    assert (layers['stage1_unit1_conv2']['groups'], layers['stage1_unit1_conv2']['kept_groups']) == (4, 4 - groups)
    assert stripped.arg_params['stage1_unit1_conv2_weight'].shape == (2 * (4 - groups), 2, 3, 3)
    assert layers['stage1_unit1_conv1']['kept'] == layers['stage1_unit1_conv2']['kept'] == 2 * (4 - groups)
    assert layers['stage1_unit1_conv2']['kept_ranges'][0] == [2, 3 if groups > 1 else 7]


def test_nothing_left_is_a_named_error():
    symbol = small('vgg', 'weight')
    arg_params, aux_params = random_parameters(symbol)
    with pytest.raises(NothingLeftError, match='no path'):
        strip(symbol, with_dead(arg_params, {'lambda_conv2_1': np.ones(8, bool)}), aux_params, SHAPES)


@pytest.mark.parametrize('value', [0.0, 0.7, -0.7])
def test_a_vector_of_one_factor(value):
    x = conv(mx.sym.Variable('data'), 'stem', 6)
    symbol = classify(mx.sym.broadcast_add(mx.sym.broadcast_mul(conv(relu(x), 'branch', 6), factor('only', 1)), x))
    arg_params, aux_params = random_parameters(symbol)
    arg_params['lambda_only'][:] = value
    stripped = strip_twice(symbol, arg_params, aux_params)
    assert assert_same_function(symbol, arg_params, aux_params, stripped)
    assert kept(stripped)['branch'] == (6 if value else 0)


@pytest.mark.parametrize('placement', ['weight', 'output'])
def test_negative_factors(placement):
    symbol, arg_params, aux_params = block_net(placement)
    arg_params['lambda_block'] *= -1
    assert assert_same_function(symbol, arg_params, aux_params, strip_twice(symbol, arg_params, aux_params))


@pytest.mark.parametrize('name', ['lambda_block', 'stage1_unit1_bn1_moving_var', 'fc1_weight'])
@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_numbers_that_are_none(name, value):
    symbol, arg_params, aux_params = block_net()
    params = arg_params if name in arg_params else aux_params
    params[name][0:1] = value
    with pytest.raises(CheckpointError, match=name):
        strip(symbol, arg_params, aux_params, SHAPES)


def test_a_missing_parameter():
    symbol, arg_params, aux_params = block_net()
    del arg_params['stage2_unit1_conv2_weight']
    with pytest.raises(CheckpointError, match='stage2_unit1_conv2_weight'):
        strip(symbol, arg_params, aux_params, SHAPES)


def test_tied_parameters_are_cut_for_all_who_read_them():
    weight = mx.sym.Variable('tied_weight')
    x = relu(conv(mx.sym.Variable('data'), 'stem', 6))
    first = scaled(conv(x, 'one', 6, weight=weight, no_bias=True), 'one', 6)
    second = scaled(conv(relu(first), 'two', 6, weight=weight, no_bias=True), 'two', 6)
    stripped = stripped_by_hand(classify(relu(second)), {'lambda_one': [1, 2, 4], 'lambda_two': [0, 1]})
    counts = kept(stripped)
    assert counts['one'] == 3
    assert counts['two'] == 4


def test_a_tied_weight_without_factors_stays_tied():
    weight = mx.sym.Variable('tied_weight')
    x = scaled(relu(conv(mx.sym.Variable('data'), 'stem', 6)), 'stem', 6)
    for name in ('one', 'two', 'three'):
        x = relu(conv(x, name, 6, weight=weight, no_bias=True))
    stripped = stripped_by_hand(classify(x), {'lambda_stem': [1, 2]})
    # The channels that are dead in the stem are alive behind it, and the weight must fit both.
    assert stripped.arg_params['tied_weight'].shape == (6, 6, 3, 3)


@pytest.mark.parametrize('placed', [bn, lambda x, name: x], ids=['bn', 'plain'])
def test_a_dead_channel_that_feeds_a_projection_and_a_block(placed):
    x = relu(scaled(placed(conv(mx.sym.Variable('data'), 'stem', 8), 'bn'), 'stem', 8))
    block = conv(relu(conv(x, 'inner', 4)), 'outer', 12)
    stripped = stripped_by_hand(classify(relu(block + conv(x, 'projection', 12, kernel=1))), {'lambda_stem': [0, 3, 7]})
    assert kept(stripped)['stem'] == 5
    assert {name: stripped.arg_params[f'{name}_weight'].shape[1] for name in ('inner', 'projection')} == {
        'inner': 5,
        'projection': 5,
    }


@pytest.mark.parametrize('dead', [[0, 1], [0, 1, 2, 3]], ids=['some', 'all'])
def test_channels_dead_on_one_side_of_a_concat(dead):
    x = relu(conv(mx.sym.Variable('data'), 'stem', 6))
    both = mx.sym.Concat(relu(scaled(conv(x, 'left', 4), 'left', 4)), conv(x, 'right', 5), dim=1)
    stripped = stripped_by_hand(classify(conv(both, 'last', 7)), {'lambda_left': dead})
    assert kept(stripped)['left'] == 4 - len(dead)
    assert kept(stripped)['right'] == 5
    assert stripped.arg_params['last_weight'].shape == (7, 9 - len(dead), 3, 3)
    assert ('Concat' in operators(stripped.symbol)) == (len(dead) < 4)


def test_half_precision():
    symbol = small('resnext', 'weight')
    arg_params, aux_params = random_parameters(symbol)
    arg_params = {name: array.astype('float16') for name, array in arg_params.items()}
    arg_params = with_dead(
        arg_params,
        {'lambda_group': np.arange(12).reshape(3, 4) % 4 == 1, 'lambda_block': np.array([False, True, False])},
    )
    stripped = strip_twice(symbol, arg_params, aux_params)
    assert {array.dtype for array in stripped.arg_params.values()} == {np.float16}
    assert {array.dtype for array in stripped.aux_params.values()} == {np.float32}
    single = [
        {name: array.astype('float32') for name, array in params.items()}
        for params in (arg_params, stripped.arg_params)
    ]
    assert assert_same_function(symbol, single[0], aux_params, stripped._replace(arg_params=single[1]), tolerance=5e-3)


def test_a_threshold_takes_small_factors_too():
    symbol, arg_params, aux_params = block_net()
    arg_params['lambda_block'][:] = [1e-3, 1, -1e-3, 1]
    assert kept(strip_twice(symbol, arg_params, aux_params))['stage1_unit1_conv3'] == 16
    counts = kept(strip_twice(symbol, arg_params, aux_params, threshold=1e-3))
    assert [counts[f'stage{stage}_unit{unit}_conv3'] for stage in (1, 2) for unit in (1, 2)] == [0, 16, 0, 24]


def test_folded_batch_norm_cannot_be_trained():
    with pytest.raises(UserError, match='--for-training'):
        strip(*block_net(), SHAPES, fold_bn=True, for_training=True)


def test_an_unknown_operator_keeps_its_inputs_whole():
    x = mx.sym.LRN(relu(scaled(conv(mx.sym.Variable('data'), 'stem', 8), 'stem', 8)), nsize=3)
    assert kept(stripped_by_hand(classify(conv(x, 'last', 6)), {'lambda_stem': [1, 2]}))['stem'] == 8


def test_a_convolution_that_reads_nothing_but_zeros_beside_a_live_one():
    x = mx.sym.Variable('data')
    constant = mx.sym.tanh(conv(relu(scaled(conv(x, 'dead', 4), 'dead', 4)), 'bias', 4))
    padded = conv(constant, 'edges', 4)
    stripped = stripped_by_hand(classify(relu(padded) + conv(x, 'live', 4)), {'lambda_dead': [0, 1, 2, 3]})
    # The maps of 'bias' are constants, but not so those of 'edges', where they end.
    assert kept(stripped)['dead'] == 1
    assert kept(stripped)['edges'] == 4


@pytest.mark.parametrize('no_bias', [False, True])
def test_constant_channels_move_into_the_bias_behind_them(no_bias):
    x = bn(scaled(conv(mx.sym.Variable('data'), 'stem', 8, no_bias=True), 'stem', 8), 'bn')
    stripped = stripped_by_hand(classify(conv(x, 'reader', 6, kernel=1, no_bias=no_bias)), {'lambda_stem': [1, 2, 6]})
    # The BN of a zero channel is no zero.
    assert (kept(stripped)['stem'], kept(stripped)['bn']) == (5, 5)
    assert stripped.arg_params['reader_bias'].shape == (6,)


def test_depthwise_convolutions_go_channel_by_channel():
    x = relu(conv(mx.sym.Variable('data'), 'expand', 8))
    x = conv(
        relu(scaled(bn(conv(x, 'depthwise', 8, num_group=8, no_bias=True), 'bn'), 'depthwise', 8)),
        'project',
        5,
        kernel=1,
    )
    stripped = stripped_by_hand(classify(x), {'lambda_depthwise': [0, 5, 6]})
    assert (kept(stripped)['expand'], kept(stripped)['depthwise'], kept(stripped)['project']) == (5, 5, 5)
    assert stripped.arg_params['depthwise_weight'].shape == (5, 1, 3, 3)


def test_squeeze_and_excitation():
    x = relu(conv(mx.sym.Variable('data'), 'stem', 8))
    x = relu(scaled(bn(conv(x, 'inner', 8), 'bn'), 'inner', 8))
    gate = mx.sym.Flatten(mx.sym.Pooling(x, global_pool=True, kernel=(1, 1), pool_type='avg'))
    gate = mx.sym.FullyConnected(
        relu(mx.sym.FullyConnected(gate, num_hidden=3, name='squeeze')), num_hidden=8, name='excite'
    )
    x = mx.sym.broadcast_mul(x, mx.sym.reshape(mx.sym.sigmoid(gate), shape=(-1, 8, 1, 1)))
    stripped = stripped_by_hand(classify(conv(x, 'last', 6)), {'lambda_inner': [0, 1, 4]})
    assert (kept(stripped)['inner'], kept(stripped)['squeeze'], kept(stripped)['excite']) == (5, 3, 5)


def test_flattened_maps_cut_the_classifier_in_strides():
    x = relu(scaled(conv(mx.sym.Variable('data'), 'stem', 4), 'stem', 4))
    symbol = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(mx.sym.Flatten(x), num_hidden=5, name='fc1'), name='softmax')
    stripped = stripped_by_hand(symbol, {'lambda_stem': [2]})
    assert stripped.arg_params['fc1_weight'].shape == (5, 3 * 64)


def test_a_factor_behind_a_relu_and_one_that_several_read():
    x = scaled(relu(conv(mx.sym.Variable('data'), 'stem', 6)), 'stem', 6)
    x = scaled(x + conv(x, 'inner', 6), 'sum', 6)
    stripped = stripped_by_hand(classify(relu(x)), {'lambda_stem': [0], 'lambda_sum': [0, 5]})
    assert 'lambda' not in ''.join(stripped.symbol.list_arguments())
    # Channel 5 of the sum is dead, but the other operand of the sum needs it on its way into 'inner'.
    assert kept(stripped)['inner'] == 5


def test_the_loss_stays_for_training_and_goes_for_use():
    symbol, arg_params, aux_params = block_net('weight')
    used, trained = (strip(symbol, arg_params, aux_params, SHAPES, for_training=choice) for choice in (False, True))
    assert operators(used.symbol)['softmax'] == ['softmax']
    assert operators(trained.symbol)['SoftmaxOutput'] == ['softmax']
    expected = predict(symbol, arg_params, aux_params, images())
    for stripped in (used, trained):
        assert np.allclose(predict(*stripped[:3], images()), expected, atol=1e-6)
    assert complexity(used.symbol, SHAPES) == complexity(trained.symbol, SHAPES)


def test_what_is_left_can_be_trained():
    symbol, arg_params, aux_params = block_net('weight')
    arg_params = with_dead(arg_params, {'lambda_block': [True, False, False, True]})
    stripped = strip(symbol, arg_params, aux_params, SHAPES, for_training=True)
    module = mx.mod.Module(stripped.symbol)
    module.bind([('data', (4, *IMAGE))], [('softmax_label', (4,))])
    module.set_params(stripped.arg_params, stripped.aux_params)
    module.init_optimizer(optimizer='sgd', optimizer_params={'learning_rate': 0.1})
    batch = mx.io.DataBatch([mx.nd.array(images(4))], [mx.nd.array([0, 1, 2, 3])])
    module.forward_backward(batch)
    module.update()
    moved = module.get_params()[0]
    assert all(
        np.abs(moved[name].asnumpy() - stripped.arg_params[name].asnumpy()).max() > 0
        for name in ('conv0_weight', 'stage2_unit1_conv3_weight')
    )
