"""compare_checkpoints.py: what it finds equal, what different, what unreadable, and how it says so."""

import json

import numpy as np
import pytest

from formats.checkpoint_files import save_model
from formats.params_file import save_arrays
from graphs.predictor import Network, Predictor
from graphs.strip import strip
from interop import models
from interop.compare import compare_tensors
from interop.convert import to_gluoncv_params, to_torch_state
from interop.gluon_zoo import zoo_file
from interop.models import read_model
from runtime import mx
from runtime.cli import run
from runtime.errors import CheckpointError, UnknownNetworkError, UserError
from symbols import get_symbol
from tools.compare_checkpoints import main
from train.data.datasets import eval_iterator, load_dataset

CIFAR = (3, 32, 32)


def random_params(symbol, seed=0):
    generator = np.random.RandomState(seed)
    arguments, _, states = symbol.infer_shape(data=(1, *CIFAR))

    def drawn(name, shape):
        if name.endswith('weight'):
            return generator.normal(0, np.sqrt(1 / np.prod(shape[1:])), shape)
        return generator.uniform(0.5, 1.5, shape)

    return tuple(
        {
            name: mx.nd.array(drawn(name, shape))
            for name, shape in zip(names, shapes)
            if name not in ('data', 'softmax_label')
        }
        for names, shapes in ((symbol.list_arguments(), arguments), (symbol.list_auxiliary_states(), states))
    )


def checkpoint(folder, name, network='resnet-v1', depth=20, scale='none', change=None, seed=0):
    """``(source, symbol, arg_params, aux_params)`` of a random network that was saved in ``folder``; ``change`` edits
    its arguments before.
    """
    symbol = get_symbol(network, depth, 10, CIFAR, scale)
    arg_params, aux_params = random_params(symbol, seed)
    if change:
        change(arg_params)
    save_model(str(folder / name), 0, symbol, arg_params, aux_params)
    return f'{folder / name}:0', symbol, arg_params, aux_params


def compared(capsys, *argv):
    """(exit code, the object that --json prints)"""
    code = main([*map(str, argv), '--json'])
    return code, json.loads(capsys.readouterr().out)


def test_a_network_equals_itself_however_it_is_named(tmp_path, capsys):
    source, *_ = checkpoint(tmp_path, 'net', scale='block')
    for other in (source, source.replace(':0', ''), str(tmp_path / 'net-0000.params')):
        code, report = compared(capsys, source, other)
        assert (code, report['equal'], report['outputs']['max_abs'], report['outputs']['top1_agreement']) == (
            0,
            True,
            0,
            1,
        )
        assert all(row['status'] == 'compared' and row['max_abs'] == 0 for row in report['tensors'])


def test_differences_are_measured_and_the_worst_comes_first(tmp_path, capsys):
    def change(params):
        params['fc1_bias'][3] += 0.25
        params['conv0_weight'][:] *= 3

    a, _, before, _ = checkpoint(tmp_path, 'a')
    b, _, after, _ = checkpoint(tmp_path, 'b', change=change)
    code, report = compared(capsys, a, b)
    assert (code, report['equal']) == (1, False)
    first, second, third = report['tensors'][:3]
    weight = np.abs(before['conv0_weight'].asnumpy()).max()
    assert first['name'] == 'conv0_weight'
    assert np.allclose([first['max_abs'], first['relative']], [2 * weight, 2 / 3], rtol=1e-6)
    largest = max(np.abs(params['fc1_bias'].asnumpy()).max() for params in (before, after))
    assert second['name'] == 'fc1_bias'
    assert np.allclose([second['max_abs'], second['relative']], [0.25, 0.25 / largest], rtol=1e-5)
    assert third['max_abs'] == 0
    assert report['outputs']['max_abs'] > 0.2


def test_text_shows_the_worst_and_all_shows_all(tmp_path, capsys):
    a, *_ = checkpoint(tmp_path, 'a')
    b, *_ = checkpoint(tmp_path, 'b', seed=1)
    assert main([a, b]) == 1
    short = capsys.readouterr().out
    assert main([a, b, '--all']) == 1
    full = capsys.readouterr().out
    assert 'tensors: 97 compared, 0 of them identical; 0 only in A, 0 only in B, 0 of another shape' in short
    assert 'and 87 more that differ; --all lists them' in short
    assert full.count('_weight') == 20
    assert len(full.splitlines()) == len(short.splitlines()) + 87 - 1
    assert short.splitlines()[-1] == 'different at tolerance 0.0001'


def test_tolerance_decides(tmp_path):
    def nudge(params):
        params['conv0_weight'][:] *= 1 + 1e-3

    a, *_ = checkpoint(tmp_path, 'a')
    b, *_ = checkpoint(tmp_path, 'b', change=nudge)
    assert [main([a, b, '--tolerance', tolerance]) for tolerance in ('1e-4', '0.1')] == [1, 0]


