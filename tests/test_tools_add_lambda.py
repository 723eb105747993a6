"""tools/add_lambda.py from the command line: from a network without λ to a smaller one, and what is refused."""

import os

import numpy as np
import pytest
from helpers import foreign_networks
from helpers.strip_networks import images, predict
from helpers.tiny_runs import metrics, refused, save_network, save_plain_network, train

from formats.checkpoint_files import load_checkpoint, save_model
from formats.params_file import save_arrays
from formats.symbol_file import load_symbol
from graphs.lambdas import lambda_layout
from interop.gluon_zoo import zoo_network
from runtime import mx
from runtime.errors import ProofError
from tools import add_lambda as tool
from tools import strip_params

SMALL = ['--image-shape', '3,8,8']


def add(*flags):
    assert tool.main([str(flag) for flag in flags]) == 0


def strip(prefix, epoch, out):
    assert strip_params.main([f'{prefix}:{epoch}', '--out', str(out)]) == 0


def without_lambda(params):
    return {name: array.asnumpy() for name, array in params.items() if 'lambda' not in name}


def assert_equal_parameters(first, second):
    first, second = without_lambda(first), without_lambda(second)
    assert first.keys() == second.keys()
    assert all((first[name] == second[name]).all() for name in first)


@pytest.fixture(scope='module')
def plain(tmp_path_factory):
    """The prefix of a run of a network without λ."""
    folder = tmp_path_factory.mktemp('plain')
    prefix = folder / 'plain'
    network = save_network(folder, kinds=())
    assert train(network, prefix, '--num-epochs', 1, '--optimizer', 'nag') == 0
    return prefix


@pytest.mark.parametrize('source', ['{}', '{}:1', '{}-symbol.json', '{}-0001.params'])
def test_a_checkpoint(plain, tmp_path, capsys, source):
    add(source.format(plain), '--scale', 'channel,block', '--out', tmp_path / 'net')
    said = capsys.readouterr().out
    assert 'equal to the bit' in said
    assert 'block: 2 structures' in said
    symbol, arg_params, aux_params = load_checkpoint(str(tmp_path / 'net'), 0)
    before = load_checkpoint(str(plain), 1)
    assert {vector.kind for vector in lambda_layout(symbol)} == {'neuron', 'block'}
    assert_equal_parameters(before[1], arg_params)
    assert_equal_parameters(before[2], aux_params)
    assert all((arg_params[vector.name].asnumpy() == 1).all() for vector in lambda_layout(symbol))
    assert (predict(symbol, arg_params, aux_params, images()) == predict(*before, images())).all()


def test_train_strip_and_select_again(plain, tmp_path):
    """Blocks first; then what is left gets λ on its channels. Each run starts from the weights before it."""
    add(plain, '--scale', 'block', '--out', tmp_path / 'blocks')
    assert train(str(tmp_path / 'blocks'), tmp_path / 'run', '--num-epochs', 1, '--gamma', 0.001, '--lr', 0.001) == 0
    symbol, arg_params, aux_params = load_checkpoint(str(tmp_path / 'run'), 1)
    arg_params['lambda_block'][0] = 0
    save_model(str(tmp_path / 'dead'), 1, symbol, arg_params, aux_params)
    strip(tmp_path / 'dead', 1, tmp_path / 'stripped')

    add(tmp_path / 'stripped', '--scale', 'channel', '--out', tmp_path / 'channels')
    symbol = load_symbol(str(tmp_path / 'channels-symbol.json'))
    assert 'stage1' not in ' '.join(name for name in symbol.list_arguments() if 'conv' in name)
    flags = ['--num-epochs', 3, '--target-macs', 0.6, '--lr', 0.01]
    assert train(str(tmp_path / 'channels'), tmp_path / 'again', *flags) == 0
    strip(tmp_path / 'again', 3, tmp_path / 'smaller')
    assert load_checkpoint(str(tmp_path / 'smaller'), 0)[1]['stage2_unit1_conv1_weight'].shape[0] < 8


