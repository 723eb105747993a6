"""Every tool on a checkpoint of the authors' graph, in new and in old file formats: the same figures as on ours."""

import json

import numpy as np
import pytest
from helpers import authors_graph
from helpers.old_files import params_v1, symbol_of_0_8, symbol_of_0_11
from helpers.strip_networks import random_parameters, with_dead
from helpers.tiny_runs import DIGITS, NOISE, log_lines, metrics, train

from formats.checkpoint_files import load_checkpoint, save_model
from runtime import mx
from symbols import resnet, resnext
from tools import compare_checkpoints, convert, evaluate, strip_params, summary

IMAGE = (3, 8, 8)
SHAPE = ['--image-shape', '3,8,8']
FAMILIES = ('resnet', 'resnext')
SYMBOLS = {'0.8': symbol_of_0_8, '0.11': symbol_of_0_11}


def theirs(family):
    if family == 'resnet':
        return authors_graph.resnet((2, 1), (16, 24), 10, small=True)
    return authors_graph.resnext((2, 1), (16, 32), 4, 10, small=True)


def ours(family):
    with mx.name.NameManager():
        if family == 'resnet':
            return resnet.network((2, 1), (16, 24), resnet.bottleneck_unit, True, 10, IMAGE, ('block',), 'output')
        return resnext.network((2, 1), (16, 32), 4, True, 10, IMAGE, ('block', 'group'), 'output')


@pytest.fixture(scope='module', params=FAMILIES)
def checkpoints(request, tmp_path_factory):
    """(folder, family): the same parameters, some λ of them 0, as ``theirs`` and ``ours``, epoch 1."""
    folder, symbol = tmp_path_factory.mktemp(request.param), theirs(request.param)
    arg_params, aux_params = random_parameters(symbol, {'data': (2, *IMAGE)})
    dead = {'lambda_block': np.arange(3) == 1, 'lambda_group': np.arange(12).reshape(3, 4) % 3 == 1}
    arg_params = with_dead(arg_params, dead)
    save_model(str(folder / 'theirs'), 1, symbol, arg_params, aux_params)
    save_model(str(folder / 'ours'), 1, ours(request.param), arg_params, aux_params)
    return folder, request.param


def said(capsys, main, *argv):
    """(exit code, the object that --json prints)."""
    capsys.readouterr()
    code = main([*map(str, argv), '--json'])
    return code, json.loads(capsys.readouterr().out)


def same_figures(capsys, main, folder, *argv):
    """What a tool says of both checkpoints, which must be the same."""
    found, expected = (said(capsys, main, f'{folder / name}:1', *argv) for name in ('theirs', 'ours'))
    assert found == expected
    return found[1]


def strip(capsys, folder, prefix, *argv):
    """What strip_params says, but for the kinds and stages of λ, which only our symbols hold."""
    names = (f'{folder / prefix}:1', '--out', folder / f'{prefix}-cut', '--force')
    report = said(capsys, strip_params.main, *names, *SHAPE, *argv)[1]
    for factors in report['lambdas'].values():
        del factors['stages']
    return report


def test_summary(checkpoints, capsys):
    assert same_figures(capsys, summary.main, checkpoints[0], *SHAPE)['lambdas'] in (3, 15)


def test_evaluate(checkpoints, capsys):
    found = same_figures(capsys, evaluate.main, checkpoints[0], '--dataset', 'digits', *SHAPE)
    assert found['images'] > 100


@pytest.mark.parametrize('options', [(), ('--fold-bn',), ('--for-training',)])
def test_strip_params(checkpoints, capsys, options):
    folder = checkpoints[0]
    found, expected = (strip(capsys, folder, name, *options) for name in ('theirs', 'ours'))
    assert found == expected
    assert found['after']['macs'] < found['before']['macs']
    assert found['lambdas']['lambda_block']['alive'] == [1, 0, 1]


def test_compare_checkpoints(checkpoints, capsys):
    folder = checkpoints[0]
    code, report = said(capsys, compare_checkpoints.main, f'{folder}/theirs:1', f'{folder}/ours:1', *SHAPE)
    assert (code, report['equal'], report['outputs']['max_abs']) == (0, True, 0)
    assert all(row['status'] == 'compared' and row['max_abs'] == 0 for row in report['tensors'])
    strip(capsys, folder, 'theirs')
    code, report = said(
        capsys, compare_checkpoints.main, f'{folder}/theirs:1', f'{folder}/theirs-cut:0', *SHAPE, '--outputs-only'
    )
    assert (code, report['equal']) == (0, True)


