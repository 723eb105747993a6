"""λ added to any network: the same function, the structures that can go and no others, and they do go."""

import numpy as np
import pytest
from helpers import foreign_networks
from helpers.foreign_networks import conv, normalised, scores
from helpers.strip_networks import images, predict, random_parameters

from graphs.complexity import complexity
from graphs.graph import data_shape_of
from graphs.insertion import add_lambda
from graphs.lambdas import lambda_layout
from graphs.losses import with_loss
from graphs.predictor import Network
from graphs.proof import outputs_of
from graphs.shrink import shrink
from graphs.strip import strip
from interop.onnx_export import export_onnx
from interop.runners import TorchRunner
from runtime import mx
from runtime.errors import GraphError

SMALL = (3, 8, 8)


def widths(symbol):
    """The output channels of every convolution, by the layer's name."""
    return {
        name[: -len('_fwd')] if name.endswith('_fwd') else name: int(attributes['num_filter'])
        for name, attributes in symbol.attr_dict().items()
        if 'num_filter' in attributes
    }


def with_lambda(symbol, image_shape, *args):
    """(symbol with λ, what got λ, arg_params with λ = 1, aux_params); all other numbers at random."""
    symbol, found = add_lambda(symbol, image_shape, *args)
    arg_params, aux_params = random_parameters(symbol, {'data': (1, *image_shape)})
    ones = {name: mx.nd.ones(array.shape) for name, array in arg_params.items() if 'lambda' in name}
    return symbol, found, {**arg_params, **ones}, aux_params


def killed(arg_params, seed=0):
    """The parameters with about half of each λ at 0: never all, never none."""
    random, result = np.random.RandomState(seed), dict(arg_params)
    for name, array in arg_params.items():
        if 'lambda' in name and array.size > 1:
            alive = random.uniform(size=array.size) < 0.5
            alive[:2] = True, False
            result[name] = mx.nd.array(alive.reshape(array.shape))
    return result


def assert_unchanged(before, symbol, arg_params, aux_params, image_shape):
    data = images(1, shape=image_shape)
    without = {name: array for name, array in arg_params.items() if 'lambda' not in name}
    expected = predict(before, without, aux_params, data)
    assert (predict(symbol, arg_params, aux_params, data) == expected).all()
    assert np.ptp(expected) > 0


@pytest.mark.parametrize('name', foreign_networks.NETWORKS)
def test_channels_of_other_peoples_networks(name, tmp_path):
    before, image_shape, removable = foreign_networks.NETWORKS[name]()
    symbol, found, arg_params, aux_params = with_lambda(before, image_shape)
    assert_unchanged(before, symbol, arg_params, aux_params, image_shape)
    channels = widths(before)
    covered = sum(channels[layer] for one in found for layer in one.layers)
    assert covered == removable

    arg_params = killed(arg_params)
    stripped = strip(symbol, arg_params, aux_params, {'data': (1, *image_shape)})
    kept = {layer['name'].replace('_fwd', ''): layer['kept'] for layer in stripped.report['layers']}
    for one in found:
        alive = int(arg_params[one.name].asnumpy().sum())
        assert [kept[layer] for layer in one.layers] == [alive] * len(one.layers)
    data = {'data': images(1, shape=image_shape)}
    expected = outputs_of(Network(symbol, arg_params, aux_params), data)[0]
    tolerance = 1e-4 * np.abs(expected).max()
    assert np.abs(outputs_of(Network(*stripped[:3]), data)[0] - expected).max() <= tolerance
    assert np.abs(TorchRunner.of_symbol(*stripped[:3])(data['data'])[0] - expected).max() <= tolerance
    assert export_onnx(*stripped[:3], image_shape, tmp_path / 'net.onnx').relative <= 1e-4


def killed_blocks(symbol, arg_params, dead):
    """The parameters without the blocks of the numbers ``dead``."""
    block = np.ones(arg_params['lambda_block'].shape)
    block[dead] = 0
    return {**arg_params, 'lambda_block': mx.nd.array(block)}