def test_missing_names_and_other_shapes_are_listed(tmp_path, capsys):
    a, *_ = checkpoint(tmp_path, 'a', 'resnet-v1', 20)
    b, *_ = checkpoint(tmp_path, 'b', 'resnet', 20)
    code, report = compared(capsys, a, b)
    status = {row['name']: row['status'] for row in report['tensors']}
    assert code == 1
    assert status['bn0_gamma'] == 'only in A'
    assert status['stage1_unit1_sc_weight'] == 'only in B'
    assert status['stage1_unit1_conv1_weight'] == 'other shape'
    main([a, b, '--all'])
    assert 'stage1_unit1_conv1_weight (16×16×3×3 and 16×16×1×1)' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('network', 'scale'),
    [('resnet-v1', 'block,neuron'), ('resnet', 'block,neuron'), ('resnext', 'block,group,neuron'), ('vgg', 'neuron')],
)
def test_a_state_dict_of_it_is_equal_once_lambda_is_folded(network, scale, tmp_path, capsys):
    safetensors = pytest.importorskip('safetensors.numpy')
    source, _, arg_params, aux_params = checkpoint(tmp_path, 'net', network, 16 if network == 'vgg' else 20, scale)
    path = str(tmp_path / 'net.safetensors')
    safetensors.save_file(to_torch_state(arg_params, aux_params), path)
    for order in ((source, path), (path, source)):
        code, report = compared(capsys, *order)
        assert (code, report['equal']) == (0, True)
        assert 'were folded into its parameters' in report['note']
        assert not any('lambda' in row['name'] for row in report['tensors'])


def test_gluoncvs_file_and_name_are_equal_to_ours(tmp_path, capsys, monkeypatch):
    symbol = get_symbol('resnext', 50, 10, (3, 64, 64), scale='none')
    arg_params, aux_params = random_params(symbol)
    save_model(str(tmp_path / 'ours'), 3, symbol, arg_params, aux_params)
    path = str(tmp_path / 'weights.params')
    save_arrays(path, to_gluoncv_params(arg_params, aux_params))
    monkeypatch.setattr(models, 'zoo_file', {'resnext50_32x4d': path}.__getitem__)
    for theirs in (path, 'resnext50_32x4d'):
        code, report = compared(capsys, f'{tmp_path}/ours:3', theirs, '--num-inputs', 2)
        assert (code, report['b']['is']) == (0, 'resnext 50 with the names of gluoncv, computed by MXNet')
        assert report['outputs']['image_shape'] == [3, 64, 64]


def test_onnx_is_equal(tmp_path, capsys):
    for package in ('onnx', 'onnxruntime'):
        pytest.importorskip(package)
    from interop.onnx_export import export_onnx

    source, symbol, arg_params, aux_params = checkpoint(tmp_path, 'net', 'resnext', scale='block,group')
    path = str(tmp_path / 'net.onnx')
    export_onnx(symbol, arg_params, aux_params, CIFAR, path)
    code, report = compared(capsys, path, source)
    assert (code, report['a']['is']) == (
        0,
        'ONNX file, resnext 20 with the names of the authors, computed by ONNX Runtime',
    )
    assert 0 < report['outputs']['max_abs'] < 1e-3
    different, *_ = checkpoint(tmp_path, 'other', 'resnext', scale='block,group', seed=1)
    assert compared(capsys, path, different)[0] == 1


def full_and_stripped(folder):
    """(source of a network with a dead block, source of what is left without it, the stripped network)"""

    def dead(params):
        params['lambda_block'][1] = 0

    source, symbol, arg_params, aux_params = checkpoint(folder, 'full', 'resnet', scale='block', change=dead)
    stripped = strip(symbol, arg_params, aux_params, {'data': (1, *CIFAR)})
    save_model(str(folder / 'stripped'), 0, stripped.symbol, stripped.arg_params, stripped.aux_params)
    return source, f'{folder}/stripped:0', stripped


def test_full_against_stripped_is_equal_in_outputs_only(tmp_path):
    full, stripped, _ = full_and_stripped(tmp_path)
    assert [main([full, stripped, *options]) for options in ([], ['--outputs-only'])] == [1, 0]


def test_a_stripped_network_in_pytorch_computes_by_the_graph_it_was_made_of(tmp_path, capsys):
    torch = pytest.importorskip('torch')
    from interop.torch_graph import TorchGraph

    _, source, stripped = full_and_stripped(tmp_path)
    path = str(tmp_path / 'stripped.pth')
    torch.save(TorchGraph(stripped.symbol, stripped.arg_params, stripped.aux_params).state_dict(), path)
    code, report = compared(capsys, path, source)
    assert (code, report['a']['is']) == (0, f'tensors that fit the graph of {source}, computed by PyTorch')
    assert report['outputs']['max_abs'] > 0
    assert compared(capsys, path, path)[1]['outputs'] is None