@pytest.mark.parametrize(('target', 'package'), [('onnx', 'onnxruntime'), ('torch', 'torch')])
def test_convert(checkpoints, capsys, target, package):
    pytest.importorskip(package)
    folder = checkpoints[0]
    out = str(folder / f'there-{target}')
    assert convert.main([f'{folder / "theirs"}:1', '--to', target, '--out', out, *SHAPE]) == 0
    assert float(capsys.readouterr().out.split(':')[-1]) < 1e-5


@pytest.mark.parametrize('version', SYMBOLS)
def test_old_file_formats(checkpoints, capsys, version):
    folder, family = checkpoints
    old = folder / f'old-{version}'
    symbol, arg_params, aux_params = load_checkpoint(str(folder / 'theirs'), 1)
    text = SYMBOLS[version](symbol)
    keys = {key for node in json.loads(text)['nodes'] for key in node}
    assert 'attr' in keys
    assert 'attrs' not in keys
    (folder / f'{old.name}-symbol.json').write_text(text)
    (folder / f'{old.name}-0001.params').write_bytes(params_v1(arg_params, aux_params))
    loaded = load_checkpoint(str(old), 1)
    assert loaded[0].list_arguments() == symbol.list_arguments()
    assert loaded[0].list_auxiliary_states() == symbol.list_auxiliary_states()
    assert strip(capsys, folder, old.name) == strip(capsys, folder, 'theirs')
    code, report = said(capsys, compare_checkpoints.main, f'{old}:1', f'{folder}/ours:1', *SHAPE)
    assert (code, report['outputs']['max_abs']) == (0, 0)


def test_strip_records_the_image_shape(checkpoints, capsys):
    """What the authors' symbol does not say, the stripped one does: no tool has to be told again."""
    folder = checkpoints[0]
    report = strip(capsys, folder, 'theirs')
    cut = (f'{folder / "theirs-cut"}:0',)
    assert said(capsys, summary.main, *cut)[1]['macs'] == report['after']['macs']
    again = said(capsys, strip_params.main, *cut, '--out', folder / 'again')[1]
    assert again['after'] == again['before'] == report['after']
    assert said(capsys, compare_checkpoints.main, f'{folder}/theirs-cut:0', f'{folder}/again:0')[1]['equal']


def test_finetune(checkpoints, tmp_path):
    """Our network goes on from their weights, and theirs from ours."""
    folder, family = checkpoints
    for name, symbol, start in (('new', ours(family), 'theirs'), ('back', theirs(family), 'ours')):
        symbol.save(str(tmp_path / f'{name}-symbol.json'))
        flags = ['--num-epochs', 1, '--lr', 0, '--finetune', f'{folder / start}:1']
        assert train(str(tmp_path / f'{name}-symbol.json'), tmp_path / name / 'run', *flags, data=DIGITS) == 0
    runs = [metrics(tmp_path / name / 'run')[0] for name in ('new', 'back')]
    assert runs[0]['validation'] == runs[1]['validation']
    assert runs[0]['alive'] == runs[1]['alive']
    assert runs[0]['alive']['macs'] < runs[0]['full']['macs']


@pytest.mark.parametrize('family', FAMILIES)
def test_the_training_log(family, tmp_path, capsys):
    """A run on their graph says the same as one on ours: bit-equal for ResNet; and strip takes what the log said."""
    flags = ['--num-epochs', 2, '--gamma', 0.6, '--lr', 0.05]
    found = {}
    for name, symbol in (('theirs', theirs(family)), ('ours', ours(family))):
        symbol.save(str(tmp_path / f'{name}-symbol.json'))
        assert train(str(tmp_path / f'{name}-symbol.json'), tmp_path / name, *flags, data=NOISE) == 0
        found[name] = metrics(tmp_path / name)
    for first, second in zip(found['theirs'], found['ours']):
        assert (first['alive'], first['full']) == (second['alive'], second['full'])
        if family == 'resnet':
            assert (first['train'], first['validation']) == (second['train'], second['validation'])
    alive = found['theirs'][-1]['alive']
    assert alive['macs'] < found['theirs'][-1]['full']['macs']
    assert any(f'macs={alive["macs"]} ' in line for line in log_lines(tmp_path / 'theirs'))
    report = said(capsys, strip_params.main, f'{tmp_path / "theirs"}:2', '--out', tmp_path / 'cut', *SHAPE)[1]
    assert (report['after']['params'], report['after']['macs']) == (alive['params'], alive['macs'])