def assert_stripped(symbol, arg_params, aux_params, image_shape):
    """Strip and compare; returns the channels kept, by layer."""
    stripped = strip(symbol, arg_params, aux_params, {'data': (1, *image_shape)})
    data = images(1, shape=image_shape)
    expected, found = predict(symbol, arg_params, aux_params, data), predict(*stripped[:3], data)
    assert np.abs(expected - found).max() <= 1e-5 * np.abs(expected).max()
    return {layer['name']: layer['kept'] for layer in stripped.report['layers']}


def test_blocks_of_a_gluoncv_network():
    before, image_shape, _ = foreign_networks.cifar_resnet()
    symbol, found, arg_params, aux_params = with_lambda(before, image_shape, ('block',))
    assert_unchanged(before, symbol, arg_params, aux_params, image_shape)
    assert [(vector.name, vector.kind, vector.stages) for vector in lambda_layout(symbol)] == [
        ('lambda_block', 'block', (1, 1, 1, 2, 2, 2, 3, 3, 3))
    ]
    # Two 3×3 convolutions of 16 channels on 32×32 each.
    total = complexity(before, {'data': (1, *image_shape)}).macs
    assert found[0].share == pytest.approx(2 * 9 * 16 * 16 * 32 * 32 / total)
    assert [layer[-12:] for layer in found[3].layers] == ['stage2_conv0', 'stage2_conv1']  # not its projection
    kept = assert_stripped(symbol, killed_blocks(symbol, arg_params, [0, 3, 8]), aux_params, image_shape)
    gone = [name.partition('_')[2] for name, count in kept.items() if count == 0 and 'conv' in name]
    dead = ((1, 0), (1, 1), (2, 0), (2, 1), (3, 5), (3, 6))
    assert gone == [f'stage{stage}_conv{index}_fwd' for stage, index in dead]


@pytest.mark.parametrize('kinds', [('block',), ('channel', 'block')])
def test_a_branch_that_ends_in_squeeze_and_excitation(kinds):
    before, image_shape, _ = foreign_networks.se_network()
    symbol, found, arg_params, aux_params = with_lambda(before, image_shape, kinds)
    assert_unchanged(before, symbol, arg_params, aux_params, image_shape)
    assert {one.kind for one in found} == set(kinds)
    arg_params = killed_blocks(symbol, arg_params, [1])
    kept = assert_stripped(symbol, arg_params, aux_params, image_shape)
    assert all((count == 0) == name.startswith('unit1') for name, count in kept.items())


def grouped():
    """A bottleneck of four groups of two channels, whose first convolution feeds the groups."""
    x = normalised(conv(mx.sym.var('data'), 'stem', 8), 'stem_bn')
    y = normalised(conv(x, 'conv1', 8), 'bn1')
    y = normalised(conv(y, 'conv2', 16, 3, num_group=4), 'bn2')
    y = normalised(conv(y, 'conv3', 8), 'bn3', None)
    return scores(mx.sym.relu(mx.sym.Dropout(y) + x))


def test_groups():
    symbol, found, arg_params, aux_params = with_lambda(grouped(), SMALL, ('channel', 'group'))
    assert_unchanged(grouped(), symbol, arg_params, aux_params, SMALL)
    assert [(one.name, one.kind, one.structures, one.layers) for one in found] == [
        ('lambda_conv2_group', 'group', 4, ('conv1', 'conv2'))
    ]
    assert [(vector.kind, vector.stages) for vector in lambda_layout(symbol)] == [('group', (1,))]
    arg_params['lambda_conv2_group'] = mx.nd.array([[1, 0, 1, 0]])
    kept = assert_stripped(symbol, arg_params, aux_params, SMALL)
    assert (kept['conv1'], kept['conv2'], kept['stem']) == (4, 8, 8)


def test_a_block_behind_dropout():
    symbol, _, arg_params, aux_params = with_lambda(grouped(), SMALL, ('block',))
    assert 'broadcast_mul' not in symbol.tojson()  # λ is in the batch normalisation
    arg_params['lambda_block'][:] = 0
    kept = assert_stripped(symbol, arg_params, aux_params, SMALL)
    assert [name for name, count in kept.items() if count] == ['stem', 'stem_bn', 'fc1']


def depthwise(outputs):
    """A convolution, a depthwise one of ``outputs`` channels for each of its channels, and a third."""
    x = normalised(conv(mx.sym.var('data'), 'conv1', 6), 'bn1')
    x = normalised(conv(x, 'conv2', 6 * outputs, 3, num_group=6), 'bn2')
    return scores(normalised(conv(x, 'conv3', 5), 'bn3'))