def test_a_run_starts_from_the_parameters_of_its_network(plain, tmp_path):
    """With --lr 0 nothing but statistics moves, so that the weights are those of the checkpoint."""
    add(plain, '--out', tmp_path / 'net')
    assert train(f'{tmp_path / "net"}:0', tmp_path / 'run', '--num-epochs', 1, '--lr', 0) == 0
    assert_equal_parameters(load_checkpoint(str(plain), 1)[1], load_checkpoint(str(tmp_path / 'run'), 1)[1])
    assert metrics(tmp_path / 'run')[0]['train']['cross-entropy'] < np.log(10)


def test_a_network_of_gluoncv_without_weights(tmp_path, monkeypatch, capsys):
    """Its weights are not on disk, so only the symbol is written; it has the loss that training needs."""
    monkeypatch.setenv('MXNET_HOME', str(tmp_path / 'nothing'))
    add('cifar_resnet20_v1', '--out', tmp_path / 'net', *SMALL)
    assert 'not on disk' in capsys.readouterr().out
    assert os.listdir(str(tmp_path)) == ['net-symbol.json']
    assert train(str(tmp_path / 'net'), tmp_path / 'run', '--num-epochs', 1, '--num-examples', 32) == 0
    assert metrics(tmp_path / 'run')[0]['alive']['macs'] > 0


@pytest.mark.parametrize('classes', [10, 4])
def test_a_network_of_gluoncv_with_weights(tmp_path, monkeypatch, capsys, classes):
    """For other classes, the classifier starts from random values and all other weights stay."""
    block = zoo_network('cifar_resnet20_v1')
    block.initialize(mx.init.Normal(0.1))
    block(mx.nd.zeros((1, 3, 32, 32)))
    path = tmp_path / 'models' / 'cifar_resnet20_v1-121e1579.params'
    path.parent.mkdir()
    weights = {name: parameter.data() for name, parameter in block._collect_params_with_prefix().items()}
    save_arrays(str(path), weights)
    monkeypatch.setenv('MXNET_HOME', str(tmp_path))
    add('cifar_resnet20_v1', '--num-classes', classes, '--out', tmp_path / 'net')
    assert ('from random values' in capsys.readouterr().out) == (classes == 4)
    _, arg_params, aux_params = load_checkpoint(str(tmp_path / 'net'), 0)
    found = without_lambda({**arg_params, **aux_params})
    assert len(found) == len(weights)
    stem = next(array for name, array in found.items() if name.endswith('_conv0_weight') and 'stage' not in name)
    assert (stem == weights['features.0.weight'].asnumpy()).all()
    assert next(array for name, array in found.items() if name.endswith('dense0_bias')).shape == (classes,)


