"""Operators behind or before λ whose dead channels go, or that say why they stay."""

import numpy as np
import pytest
from helpers.strip_networks import strip_twice

from formats.checkpoint_files import load_checkpoint, save_model
from graphs.comparison import noise
from graphs.predictor import Network
from graphs.proof import outputs_of, prove
from runtime import mx
from runtime.errors import UserError
from tools import strip_params

SHAPES = {'data': (1, 3, 16, 16)}


def scaled(data, name, channels):
    """``data`` times a λ for each channel."""
    factor = mx.sym.reshape(mx.sym.Variable(f'lambda_{name}', shape=(channels,)), shape=(1, -1, 1, 1))
    return mx.sym.broadcast_mul(data, factor)


def conv(data, name, channels, **options):
    return mx.sym.Convolution(data, num_filter=channels, kernel=(3, 3), name=name, **options)


def classify(data):
    pooled = mx.sym.Pooling(data, global_pool=True, kernel=(1, 1), pool_type='avg')
    return mx.sym.FullyConnected(pooled, num_hidden=5, name='fc1')


def random_network(symbol, dead, shapes=SHAPES):
    """Random parameters; the first ``dead[name]`` entries of λ ``name`` are 0."""
    random = np.random.RandomState(0)
    arguments, _, states = symbol.infer_shape(**shapes)

    def drawn(name, shape):
        is_positive = 'lambda' in name or name.endswith(('gamma', 'var'))
        values = random.uniform(0.5, 1.5, shape) if is_positive else random.normal(size=shape) * 0.3
        if name in dead:
            values.reshape(-1)[: dead[name]] = 0
        return mx.nd.array(values)

    return Network(
        symbol,
        {name: drawn(name, shape) for name, shape in zip(symbol.list_arguments(), arguments) if name not in shapes},
        {name: drawn(name, shape) for name, shape in zip(symbol.list_auxiliary_states(), states)},
    )


def stripped_network(symbol, dead, shapes=SHAPES):
    """The proved stripped network and, by layer, how many channels it kept."""
    network = random_network(symbol, dead, shapes)
    stripped = strip_twice(*network, shapes=shapes)
    prove(network, Network(*stripped[:3]), noise(4, shapes), 1e-4)
    return stripped, {layer['name']: layer['kept'] for layer in stripped.report['layers']}


@pytest.mark.parametrize('shared_slope', [False, True])
def test_dead_channels_before_prelu_go_with_their_slopes(shared_slope):
    x = scaled(conv(mx.sym.Variable('data'), 'c0', 16, no_bias=True), 'a', 16)
    slope = mx.sym.Variable('p_gamma', shape=(1 if shared_slope else 16,))
    symbol = classify(conv(mx.sym.LeakyReLU(x, gamma=slope, act_type='prelu', name='p'), 'c1', 8))
    stripped, kept = stripped_network(symbol, {'lambda_a': 12})
    assert kept['c0'] == 4
    assert stripped.arg_params['p_gamma'].shape == (1 if shared_slope else 4,)
    assert stripped.arg_params['c1_weight'].shape[1] == 4


@pytest.mark.parametrize('no_bias', [True, False])
def test_dead_channels_before_and_after_deconvolution_go(no_bias):
    x = scaled(conv(mx.sym.Variable('data'), 'c0', 16, no_bias=True), 'a', 16)
    up = mx.sym.Deconvolution(x, num_filter=8, kernel=(2, 2), stride=(2, 2), no_bias=no_bias, name='up')
    symbol = conv(scaled(up, 'up', 8), 'out', 3)
    stripped, kept = stripped_network(symbol, {'lambda_a': 12, 'lambda_up': 6})
    assert (kept['c0'], kept['up']) == (4, 2)
    assert stripped.arg_params['up_weight'].shape == (4, 2, 2, 2)
    assert not [name for name in stripped.arg_params if 'lambda' in name]


def test_a_grouped_deconvolution_keeps_its_inputs():
    x = scaled(conv(mx.sym.Variable('data'), 'c0', 16), 'a', 16)
    up = mx.sym.Deconvolution(x, num_filter=8, kernel=(2, 2), stride=(2, 2), num_group=4, name='up')
    _, kept = stripped_network(conv(up, 'out', 3), {'lambda_a': 12})
    assert kept['c0'] == 16


