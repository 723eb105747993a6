"""Special files in the place of every file that a script reads: one line that ends the script with exit code 2, in
bounded time and in 1 GB of memory.
"""

import os
import signal

import numpy as np
import pytest
from helpers.limits import GB, HungError, limited
from helpers.tiny_runs import LOG_LINE, NOISE, save_network

from formats.checkpoint_files import load_checkpoint, save_model
from formats.symbol_file import load_symbol
from runtime import cli, mx
from tools import (
    add_lambda,
    compare_checkpoints,
    convert,
    evaluate,
    make_record,
    plot,
    report,
    reproduce_tables,
    strip_params,
    summary,
    sweep,
)
from train import launch, train_cifar, train_imagenet

# What no script can read, whatever it expects.
UNREADABLE = {
    'pipe': os.mkfifo,
    'folder': os.mkdir,
    'zeros': lambda path: os.symlink('/dev/zero', path),
    'sparse': lambda path: os.truncate(path, 1 << 40),
    'latin1': b'{"name": "\xe9"}\n',
}
DAMAGED = {
    'empty': b'',
    'noise': np.random.RandomState(0).bytes(4096),
    'deep': b'[' * 100_000,
}
NET = ['--network', 'net-symbol.json', '--model-prefix', 'out/run', *NOISE]
IMAGES = ['--network', 'net-symbol.json', '--image-shape', '3,8,8', '--num-classes', '10', '--data-nthreads', '1']
CHECKPOINT = ['net:0']
# Name: script, the file that is replaced, the command line, and which of the special files it may take for a sound one.
ARGUMENTS = {
    'train recipe': (train_cifar, 'x.args', [*NET, '@x.args', '--num-epochs', '0'], ''),
    'train network': (train_cifar, 'x-symbol.json', [*NET, '--network', 'x-symbol.json'], ''),
    'train archive': (train_cifar, 'x.tar.gz', ['--dataset', 'cifar10', '--data-dir', 'x.tar.gz'], ''),
    'train checkpoint': (train_cifar, 'out/run-0001.json', [*NET, '--resume'], ''),
    'finetune symbol': (train_cifar, 'x-symbol.json', [*NET, '--finetune', 'x:0'], ''),
    'finetune params': (train_cifar, 'net-0000.params', [*NET, '--finetune', 'net:0'], ''),
    'train records': (train_imagenet, 'x.rec', [*IMAGES, '--data-train', 'x.rec', '--data-val', 'x.rec'], 'noise deep'),
    'train index': (
        train_imagenet,
        'x.idx',
        [*IMAGES, '--data-train', 'a.rec', '--data-val', 'a.rec', '--data-val-idx', 'x.idx'],
        '',
    ),
    'hosts': (launch, 'hosts', ['-n', '1', '-H', './hosts', 'true'], ''),
    'plot': (plot, 'x-metrics.jsonl', ['x'], ''),
    'report': (report, 'x-metrics.jsonl', ['x', '--out', 'x.html'], ''),
    'evaluate symbol': (evaluate, 'net-symbol.json', [*CHECKPOINT, '--dataset', 'digits'], ''),
    'evaluate params': (evaluate, 'net-0000.params', [*CHECKPOINT, '--dataset', 'digits'], ''),
    'strip symbol': (strip_params, 'net-symbol.json', [*CHECKPOINT, '--out', 'out/x'], ''),
    'strip params': (strip_params, 'net-0000.params', [*CHECKPOINT, '--out', 'out/x'], ''),
    'summary': (summary, 'x-symbol.json', ['x'], ''),
    'add lambda': (add_lambda, 'x-symbol.json', ['x-symbol.json', '--list'], ''),
    'convert torch': (convert, 'x.pth', ['x.pth', '--to', 'mxnet', '--out', 'out/x'], ''),
    'convert symbol': (convert, 'net-symbol.json', ['net:0', '--to', 'onnx', '--out', 'out/x'], ''),
    **{
        f'compare {ending}': (compare_checkpoints, f'x.{ending}', [f'x.{ending}', 'net:0'], '')
        for ending in ('params', 'pth', 'safetensors', 'onnx')
    },
    'sweep': (sweep, 'x.args', ['--recipe', 'x.args', '--out', 'out'], ''),
    'tables result': (reproduce_tables, 'results/a/result.json', ['runs', '--results', 'results'], ''),
    'tables page': (reproduce_tables, 'x.md', ['--results', 'results', '--update', 'x.md'], 'empty deep'),
    'record source': (make_record, 'x.tar', ['x.tar', 'out/set'], ''),
    'record classes': (make_record, 'x.txt', ['images', 'out/set', '--classes', 'x.txt'], ''),
    'record class manifest': (make_record, 'x.json', ['images', 'out/set', '--classes', 'x.json'], ''),
    'record devkit': (make_record, 'x.tar.gz', ['images', 'out/set', '--devkit', 'x.tar.gz'], ''),
    'record manifest': (make_record, 'set.json', ['--verify', 'set'], ''),
    'record partial': (make_record, 'out/set.partial.jsonl', ['images', 'out/set'], 'empty noise sparse'),
}


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """The prefix of a network and parameters that fit it."""
    folder = tmp_path_factory.mktemp('sound')
    symbol = load_symbol(save_network(folder))
    shapes, _, states = symbol.infer_shape(data=(1, 3, 8, 8))
    arg_params = {
        name: mx.nd.ones(shape)
        for name, shape in zip(symbol.list_arguments(), shapes)
        if name not in ('data', 'softmax_label')
    }
    aux_params = {name: mx.nd.ones(shape) for name, shape in zip(symbol.list_auxiliary_states(), states)}
    save_model(str(folder / 'net'), 0, symbol, arg_params, aux_params)
    load_checkpoint(str(folder / 'net'), 0)
    return folder


