"""The command line: what it writes loads in stock MXNet alone, and it writes only what it has proved."""

import json
import os
import site
import subprocess
import sys

import numpy as np
import pytest
from helpers.strip_networks import images, predict, random_parameters, small, with_dead

import tools.strip_params as tool
from formats.checkpoint_files import load_checkpoint, save_model
from graphs import stripped_files
from runtime import mx
from runtime.errors import CheckpointError, NothingLeftError, ProofError, UserError
from symbols import get_symbol

STOCK = """
import sys
sys.path.append(sys.argv[1])
try:
    import symbols
    sys.exit('this project can be imported')
except ImportError:
    pass
import mxnet as mx, numpy as np
prefix = sys.argv[2]
data = mx.nd.array(np.load(sys.argv[3]))
symbol, arg_params, aux_params = mx.model.load_checkpoint(prefix, 0)
module = mx.mod.Module(symbol, label_names=None)
module.bind([('data', data.shape)], for_training=False)
module.set_params(arg_params, aux_params)
module.forward(mx.io.DataBatch([data]))
block = mx.gluon.SymbolBlock.imports(prefix + '-symbol.json', ['data'], prefix + '-0000.params')
np.savez(sys.argv[4], module=module.get_outputs()[0].asnumpy(), block=block(data).asnumpy())
"""


@pytest.fixture
def checkpoint(tmp_path):
    """The prefix of a small ResNeXt, epoch 3, with dead blocks and groups."""
    symbol = small('resnext', 'weight')
    arg_params, aux_params = random_parameters(symbol)
    arg_params = with_dead(
        arg_params,
        {'lambda_group': np.arange(12).reshape(3, 4) % 3 == 1, 'lambda_block': np.array([False, True, False])},
    )
    save_model(str(tmp_path / 'full'), 3, symbol, arg_params, aux_params)
    return str(tmp_path / 'full')


def strip_to(out, prefix, *options):
    assert tool.main([f'{prefix}:3', '--out', str(out), *options]) == 0


def written(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith('full'))