@pytest.mark.parametrize('outputs', [1, 3])
def test_a_depthwise_convolution_shares_the_factor_of_what_feeds_it(outputs):
    symbol, found, arg_params, aux_params = with_lambda(depthwise(outputs), SMALL, ('channel', 'group'))
    assert [(one.kind, one.structures, one.layers) for one in found] == [
        ('channel', 6, ('conv1', 'conv2')),
        ('channel', 5, ('conv3',)),
    ]
    arg_params[found[0].name] = mx.nd.array([0, 1, 1, 0, 1, 1])
    kept = assert_stripped(symbol, arg_params, aux_params, SMALL)
    assert (kept['conv1'], kept['conv2']) == (4, 4 * outputs)


def test_a_gamma_that_is_held_at_1():
    x = conv(mx.sym.var('data'), 'conv1', 6, 3)
    before = scores(mx.sym.relu(mx.sym.BatchNorm(x, fix_gamma=True, name='bn1')))
    symbol, found, arg_params, aux_params = with_lambda(before, SMALL)
    assert_unchanged(before, symbol, arg_params, aux_params, SMALL)
    arg_params[found[0].name] = mx.nd.array([0, 1, 1, 0, 1, 1])
    assert assert_stripped(symbol, arg_params, aux_params, SMALL)['conv1'] == 4


def test_convolutions_without_batch_normalisation():
    """λ is in weight and bias. A hidden full connection is a layer too; the last one is the output."""
    x = mx.sym.Convolution(mx.sym.var('data'), num_filter=6, kernel=(3, 3), name='conv1')
    x = mx.sym.LeakyReLU(x, act_type='leaky')
    x = mx.sym.FullyConnected(mx.sym.Pooling(x, kernel=(2, 2), stride=(2, 2)), num_hidden=7, name='fc1')
    before = mx.sym.FullyConnected(mx.sym.relu(x), num_hidden=3, name='fc2')
    symbol, found, arg_params, aux_params = with_lambda(before, SMALL)
    assert_unchanged(before, symbol, arg_params, aux_params, SMALL)
    assert [one.layers for one in found] == [('conv1',), ('fc1',)]
    kept = assert_stripped(symbol, killed(arg_params), aux_params, SMALL)
    assert kept['conv1'] < 6
    assert kept['fc1'] < 7
    assert kept['fc2'] == 3


def test_a_constant_that_a_channel_would_leave():
    """The batch normalisation behind λ = 0 makes a constant. A 1×1 convolution takes it; a padded one cannot."""
    behind = {
        kernel: conv(normalised(conv(mx.sym.var('data'), 'conv1', 6), 'bn1'), 'conv2', 4, kernel) for kernel in (1, 3)
    }
    for kernel in (1, 3):
        x = mx.sym.concat(conv(mx.sym.var('data'), 'conv0', 6), conv(mx.sym.var('data'), 'conv1', 6), dim=1)
        x = scores(conv(normalised(x, 'bn'), 'conv2', 4, kernel))
        layers = [one.layers for one in add_lambda(x, SMALL)[1]]
        assert (('conv1',) in layers) == (kernel == 1)
    assert [[one.layers for one in add_lambda(scores(x), SMALL)[1]] for x in behind.values()] == [
        [('conv1',), ('conv2',)]
    ] * 2


@pytest.mark.parametrize('act_type', ['sigmoid', 'softrelu'])
def test_an_activation_that_makes_no_zero_of_zero(act_type):
    """sigmoid(0) is 1/2: what is behind it reads a constant, which a padded convolution cannot take over."""
    x = mx.sym.Activation(conv(mx.sym.var('data'), 'conv1', 6), act_type=act_type)
    assert add_lambda(scores(conv(x, 'conv2', 4, 3)), SMALL)[1][0].layers == ('conv2',)
    assert add_lambda(scores(conv(x, 'conv2', 4, 1)), SMALL)[1][0].layers == ('conv1',)


