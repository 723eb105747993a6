"""What a run goes on from: an earlier epoch, the weights of another script, what a killed process left."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from helpers.tiny_runs import BATCHES, NOISE, checkpoint, contents, log_lines, manifests, metrics, save_network, train

from formats.manifest import sealed
from runtime import mx
from runtime.cli import run as run_script
from train import train_cifar
from train.checkpoint import Checkpoints
from train.data.image_sources import FolderSource, RecordSource
from train.engines.mxnet import MXNetEngine

KILLED_WHILE_SAVING = """
import os, signal, sys
from runtime import mx
from train import checkpoint
checkpoint.write_text = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
state = checkpoint.State(1, 0, {'weight': mx.nd.ones(3)}, {}, (1, {}), {}, None, {})
checkpoint.Checkpoints(sys.argv[1]).save(mx.sym.Variable('weight'), state, {})
"""


@pytest.fixture(scope='module')
def network(tmp_path_factory):
    return save_network(tmp_path_factory.mktemp('network'))


def spoil(prefix, epoch, **facts):
    """Change facts in the manifest of a checkpoint."""
    path = f'{prefix}-{epoch:04d}.json'
    with open(path, encoding='utf-8') as source:
        manifest = json.load(source)
    del manifest['sha256']
    with open(path, 'w', encoding='utf-8') as out:
        json.dump(sealed({**manifest, **facts}), out)


# An earlier epoch


def test_a_branch_that_is_killed_goes_on_as_a_branch(network, run, tmp_path, monkeypatch):
    def killed(*_):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(MXNetEngine, 'step', killed)
        with pytest.raises(MemoryError):
            train(network, run, '--num-epochs', 3, '--load-epoch', 1)
    assert manifests(os.path.dirname(run)) == ['0001']
    assert [line['epoch'] for line in metrics(run)] == [0]
    assert any('goes on from epoch 1, so its later checkpoints were removed: 0002' in line for line in log_lines(run))
    assert train(network, run, '--num-epochs', 3, '--resume') == 0
    assert [line['epoch'] for line in metrics(run)] == [0, 1, 2]
    assert train(network, tmp_path / 'whole', '--num-epochs', 3) == 0
    assert checkpoint(run, 3) == checkpoint(tmp_path / 'whole', 3)


# Other data, other threads


def test_other_images_under_the_same_flags_are_refused(network, run, refusal, monkeypatch):
    make = train_cifar.dataset_from_args

    def other(args):
        dataset = make(args)
        labels = dataset.train_labels.copy()
        labels[0] = (labels[0] + 1) % dataset.num_classes
        return dataclasses.replace(dataset, train_labels=labels)

    monkeypatch.setattr(train_cifar, 'dataset_from_args', other)
    line = refusal('--network', network, '--model-prefix', run, *NOISE, '--num-epochs', 3, '--resume')
    assert 'was trained on 256 images with checksum' in line
    assert '--finetune' in line


def test_a_run_from_before_there_were_checksums_goes_on(network, run):
    spoil(run, 2, data=None, threads=None)
    assert train(network, run, '--num-epochs', 3, '--resume') == 0


def test_another_record_file_or_folder_has_another_fingerprint(rec, tmp_path):
    assert RecordSource(rec).fingerprint() == RecordSource(rec).fingerprint()
    shutil.copy(rec, str(tmp_path / 'longer.rec'))
    shutil.copy(f'{rec[:-4]}.idx', str(tmp_path / 'longer.idx'))
    with open(str(tmp_path / 'longer.rec'), 'ab') as out:
        out.write(b'more')
    assert RecordSource(str(tmp_path / 'longer.rec')).fingerprint() != RecordSource(rec).fingerprint()
    for name in ('a', 'b'):
        (tmp_path / 'folder' / name).mkdir(parents=True)
        (tmp_path / 'folder' / name / 'one.png').write_bytes(b'')
    before = FolderSource(str(tmp_path / 'folder')).fingerprint()
    assert before['images'] == 2
    (tmp_path / 'folder' / 'a' / 'one.png').rename(tmp_path / 'folder' / 'b' / 'two.png')
    assert FolderSource(str(tmp_path / 'folder')).fingerprint() != before


@pytest.mark.parametrize(('before', 'is_said'), [(7, True), (1, False)])
def test_another_number_of_threads_is_said(network, run, before, is_said):
    spoil(run, 2, threads=before)
    assert train(network, run, '--num-epochs', 3, '--resume', '--threads', 1) == 0
    found = any('The checkpoint was made with 7 threads, this run has 1' in line for line in log_lines(run))
    assert found == is_said
    assert Checkpoints(run).load().threads == 1


# What a killed process left


def test_a_checkpoint_that_was_not_finished_is_removed_at_the_next_start(network, tmp_path):
    prefix = str(tmp_path / 'run')
    killed = subprocess.run([sys.executable, '-c', KILLED_WHILE_SAVING, prefix], cwd=os.getcwd(), timeout=60)
    assert killed.returncode == -signal.SIGKILL
    left = set(contents(tmp_path))
    assert {'run-0001.params', 'run-0001.states'} < left
    assert 'run-0001.json' not in left
    os.remove(f'{prefix}-symbol.json')  # of another network
    assert train(network, prefix, '--num-epochs', 1) == 0, 'they are not taken for those of another script'
    assert all(name.startswith('run') for name in contents(tmp_path)), 'nothing hidden is left'


def test_only_what_was_not_finished_is_removed(run):
    folder, before = os.path.dirname(run), contents(os.path.dirname(run))
    for name in ('.run-0003.unfinished', 'run-0003.params', '.run-0002.unfinished', 'run-0009.params'):
        with open(os.path.join(folder, name), 'w'):
            pass
    Checkpoints(run).clean()
    assert contents(folder) == {**before, 'run-0009.params': b''}


# Signals outside of the loop


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_first_batch_ends_the_run_in_one_line(number, network, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(train_cifar, 'dataset_from_args', lambda args: os.kill(os.getpid(), number))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as end:
            run_script(train_cifar.main, ['--network', network, '--model-prefix', str(tmp_path / 'run'), *NOISE])
    finally:
        signal.signal(signal.SIGINT, before)
    assert end.value.code == 128 + number
    said = capfd.readouterr().err
    assert said.splitlines()[-1] == f'Stopped by signal {int(number)}'
    assert 'Traceback' not in said
    assert contents(tmp_path) == {}
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


# Weights of another script


@pytest.fixture
def theirs(run, tmp_path):
    """The prefix of a network and its weights after epoch 2 as another script leaves them, in the old JSON format."""
    (tmp_path / 'theirs').mkdir()
    prefix = str(tmp_path / 'theirs' / 'run')
    shutil.copy(f'{run}-0002.params', f'{prefix}-0002.params')
    with open(f'{run}-symbol.json', encoding='utf-8') as source:
        graph = json.load(source)
    for node in graph['nodes']:
        node['attr'] = node.pop('attrs', {})
    with open(f'{prefix}-symbol.json', 'w', encoding='utf-8') as out:
        json.dump(graph, out)
    return prefix


@pytest.mark.parametrize('flag', ['--load-epoch', '--begin-epoch'])
def test_weights_without_a_manifest_are_gone_on_from(theirs, flag):
    before = contents(os.path.dirname(theirs))
    flags = ['--lr', 0, '--num-epochs', 3, flag, 2]
    assert train(f'{theirs}-symbol.json', theirs, *flags) == 0
    assert any('run-0002.params has no manifest: its weights are taken' in line for line in log_lines(theirs))
    assert [line['epoch'] for line in metrics(theirs)] == [2]
    state = Checkpoints(theirs).load()
    assert (state.epoch, state.optimizer_state[0]) == (3, 3 * BATCHES), 'the schedule counts the epochs before'
    weights, _ = mx.model.load_params(theirs, 2)
    for name, array in state.arg_params.items():
        np.testing.assert_array_equal(array.asnumpy(), weights[name].asnumpy(), err_msg=name)
    after = contents(os.path.dirname(theirs))
    assert after['run-0002.params'] == before['run-0002.params']
    assert train(f'{theirs}-symbol.json', theirs, '--lr', 0, '--num-epochs', 4, '--resume') == 0


def test_weights_of_another_network_are_not_gone_on_from(theirs, tmp_path, refusal):
    other = save_network(tmp_path, width=24)
    line = refusal('--network', other, '--model-prefix', theirs, *NOISE, '--load-epoch', 2)
    assert 'run-0002.params' in line
    assert 'shape' in line


def test_an_error_about_a_missing_manifest_names_the_way_to_start_from_weights(theirs, network, tmp_path, refusal):
    flags = ['--network', network, *NOISE]
    line = refusal(*flags, '--model-prefix', theirs, '--resume')
    assert '--load-epoch 2' in line
    assert f'--finetune {theirs}:2' in line
    assert '--finetune' in refusal(*flags, '--model-prefix', theirs, '--load-epoch', 7)
    assert '--finetune' in refusal(*flags, '--model-prefix', tmp_path / 'nothing', '--resume')