def test_dead_channels_around_a_batch_normalisation_over_devices_go():
    x = mx.sym.contrib.SyncBatchNorm(
        conv(mx.sym.Variable('data'), 'c0', 8), key='key', ndev=8, fix_gamma=False, name='bn'
    )
    symbol = classify(conv(mx.sym.relu(scaled(x, 'a', 8)), 'c1', 4))
    _, kept = stripped_network(symbol, {'lambda_a': 5})
    assert (kept['c0'], kept['bn']) == (3, 3)


def test_a_layer_that_is_used_twice_is_two_nodes_of_one_name():
    data, factor = mx.sym.Variable('data'), mx.sym.Variable('lambda_a', shape=(1, 8, 1, 1))
    x = mx.sym.relu(mx.sym.broadcast_mul(conv(data, 'a', 8, pad=(1, 1)), factor))
    parameters = {role: mx.sym.Variable(f'b_{role}') for role in ('weight', 'bias')}
    for _ in range(2):
        x = mx.sym.relu(mx.sym.broadcast_mul(conv(x, 'b', 8, pad=(1, 1), **parameters), factor))
    symbol = classify(x)
    network = random_network(symbol, {'lambda_a': 2})
    stripped = strip_twice(*network, shapes=SHAPES)
    prove(network, Network(*stripped[:3]), noise(4, SHAPES), 1e-4)
    assert [layer['kept'] for layer in stripped.report['layers'] if layer['name'] == 'b'] == [6, 6]


def strip_it(folder, *options):
    return strip_params.main([f'{folder / "net"}:1', '--out', str(folder / 's'), *options])


def test_the_input_may_have_any_name_and_fix_the_batch(tmp_path, capsys):
    images = mx.sym.Variable('images')
    pooled = mx.sym.Pooling(scaled(conv(images, 'c0', 8), 'a', 8), global_pool=True, kernel=(1, 1), pool_type='avg')
    symbol = mx.sym.FullyConnected(mx.sym.reshape(pooled, shape=(1, -1)), num_hidden=5, name='f')
    shapes = {'images': (1, 3, 16, 16)}
    save_model(str(tmp_path / 'net'), 1, *random_network(symbol, {'lambda_a': 3}, shapes))
    assert strip_it(tmp_path, '--image-shape', '3,16,16') == 0
    assert 'on 8 images' in capsys.readouterr().out
    assert load_checkpoint(str(tmp_path / 's'), 0)[1]['c0_weight'].shape[0] == 5


def test_several_inputs_take_their_shapes_by_option(tmp_path):
    x = mx.sym.Pooling(scaled(conv(mx.sym.Variable('data'), 'c0', 8), 'a', 8), global_pool=True, kernel=(1, 1))
    symbol = mx.sym.FullyConnected(mx.sym.concat(mx.sym.Flatten(x), mx.sym.Variable('meta')), num_hidden=5, name='f')
    shapes = {**SHAPES, 'meta': (1, 7)}
    save_model(str(tmp_path / 'net'), 1, *random_network(symbol, {'lambda_a': 3}, shapes))
    with pytest.raises(UserError, match='--input-shape data=SHAPE --input-shape meta=SHAPE'):
        strip_it(tmp_path, '--image-shape', '3,16,16')
    with pytest.raises(UserError, match="no input 'more'"):
        strip_it(tmp_path, '--input-shape', 'more=3')
    assert strip_it(tmp_path, '--input-shape', 'data=3,16,16', '--input-shape', 'meta=7') == 0
    assert load_checkpoint(str(tmp_path / 's'), 0)[1]['c0_weight'].shape[0] == 5


def test_a_network_that_is_random_is_named(tmp_path):
    dropped = mx.sym.Dropout(scaled(conv(mx.sym.Variable('data'), 'c0', 8), 'a', 8), mode='always', name='drop')
    save_model(str(tmp_path / 'net'), 1, *random_network(classify(dropped), {'lambda_a': 3}))
    with pytest.raises(UserError, match="this network is random: Dropout 'drop'"):
        strip_it(tmp_path, '--image-shape', '3,16,16')