def test_excluded_layers_stay():
    before, image_shape, _ = foreign_networks.cifar_resnet()
    _, found = add_lambda(before, image_shape, ('channel', 'block'), ['*stage1*', '*_stage2_conv5'])
    layers = {layer.partition('_')[2] for one in found for layer in one.layers}
    assert 'stage2_conv3' in layers
    assert not [layer for layer in layers if 'stage1' in layer or layer == 'stage2_conv5']
    assert sum(one.kind == 'block' for one in found) == 5  # of nine, without three and the one of conv5


def test_shrink_takes_what_was_added():
    """λ multiplies parameters, as in our own families: ``--shrink`` can rebuild the network."""
    before, image_shape, _ = foreign_networks.cifar_resnet()
    symbol, found, arg_params, aux_params = with_lambda(before, image_shape, ('block', 'channel'))
    arg_params = killed_blocks(symbol, killed(arg_params), [4])
    dead = {name: array.asnumpy() == 0 for name, array in arg_params.items() if 'lambda' in name}
    smaller = shrink(symbol, dead, {'data': (1, *image_shape)})
    arrays = {
        name: mx.nd.array(smaller.cut_array(name, array.asnumpy()))
        for name, array in {**arg_params, **aux_params}.items()
        if name in smaller.kept
    }
    data = images(1, shape=image_shape)
    expected, found = predict(symbol, arg_params, aux_params, data), predict(smaller.symbol, arrays, arrays, data)
    assert np.abs(expected - found).max() <= 1e-5 * np.abs(expected).max()
    assert arrays['lambda_block'].shape == (8,)


def test_what_the_symbol_says_afterwards():
    """Names begin with lambda_, λ starts at 1 without decay, and the image shape is recorded."""
    symbol, found = add_lambda(foreign_networks.se_network().symbol, SMALL, ('neuron', 'block'))
    assert {one.kind for one in found} == {'channel', 'block'}
    attributes = symbol.attr_dict()
    for name in {one.name for one in found}:
        assert name.startswith('lambda_')
        assert attributes[name]['__init__'] == mx.init.One().dumps()
        assert attributes[name]['__wd_mult__'] == '0.0'
    assert data_shape_of(symbol) == SMALL


def test_no_structure():
    before = scores(conv(mx.sym.var('data'), 'conv1', 6))
    symbol, found = add_lambda(before, SMALL, ('block', 'group'))
    assert found == []
    assert symbol.list_arguments() == before.list_arguments()


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        ({'kinds': ('neurons',)}, "no structure called 'neurons'; λ can scale channel, block, group"),
        ({'exclude': ['conv7']}, "no layer of the network is called 'conv7'; its layers are stem, unit0_conv1"),
        ({'image_shape': (3, 8)}, 'do not fit together'),
    ],
)
def test_mistakes(options, said):
    with pytest.raises(GraphError, match=said):
        add_lambda(**{'symbol': foreign_networks.se_network().symbol, 'image_shape': SMALL, **options})


def test_lambda_is_added_once():
    symbol, _ = add_lambda(foreign_networks.se_network().symbol, SMALL)
    with pytest.raises(GraphError, match='has λ already'):
        add_lambda(symbol, SMALL, ('block',))


def test_an_input_of_another_name():
    with pytest.raises(GraphError, match='no input called data'):
        add_lambda(scores(conv(mx.sym.var('images'), 'conv1', 6)), SMALL)


@pytest.mark.parametrize('end', ['scores', 'softmax', 'SoftmaxOutput'])
def test_a_loss_is_added_where_there_is_none(end):
    x = scores(conv(mx.sym.var('data'), 'conv1', 6))
    symbol = with_loss(x if end == 'scores' else getattr(mx.sym, end)(x, name='softmax'))
    assert symbol.list_arguments()[-1] == 'softmax_label'
    arg_params, aux_params = random_parameters(symbol, {'data': (2, *SMALL)})
    probabilities = predict(symbol, arg_params, aux_params, images(2))
    expected = predict(mx.sym.softmax(x), arg_params, aux_params, images(2))
    assert (probabilities == expected).all()


def test_no_loss_for_several_outputs():
    x = conv(mx.sym.var('data'), 'conv1', 6)
    with pytest.raises(GraphError, match='FullyConnected, sigmoid'):
        with_loss(mx.sym.Group([scores(x), mx.sym.sigmoid(x)]))