def test_tensors_of_nobody_are_compared_without_outputs(tmp_path, capsys):
    a, b = (str(tmp_path / name) for name in ('a.params', 'b.params'))
    save_arrays(a, {'encoder.weight': np.ones((2, 2), np.float32)})
    save_arrays(b, {'encoder.weight': np.ones((2, 2), np.float32)})
    code, report = compared(capsys, a, b)
    assert (code, report['outputs']) == (0, None)
    assert 'give --image-shape' in report['outputs_missing']
    with pytest.raises(UserError, match='--outputs-only has nothing to compare: .*give --image-shape'):
        main([a, b, '--outputs-only'])
    assert 'cannot be computed' in compared(capsys, a, b, '--image-shape', '3,32,32')[1]['outputs_missing']


def test_nan_and_infinity_are_no_numbers_to_subtract():
    a, b = np.array([1, np.nan, np.inf], np.float32), np.array([1, np.nan, np.inf], np.float32)
    assert compare_tensors({'x': a}, {'x': b})[0].max_abs == 0
    b[1] = 0
    assert compare_tensors({'x': a}, {'x': b})[0].max_abs == np.inf
    assert compare_tensors({'x': np.zeros((0, 3))}, {'x': np.zeros((0, 3))})[0].relative == 0


def test_accuracy_is_that_of_the_logits_on_every_test_image(tmp_path, capsys):
    source, *_ = checkpoint(tmp_path, 'net')
    code, report = compared(capsys, source, source, '--data', 'digits')
    batches = list(eval_iterator(load_dataset('digits'), 100))
    model = read_model(source)
    right = sum(
        (model.outputs(batch.data[0].asnumpy())[0].argmax(1) == batch.label[0].asnumpy()).sum() for batch in batches
    )
    assert code == 0
    count = report['accuracy']['images']
    assert count == len(load_dataset('digits').test_images) == sum(100 - batch.pad for batch in batches)
    assert report['accuracy']['a'] == report['accuracy']['b'] == pytest.approx(right / count)


@pytest.mark.parametrize(
    ('name', 'content', 'complaint'),
    [
        ('missing.pth', None, 'missing.pth'),
        ('broken.th', b'PK\x03\x04 no archive', 'broken.th'),
        ('broken.params', b'\x12\x01' + bytes(9), 'broken.params'),
        ('empty.params', b'\x12\x01' + bytes(30), 'holds no tensors'),
        ('broken.safetensors', b'\xff' * 40, 'broken.safetensors'),
        ('notes.txt', b'hello', 'unknown kind of file'),
        ('nowhere/net:3', None, 'net'),
        ('nowhere/net', None, 'no such checkpoint or file'),
    ],
)
def test_what_cannot_be_read_is_one_line_and_exit_code_2(name, content, complaint, tmp_path, capsys):
    source, *_ = checkpoint(tmp_path, 'net')
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SystemExit) as end:
        run(main, [source, str(path)])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.startswith('error:')
    assert error.count('\n') == 1


@pytest.mark.parametrize(
    'options', [['--num-inputs', '0'], ['--tolerance', 'small'], ['--rgb-mean', 'grey'], ['--data', 'imagenet']]
)
def test_options_that_make_no_sense(options):
    with pytest.raises(UserError, match=f'argument {options[0]}'):
        main(['a:0', 'b:0', *options])


def test_a_name_that_gluoncv_has_no_weights_for():
    with pytest.raises(UnknownNetworkError, match='resnet51_v2'):
        read_model('resnet51_v2')
    with pytest.raises(UnknownNetworkError):
        zoo_file('resnext50_24x4d')


def test_images_that_a_network_does_not_take(tmp_path):
    source, *_ = checkpoint(tmp_path, 'net')
    with pytest.raises(UserError, match='does not take images'):
        read_model(source).outputs(np.zeros((1, 1, 32, 32), np.float32))


def test_a_network_is_run_on_any_number_of_images_and_is_left_as_it_was(tmp_path):
    _, symbol, arg_params, aux_params = checkpoint(tmp_path, 'net')
    before = {name: array.asnumpy().copy() for name, array in {**arg_params, **aux_params}.items()}
    model = read_model(f'{tmp_path}/net:0')
    images = np.random.RandomState(0).standard_normal((7, *CIFAR)).astype(np.float32)
    (whole,), (parts,) = model.outputs(images), model.outputs(images, batch_size=3)
    assert whole.shape == (7, 10)
    assert np.allclose(whole, parts, rtol=1e-5, atol=1e-5)
    Predictor(Network(symbol, arg_params, aux_params))(images)
    assert all(np.array_equal(array.asnumpy(), before[name]) for name, array in {**arg_params, **aux_params}.items())


def test_lambda_is_folded_only_where_every_parameter_is_accounted_for(tmp_path):
    _, _, arg_params, aux_params = checkpoint(tmp_path, 'net', scale='block')
    del arg_params['stage1_unit1_bn1_gamma']
    with pytest.raises(CheckpointError, match='stage1_unit1_bn1_gamma'):
        to_torch_state(arg_params, aux_params)
