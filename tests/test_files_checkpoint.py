"""Checkpoints: symbol and parameters that belong together, and one line on what does not."""

import numpy as np
import pytest

from formats.checkpoint_files import known_epochs, load_checkpoint, save_model
from formats.symbol_fit import check_fit
from graphs.predictor import Network, Predictor
from runtime import mx
from runtime.errors import CheckpointError, GraphError
from symbols import get_symbol

IMAGE = '3,32,32'


def network(scale=None, placement='weight', image=IMAGE, **options):
    symbol = get_symbol('resnet', 20, 10, image, scale=scale, lambda_placement=placement, **options)
    return (symbol, *parameters(symbol, data=(1, *map(int, image.split(',')))))


def parameters(symbol, **shapes):
    arguments, _, states = symbol.infer_shape(**shapes)
    random = np.random.RandomState(0)
    arg = {
        name: mx.nd.array(random.rand(*shape))
        for name, shape in zip(symbol.list_arguments(), arguments)
        if name not in (*shapes, 'softmax_label')
    }
    return arg, {name: mx.nd.array(random.rand(*shape)) for name, shape in zip(symbol.list_auxiliary_states(), states)}


@pytest.mark.parametrize('placement', ['weight', 'output'])
def test_there_and_back_and_stock_mxnet_reads_it(tmp_path, placement):
    symbol, arg, aux = network(placement=placement)
    prefix = str(tmp_path / 'runs' / 'net')
    save_model(prefix, 12, symbol, arg, aux)
    for loaded, loaded_arg, loaded_aux in (load_checkpoint(prefix, 12), mx.model.load_checkpoint(prefix, 12)):
        assert loaded.tojson() == symbol.tojson()
        for before, after in ((arg, loaded_arg), (aux, loaded_aux)):
            assert before.keys() == after.keys()
            assert all(np.array_equal(before[name].asnumpy(), after[name].asnumpy()) for name in before)
    mx.model.save_checkpoint(prefix, 13, symbol, arg, aux)
    assert load_checkpoint(prefix, 13)[1].keys() == arg.keys()


def test_missing_epochs_say_which_there_are(tmp_path):
    prefix = str(tmp_path / 'net[1]')
    with pytest.raises(CheckpointError, match=r'net\[1\]-symbol.json: no such file; there is no .*-NNNN.params at all'):
        load_checkpoint(prefix, 0)
    symbol, arg, aux = network()
    for epoch in (10000, 3, 1):
        save_model(prefix, epoch, symbol, arg, aux)
    (tmp_path / 'net[1]-best.params').write_bytes(b'')
    (tmp_path / 'other-0007.params').write_bytes(b'')
    assert known_epochs(prefix) == [1, 3, 10000]
    with pytest.raises(
        CheckpointError, match=r'net\[1\]-0002.params: no such file; epochs of .* that exist: 1, 3, 10000'
    ):
        load_checkpoint(prefix, 2)


def test_padding_and_upsampling():
    """MXNet cannot tell their shapes, not even in part, where it does not know the shape of the images."""
    x = mx.sym.Variable('data', attr={'__image_shape__': '3,8,8'})
    x = mx.sym.Pad(x, mode='constant', pad_width=(0, 0, 0, 0, 1, 1, 1, 1))
    x = mx.sym.Convolution(x, num_filter=4, kernel=(3, 3), name='conv')
    symbol = mx.sym.UpSampling(x, scale=2, sample_type='nearest')
    arg, aux = parameters(symbol, data=(1, 3, 8, 8))
    check_fit(symbol, arg, aux, 'here')
    with pytest.raises(CheckpointError, match='conv_bias'):
        check_fit(symbol, {**arg, 'conv_bias': mx.nd.zeros((5,))}, aux, 'here')


def _conv():
    return mx.sym.Convolution(mx.sym.Variable('data'), num_filter=4, kernel=(3, 3), pad=(1, 1), name='conv')