def test_what_is_written_loads_without_this_project(checkpoint, tmp_path, capsys):
    strip_to(tmp_path / 'small', checkpoint, '--proof-inputs', '3')
    assert '3 images' in capsys.readouterr().out
    data = images(3)
    np.save(tmp_path / 'data.npy', data)
    done = subprocess.run(
        [sys.executable, '-I', '-S', '-c', STOCK, site.getsitepackages()[0], 'small', 'data.npy', 'out.npz'],
        cwd=tmp_path,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    expected = predict(*load_checkpoint(checkpoint, 3), data)
    with np.load(tmp_path / 'out.npz') as found:
        for name in ('module', 'block'):
            assert np.abs(found[name] - expected).max() < 1e-6


def test_the_same_input_gives_the_same_bytes(checkpoint, tmp_path):
    for name in ('one', 'two'):
        (tmp_path / name).mkdir()
        strip_to(tmp_path / name / 'net', checkpoint)
    for name in ('net-symbol.json', 'net-0000.params', 'net-structure.json'):
        assert (tmp_path / 'one' / name).read_bytes() == (tmp_path / 'two' / name).read_bytes()


def test_stripping_a_stripped_network_gives_the_same_bytes(checkpoint, tmp_path):
    strip_to(tmp_path / 'one', checkpoint)
    assert tool.main([f'{tmp_path / "one"}:0', '--out', str(tmp_path / 'two')]) == 0
    for ending in ('symbol.json', '0000.params'):
        assert (tmp_path / f'one-{ending}').read_bytes() == (tmp_path / f'two-{ending}').read_bytes()


def test_the_structure_file_says_what_stayed(checkpoint, tmp_path):
    strip_to(tmp_path / 'small', checkpoint)
    found = json.loads((tmp_path / 'small-structure.json').read_text())
    assert found['lambdas']['lambda_block']['alive'] == [1, 0, 1]
    assert found['lambdas']['lambda_group']['alive'] == [[1, 0, 1, 1], [0, 1, 1, 0], [1, 1, 0, 1]]
    layers = {layer['name']: layer for layer in found['layers']}
    assert layers['stage1_unit1_conv2']['kept_ranges'] == [[0, 1], [4, 7]]
    assert layers['stage1_unit2_conv2'] == {
        'name': 'stage1_unit2_conv2',
        'op': 'Convolution',
        'channels': 8,
        'kept': 0,
        'kept_ranges': [],
        'groups': 4,
        'kept_groups': 0,
    }
    _, arg_params, aux_params = load_checkpoint(str(tmp_path / 'small'), 0)
    assert found['after']['bytes'] == sum(array.size * 4 for array in (*arg_params.values(), *aux_params.values()))
    assert found['after']['macs'] < found['before']['macs']


def test_nothing_is_overwritten(checkpoint, tmp_path):
    strip_to(tmp_path / 'small', checkpoint)
    with pytest.raises(UserError, match='already there'):
        strip_to(tmp_path / 'small', checkpoint)
    strip_to(tmp_path / 'small', checkpoint, '--force')
    before = {name: (tmp_path / name).read_bytes() for name in ('full-symbol.json', 'full-0003.params')}
    with pytest.raises(UserError, match='is an input: give'):
        strip_to(tmp_path / 'full', checkpoint, '--force')
    assert before == {name: (tmp_path / name).read_bytes() for name in before}
    assert not (tmp_path / 'full-0000.params').exists()


def test_a_network_that_differs_is_not_written(checkpoint, tmp_path, monkeypatch):
    right = stripped_files.strip

    def wrong(*args):
        stripped = right(*args)
        stripped.arg_params['stage2_unit1_conv3_weight'][0, 0] += 1
        return stripped

    monkeypatch.setattr(stripped_files, 'strip', wrong)
    with pytest.raises(ProofError, match='the first tensor that differs is the output of stage2_unit1_conv3, by'):
        strip_to(tmp_path / 'small', checkpoint)
    assert written(tmp_path) == []


def test_a_tolerance_of_the_user(checkpoint, tmp_path):
    with pytest.raises(ProofError, match='tolerance of 0'):
        strip_to(tmp_path / 'small', checkpoint, '--fold-bn', '--tolerance', '0')
    strip_to(tmp_path / 'small', checkpoint, '--fold-bn', '--tolerance', '1e-5')


def test_a_threshold_tells_its_cost(checkpoint, tmp_path, capsys):
    strip_to(tmp_path / 'small', checkpoint, '--threshold', '0.8', '--json')
    found = json.loads(capsys.readouterr().out)
    assert found['proof']['relative'] < 1e-5 < found['threshold_cost']['relative']
    assert 0 <= found['threshold_cost']['agreement'] <= 1


def test_accuracy_on_real_images(tmp_path, capsys):
    symbol = get_symbol('resnet-v1', 20, 10, (3, 32, 32))
    arg_params, aux_params = random_parameters(symbol, {'data': (1, 3, 32, 32)})
    save_model(
        str(tmp_path / 'full'), 3, symbol, with_dead(arg_params, {'lambda_block': np.arange(9) % 2 == 1}), aux_params
    )
    strip_to(tmp_path / 'small', str(tmp_path / 'full'), '--data', 'digits', '--json')
    found = json.loads(capsys.readouterr().out)
    assert found['accuracy']['before'] == found['accuracy']['after']
    assert found['proof']['images'] == 8


def test_the_table(checkpoint, tmp_path, capsys):
    strip_to(tmp_path / 'small', checkpoint)
    out = capsys.readouterr().out
    assert 'lambda_block: 2 of 3 alive (by stage: 1 of 2, 1 of 1)' in out
    macs = next(line.split() for line in out.splitlines() if line.startswith('MACs per image'))
    structure = json.loads((tmp_path / 'small-structure.json').read_text())
    assert macs[3:5] == [f'{structure[when]["macs"]:,}' for when in ('before', 'after')]


@pytest.mark.parametrize(
    ('change', 'error', 'reason'),
    [
        ({'lambda_block': np.nan}, CheckpointError, 'lambda_block'),
        ({'bn0_gamma': 0, 'bn0_beta': 0}, NothingLeftError, 'no path'),
    ],
)
def test_checkpoints_that_cannot_be_stripped(checkpoint, tmp_path, change, error, reason):
    symbol, arg_params, aux_params = load_checkpoint(checkpoint, 3)
    for name, value in change.items():
        arg_params[name][:] = value
    save_model(checkpoint, 3, symbol, arg_params, aux_params)
    with pytest.raises(error, match=reason):
        strip_to(tmp_path / 'small', checkpoint)
    assert written(tmp_path) == []


def test_a_symbol_that_does_not_say_what_it_eats(tmp_path):
    symbol = mx.sym.FullyConnected(mx.sym.Variable('data'), num_hidden=4, name='fc')
    params = {'fc_weight': mx.nd.ones((4, 48)), 'fc_bias': mx.nd.zeros(4)}
    save_model(str(tmp_path / 'full'), 3, symbol, params, {})
    with pytest.raises(UserError, match='--image-shape'):
        strip_to(tmp_path / 'small', str(tmp_path / 'full'))
    strip_to(tmp_path / 'small', str(tmp_path / 'full'), '--image-shape', '3,4,4')


def test_a_mistake_is_one_line_and_exit_code_2(tmp_path):
    done = subprocess.run(
        [sys.executable, tool.__file__, 'nowhere:1', '--out', 'x'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith('error: nowhere-symbol.json')
    assert done.stderr.count('\n') == 1


@pytest.mark.parametrize(
    'options', [['--threshold', 'nan'], ['--threshold', '-1'], ['--tolerance', 'nan'], ['--proof-inputs', '0']]
)
def test_numbers_that_make_no_sense_are_refused(checkpoint, tmp_path, options):
    with pytest.raises(UserError, match=f'argument {options[0]}'):
        strip_to(tmp_path / 'small', checkpoint, *options)
    assert written(tmp_path) == []