@pytest.mark.parametrize(
    ('between', 'operator'),
    [
        (lambda x: mx.sym.Activation(x, act_type='sigmoid', name='act'), "Convolution 'c1'"),
        (lambda x: mx.sym.Activation(x, act_type='softrelu', name='act'), "Convolution 'c1'"),
        (lambda x: mx.sym.LRN(x, nsize=3, name='act'), "LRN 'act'"),
    ],
)
def test_what_holds_dead_channels_is_named(between, operator, tmp_path, capsys):
    x = between(scaled(conv(mx.sym.Variable('data'), 'c0', 8, no_bias=True), 'a', 8))
    symbol = classify(conv(x, 'c1', 4, pad=(1, 1)))
    stripped, _ = stripped_network(symbol, {'lambda_a': 5})
    (held,) = stripped.report['dead_but_kept']
    assert (held['channels'], held['operator']) == (5, operator)
    save_model(str(tmp_path / 'net'), 1, *random_network(symbol, {'lambda_a': 5}))
    strip_it(tmp_path, '--image-shape', '3,16,16')
    assert f'5 dead channels of {held["layer"]} stay, because {operator} reads them' in capsys.readouterr().out


def shuffled(data, groups, written):
    """A channel shuffle of 8 channels of 14×14, in codes or, where it is ``written``, in numbers."""
    split = (0, groups, 8 // groups, 14, 14) if written else (0, -4, groups, -1, -2)
    data = mx.sym.SwapAxis(mx.sym.reshape(data, shape=split), dim1=1, dim2=2)
    return mx.sym.reshape(data, shape=(0, 8, 14, 14) if written else (0, -3, -2))


@pytest.mark.parametrize('written', [False, True])
@pytest.mark.parametrize(('groups', 'dead', 'left'), [(2, [0, 4, 5, 3, 7], 4), (4, [0, 2, 4, 6], 4), (2, [0, 5], 8)])
def test_a_shuffle_lets_channels_go_that_are_dead_in_every_group(groups, dead, left, written):
    """Of two groups 0–3 and 4–7, places 0 and 3 are dead in both. The dead channel of place 1 stays, and is named."""
    layer = conv(mx.sym.Variable('data'), 'c0', 8, no_bias=True)
    symbol = classify(conv(shuffled(scaled(layer, 'a', 8), groups, written), 'c1', 4))
    network = random_network(symbol, {})
    network.arg_params['lambda_a'][dead] = 0
    stripped = strip_twice(*network, shapes=SHAPES)
    prove(network, Network(*stripped[:3]), noise(4, SHAPES), 1e-4)
    assert stripped.arg_params['c0_weight'].shape[0] == stripped.arg_params['c1_weight'].shape[1] == left
    held = stripped.report['dead_but_kept']
    assert sum(one['channels'] for one in held) == left + len(dead) - 8
    assert all('equal groups' in one['reason'] for one in held)


def test_a_shuffle_of_one_group_is_none():
    """Of four groups of two, one channel of each is dead at the same place. The others are groups of one then."""
    symbol = classify(conv(shuffled(scaled(conv(mx.sym.Variable('data'), 'c0', 8), 'a', 8), 4, False), 'c1', 4))
    network = random_network(symbol, {})
    network.arg_params['lambda_a'][[1, 3, 5, 7, 0]] = 0
    stripped = strip_twice(*network, shapes=SHAPES)
    prove(network, Network(*stripped[:3]), noise(4, SHAPES), 1e-4)
    assert stripped.arg_params['c0_weight'].shape[0] == 3
    assert stripped.report['dead_but_kept'] == []


def test_nothing_is_named_where_all_that_is_dead_goes():
    x = mx.sym.Activation(scaled(conv(mx.sym.Variable('data'), 'c0', 8), 'a', 8), act_type='sigmoid')
    stripped, kept = stripped_network(classify(conv(x, 'c1', 4)), {'lambda_a': 5})
    assert stripped.report['dead_but_kept'] == []
    assert kept['c0'] == 3


def test_each_of_several_outputs_is_proved_and_converted(tmp_path):
    pytest.importorskip('onnxruntime')
    import onnx

    from interop.onnx_export import export_onnx
    from interop.runners import OnnxRunner

    x = scaled(conv(mx.sym.Variable('data'), 'c0', 8), 'a', 8)
    symbol = mx.sym.Group([mx.sym.softmax(classify(x)), conv(x, 'map', 2)])
    stripped, kept = stripped_network(symbol, {'lambda_a': 5})
    assert kept['c0'] == 3
    path = str(tmp_path / 'net.onnx')
    found = export_onnx(*stripped[:3], (3, 16, 16), path)
    assert [output.name for output in found.outputs] == ['fc1', 'map']
    images = noise(3, SHAPES)
    outputs = OnnxRunner(onnx.load(path), path)(images['data'])
    for expected, output in zip(outputs_of(Network(*stripped[:3]), images), outputs):
        np.testing.assert_allclose(output, expected, atol=1e-5 * np.abs(expected).max())