@pytest.mark.parametrize(
    'layer',
    [
        lambda x: mx.sym.UpSampling(x, scale=2, sample_type='nearest'),
        lambda x: mx.sym.UpSampling(x, scale=2, sample_type='bilinear', num_filter=4, name='up'),
        lambda x: mx.sym.Pad(x, mode='constant', pad_width=(0, 0, 0, 0, 1, 1, 1, 1)),
        lambda x: mx.sym.Crop(x, h_w=(4, 4), num_args=1),
        lambda x: mx.sym.InstanceNorm(x, name='norm'),
        lambda x: mx.sym.L2Normalization(mx.sym.FullyConnected(x, num_hidden=4, name='fc')),
        lambda x: mx.sym.ROIPooling(x, mx.sym.zeros((1, 5)), pooled_size=(2, 2), spatial_scale=1.0),
        lambda x: mx.sym.contrib.MultiBoxPrior(x, sizes='(0.5,)', ratios='(1,)'),
        lambda x: mx.sym.topk(x, k=2, axis=1),
        lambda x: mx.sym.space_to_depth(x, block_size=2),
    ],
    ids=range(10),
)
def test_operators_whose_shapes_need_the_image_load_without_it(tmp_path, layer):
    symbol = layer(_conv())
    arg, aux = parameters(symbol, data=(1, 3, 8, 8))
    save_model(str(tmp_path / 'net'), 0, symbol, arg, aux)
    network = Network(*load_checkpoint(str(tmp_path / 'net'), 0))
    images = np.random.RandomState(0).rand(2, 3, 8, 8).astype(np.float32)
    expected = mx.sym.Group([symbol]).eval(ctx=mx.cpu(), data=mx.nd.array(images), **arg, **aux)
    np.testing.assert_allclose(Predictor(network)(images)[0], expected[0].asnumpy(), rtol=1e-5)


@pytest.mark.parametrize('shape', [(2, 3, 8, 8), (1, 3, 6, 8)])
def test_shapes_are_checked_again_once_the_image_is_known(tmp_path, shape):
    """MXNet would write beyond its memory."""
    gamma = mx.sym.max(mx.sym.Variable('scale', shape=(2, 3)), axis=0, name='gamma')
    symbol = mx.sym.BatchNorm(mx.sym.UpSampling(_conv(), scale=2, sample_type='nearest'), gamma, name='bn')
    save_model(str(tmp_path / 'net'), 0, symbol, *parameters(symbol, data=(1, 3, 8, 8)))
    network = Network(*load_checkpoint(str(tmp_path / 'net'), 0))
    with pytest.raises(GraphError, match="'gamma' cannot work on inputs of the shapes"):
        Predictor(network)(np.zeros(shape, np.float32))


def without_image_shape(symbol):
    return mx.sym.load_json(symbol.tojson().replace('__image_shape__', '__other__'))


@pytest.mark.parametrize('carries_image_shape', [True, False])
@pytest.mark.parametrize(
    ('name', 'shape', 'reason'),
    [
        ('fc1_weight', (10, 255), r'fc1_weight.*\(10, 255\).*\(10, 256\)'),
        ('stage2_unit1_conv2_weight', (32, 32, 1, 3), r'stage2_unit1_conv2_weight.*\(32, 32, 1, 3\).*\(32, 32, 3, 3\)'),
        ('conv0_weight', (16, 1, 3, 3), 'conv0_weight'),
        ('lambda_block', (7,), r'lambda_block.*\(7,\)'),
    ],
)
def test_wrong_shapes_are_named(tmp_path, carries_image_shape, name, shape, reason):
    symbol, arg, aux = network()
    symbol = symbol if carries_image_shape else without_image_shape(symbol)
    save_model(str(tmp_path / 'net'), 0, symbol, {**arg, name: mx.nd.ones(shape)}, aux)
    if name == 'conv0_weight' and not carries_image_shape:
        # Nothing else says how many channels the images have.
        assert load_checkpoint(str(tmp_path / 'net'), 0)[1][name].shape == shape
        return
    with pytest.raises(CheckpointError, match=r'net-0000.params: .*(' + reason + ')'):
        load_checkpoint(str(tmp_path / 'net'), 0)


def test_wrong_shape_of_a_state(tmp_path):
    symbol, arg, aux = network()
    save_model(str(tmp_path / 'net'), 0, symbol, arg, {**aux, 'bn1_moving_var': mx.nd.ones((3,))})
    with pytest.raises(CheckpointError, match=r"'bn1_moving_var' has shape \(3,\), but the network needs \(256,\)"):
        load_checkpoint(str(tmp_path / 'net'), 0)