@pytest.fixture
def place(checkpoint, tmp_path, monkeypatch):
    """A folder that holds what is sound, and in which the script runs."""
    monkeypatch.chdir(tmp_path)
    for name in ('net-symbol.json', 'net-0000.params'):
        os.symlink(str(checkpoint / name), name)
    os.symlink(str(checkpoint / 'net-0000.params'), 'x-0000.params')
    for folder in ('out', 'images/a', 'results/a'):
        os.makedirs(folder)
    for name in ('images/a/1.jpg', 'a.rec'):
        with open(name, 'wb'):
            pass

    with limited():
        yield tmp_path


def put(path, kind):
    """Let ``path`` be a special file."""
    if os.path.lexists(path):
        os.remove(path)
    made = {**UNREADABLE, **DAMAGED}[kind]
    if isinstance(made, bytes) or kind == 'sparse':
        with open(path, 'wb') as out:
            out.write(b'' if kind == 'sparse' else made)
    if not isinstance(made, bytes):
        made(path)


@pytest.mark.parametrize('kind', [*UNREADABLE, *DAMAGED])
@pytest.mark.parametrize('argument', ARGUMENTS)
def test_a_special_file_is_one_line(argument, kind, place, capfd):
    script, path, argv, sound = ARGUMENTS[argument]
    if kind in sound.split():
        pytest.skip('this script takes it for a sound file')
    put(path, kind)
    capfd.readouterr()
    with pytest.raises(SystemExit) as end:
        cli.run(script.main, argv)
    *others, line = capfd.readouterr().err.splitlines()
    assert end.value.code == 2, line
    assert all(LOG_LINE.match(other) for other in others), others
    assert line.startswith('error: ')
    assert len(line) < 2000
    if kind in ('pipe', 'zeros'):
        assert os.path.basename(path) in line


def test_the_limits_stop_what_takes_too_much():
    with limited(memory=GB // 4), pytest.raises(MemoryError):
        bytearray(GB // 2)
    with limited(seconds=1), pytest.raises(HungError):
        signal.pause()