def test_list_writes_nothing(plain, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    add(plain, '--list', '--exclude', 'stage1*')
    lines = capsys.readouterr().out.splitlines()
    assert os.listdir('.') == []
    # Two 1×1 and 3×3 convolutions of stage 2; 16 channels on 8×8 go to 8 on 4×4.
    assert [line.split()[:3] for line in lines if line.startswith('channel ')] == [
        ['channel', 'stage2_unit1_conv1', '8'],
        ['channel', 'stage2_unit1_conv2', '8'],
    ]
    excluded, *others = lines[lines.index(next(line for line in lines if line.startswith('without λ'))) + 1 :]
    assert excluded.endswith(': excluded, or read by a layer that is')
    assert excluded.startswith('  conv0, ')  # stage1_unit1_bn1 is excluded too
    assert 'stage1_unit1_conv1' in excluded
    reasons = dict(line.strip().split(': ') for line in others)
    assert reasons['fc1'].startswith('the output of the network')
    (tied,) = (reason for names, reason in reasons.items() if 'stage2_unit1_conv3' in names)
    assert 'added' in tied


def test_list_says_why_shuffled_channels_stay(tmp_path, capsys):
    """What passes by a branch, and what the branch ends in, are shuffled together in each unit."""
    foreign_networks.shufflenet().symbol.save(str(tmp_path / 'net-symbol.json'))
    add(tmp_path / 'net-symbol.json', '--list', *SMALL)
    tied, output = capsys.readouterr().out.splitlines()[-2:]
    assert tied.startswith('  stem, unit0_conv3, unit1_conv3: their channels are added to, or shuffled with')
    assert output.startswith('  fc1: the output')


@pytest.mark.parametrize(
    ('flags', 'said'),
    [
        (['{plain}'], '--out PREFIX'),
        (['{plain}', '--out', '{plain}', '--force'], 'is an input: give'),
        (['{folder}/none', '--out', 'x'], 'there is no'),
        (['{plain}:7', '--out', 'x'], 'no such file'),
        (['net.onnx', '--out', 'x'], 'is an ONNX file'),
        (['resnet5000', '--out', 'x'], 'GluonCV has no network'),
        (['{plain}', '--out', 'x', '--scale', 'stage'], "no structure called 'stage'"),
        (['{plain}', '--out', 'x', '--scale', ','], 'names no structure'),
        (['{plain}', '--out', 'x', '--scale', 'group'], 'nothing of the kind group'),
        (['{plain}', '--out', 'x', '--exclude', 'conv77'], "no layer of the network is called 'conv77'"),
        (['{plain}', '--out', 'x', '--num-classes', '3'], '--num-classes is for a network of GluonCV'),
        (['{plain}', '--out', 'x', '--image-shape', '3'], '--image-shape 3'),
    ],
)
def test_mistakes(capfd, plain, tmp_path, monkeypatch, flags, said):
    monkeypatch.chdir(tmp_path)
    folder = os.path.dirname(str(plain))
    flags = [flag.format(plain=plain, folder=folder) for flag in flags]
    assert said in refused(capfd, tmp_path, *flags, script=tool)


def test_a_symbol_that_does_not_say_its_images(capfd, tmp_path):
    x = mx.sym.Convolution(mx.sym.Variable('data'), num_filter=4, kernel=(3, 3), name='conv1')
    mx.sym.FullyConnected(mx.sym.relu(x), num_hidden=3, name='fc1').save(str(tmp_path / 'my-symbol.json'))
    flags = [tmp_path / 'my-symbol.json', '--out', tmp_path / 'net']
    assert '--image-shape' in refused(capfd, tmp_path, *flags, script=tool)
    add(*flags, *SMALL)
    assert 'lambda_conv1' in load_symbol(str(tmp_path / 'net-symbol.json')).list_arguments()


def test_nothing_is_overwritten(capfd, plain, tmp_path):
    add(plain, '--out', tmp_path / 'net')
    assert '--force' in refused(capfd, tmp_path, plain, '--out', tmp_path / 'net', script=tool)
    # Of what --force replaces nothing is left, not even parameters that would not fit.
    add(save_plain_network(tmp_path), '--out', tmp_path / 'net', '--force')
    assert not (tmp_path / 'net-0000.params').exists()


def test_nothing_is_written_without_proof(plain, tmp_path, monkeypatch):
    """As if λ had been multiplied in where it changes the function."""
    real = tool.with_ones

    def wrong(network, symbol, shape):
        network = real(network, symbol, shape)
        name = lambda_layout(symbol)[0].name
        return network._replace(arg_params={**network.arg_params, name: network.arg_params[name] * 2})

    monkeypatch.setattr(tool, 'with_ones', wrong)
    with pytest.raises(ProofError, match='differ'):
        add(plain, '--out', tmp_path / 'net')
    assert os.listdir(str(tmp_path)) == []


@pytest.mark.parametrize(('epoch', 'said'), [('', 'there is no'), (':0', 'there is no')])
def test_training_from_no_checkpoint(capfd, tmp_path, epoch, said):
    flags = ['--network', f'{tmp_path / "none"}{epoch}', '--model-prefix', tmp_path / 'run']
    assert said in refused(capfd, tmp_path, *flags)


def test_training_from_an_epoch_that_is_none(capfd, plain, tmp_path):
    flags = ['--network', f'{plain}:last', '--model-prefix', tmp_path / 'run']
    assert 'PREFIX:EPOCH' in refused(capfd, tmp_path, *flags)