@pytest.mark.parametrize(
    'lost', ['fc1_bias', 'lambda_block', 'stage1_unit1_conv1_weight', 'bn1_gamma', 'bn1_moving_mean']
)
def test_lost_parameters_are_named(tmp_path, lost):
    symbol, arg, aux = network()
    (arg if lost in arg else aux).pop(lost)
    save_model(str(tmp_path / 'net'), 0, symbol, arg, aux)
    with pytest.raises(CheckpointError, match=f'net-0000.params: .*{lost}.* is missing'):
        load_checkpoint(str(tmp_path / 'net'), 0)


def test_parameters_of_another_network_are_named(tmp_path):
    symbol, arg, aux = network(scale='none')
    _, other_arg, other_aux = network()
    save_model(str(tmp_path / 'net'), 0, symbol, other_arg, other_aux)
    with pytest.raises(CheckpointError, match=r"no argument 'lambda_block'"):
        load_checkpoint(str(tmp_path / 'net'), 0)
    save_model(str(tmp_path / 'net'), 0, symbol, arg, {**aux, 'extra': mx.nd.ones((1,))})
    with pytest.raises(CheckpointError, match=r"no auxiliary state 'extra'"):
        load_checkpoint(str(tmp_path / 'net'), 0)


def test_a_graph_that_lies_about_shapes_is_refused_before_anything_is_bound(tmp_path):
    x = mx.sym.Convolution(
        mx.sym.Variable('data', attr={'__image_shape__': '3,8,8'}), kernel=(1, 1), num_filter=4, name='conv'
    )
    gamma = mx.sym.reshape(mx.sym.Variable('scale', shape=(1, 3)) * 2, shape=(-1,), name='gamma')
    symbol = mx.sym.BatchNorm(x, gamma, name='bn')
    save_model(str(tmp_path / 'net'), 0, symbol, *parameters(symbol, data=(1, 3, 8, 8)))
    with pytest.raises(GraphError, match="net-symbol.json: .*'gamma' cannot work on"):
        load_checkpoint(str(tmp_path / 'net'), 0)


@pytest.mark.parametrize(
    ('sides', 'reason'),
    [
        ('3,6000,6000', 'is an image of 108,000,000 values'),
        ('3,0,8', 'is an image of 0 values'),
        ('3,8,8', None),
        ('three', 'is no channels,height,width'),
        ('3,' * 1000 + '3', 'is no channels,height,width'),
        ('3,1600,1600', r"'wide' would be an array of the shape \(1, 24, 1600, 1600\)"),
    ],
)
def test_an_image_size_beyond_reason_is_refused(tmp_path, sides, reason):
    """Stripping would run the network on it, in gigabytes."""
    data = mx.sym.Variable('data', attr={'__image_shape__': sides})
    symbol = mx.sym.relu(mx.sym.tile(data, reps=(1, 8, 1, 1), name='wide'))
    save_model(str(tmp_path / 'net'), 0, symbol, {}, {})
    if reason is None:
        load_checkpoint(str(tmp_path / 'net'), 0)
        return
    with pytest.raises(GraphError, match=f'net-symbol.json: .*{reason}'):
        load_checkpoint(str(tmp_path / 'net'), 0)


def test_networks_with_other_inputs_load(tmp_path):
    """A network without image shape, with labels of its own and two inputs."""
    left = mx.sym.FullyConnected(mx.sym.Variable('left'), num_hidden=4, name='a')
    right = mx.sym.FullyConnected(mx.sym.Variable('right'), num_hidden=4, name='b')
    symbol = mx.sym.LinearRegressionOutput(left + right, mx.sym.Variable('target_label'), name='out')
    arg, aux = parameters(symbol, left=(1, 3), right=(1, 5))
    arg.pop('target_label', None)
    save_model(str(tmp_path / 'net'), 0, symbol, arg, aux)
    assert load_checkpoint(str(tmp_path / 'net'), 0)[1].keys() == {'a_weight', 'a_bias', 'b_weight', 'b_bias'}
