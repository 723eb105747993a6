"""When something breaks under a run: a full disk, numbers that are not finite, a signal. What was good before is good
after.
"""

import errno
import os
import re
import signal
import subprocess
import sys

import kill_and_resume
import numpy as np
import pytest
from helpers.tiny_runs import BATCHES, LOG_LINE, NOISE, checkpoint, contents, manifests, save_network, train

from runtime import files
from runtime.cli import run as run_script
from train import fit, train_cifar
from train.engines.mxnet import MXNetEngine


@pytest.fixture(scope='module')
def network(tmp_path_factory):
    return save_network(tmp_path_factory.mktemp('network'))


# The disk


@pytest.mark.parametrize('written', range(4))
def test_a_disk_that_fills_up_while_saving(refusal, network, run, monkeypatch, written):
    """After ``written`` of symbol, parameters, states and manifest there is no room for the next."""

    def fsync(handle):
        room.append(handle)
        if len(room) > written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def save_without_room(self):
        with monkeypatch.context() as patch:
            patch.setattr(files.os, 'fsync', fsync)
            patch.setattr(files, '_sync_folder', lambda folder: None)
            save(self)

    room, save, before = [], fit.Run._save, contents(os.path.dirname(run))
    flags = ['--network', network, '--model-prefix', run, *NOISE, '--num-epochs', 3, '--resume']
    with monkeypatch.context() as patch:
        patch.setattr(fit.Run, '_save', save_without_room)
        line = refusal(*flags, is_unchanged=False)
    names = ['run-symbol.json', 'run-0003.params', 'run-0003.states', 'run-0003.json']
    assert line.endswith(f'{names[written]}: No space left on device')
    after = contents(os.path.dirname(run))
    assert set(after) == set(before), 'no scratch file, and no checkpoint without its manifest'
    assert all(after[name] == data for name, data in before.items() if name not in ('run.log', 'run-metrics.jsonl'))
    assert train(network, run, '--num-epochs', 3, '--resume') == 0


def test_a_full_disk_under_the_log(network, tmp_path, capfd):
    if not os.path.exists('/dev/full'):
        pytest.skip('no /dev/full')
    os.symlink('/dev/full', str(tmp_path / 'run.log'))
    with pytest.raises(SystemExit) as end:
        run_script(train_cifar.main, ['--network', network, '--model-prefix', str(tmp_path / 'run'), *NOISE])
    assert end.value.code == 2
    *others, line = capfd.readouterr().err.splitlines()
    assert line == f'error: {tmp_path}/run.log: No space left on device'
    assert all(LOG_LINE.match(other) for other in others)


def test_files_that_may_not_grow(tmp_path):
    """In earnest, in a process of its own: the parameters are larger than any file may be, the symbol is not."""
    code = (
        'import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))\n'
        'from runtime.cli import run\nfrom train.train_cifar import main\nrun(main)'
    )
    network = save_network(tmp_path, width=64)
    process = subprocess.run(
        [sys.executable, '-c', code, '--network', network, '--model-prefix', str(tmp_path / 'run'), *NOISE],
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    assert process.returncode == 2
    assert process.stderr.splitlines()[-1] == f'error: {tmp_path}/run-0001.params: File too large'
    assert 'Traceback' not in process.stderr
    assert set(os.listdir(str(tmp_path))) == {'net-symbol.json', 'run-symbol.json', 'run.log', 'run-metrics.jsonl'}


def test_a_file_where_a_folder_should_be(refusal, network, tmp_path):
    (tmp_path / 'file').write_text('')
    assert f'{tmp_path}/file' in refusal('--network', network, '--model-prefix', tmp_path / 'file' / 'run', *NOISE)


# Training that goes wrong


def test_a_learning_rate_of_a_million(refusal, network, tmp_path):
    line = refusal('--network', network, '--model-prefix', tmp_path / 'run', *NOISE, '--lr', 1e6, is_unchanged=False)
    assert re.search('epoch 0, batch .* is not finite.*; earlier checkpoints are untouched. Lower --lr', line)
    assert manifests(tmp_path) == []


@pytest.mark.parametrize(('flags', 'batch'), [([], BATCHES), (['--disp-batches', 2], 4)])
def test_a_lambda_that_is_not_finite_stops_the_run(refusal, network, run, monkeypatch, flags, batch):
    """ReLU hides it from the loss. It is found at the next speed line or at the end of the epoch."""
    step = MXNetEngine.step

    def spoilt(self, batch, seed):
        self.steps = getattr(self, 'steps', 0) + 1
        if self.steps == 3:
            self._weight('lambda_block')[:] = np.nan
        return step(self, batch, seed)

    monkeypatch.setattr(MXNetEngine, 'step', spoilt)
    line = refusal(
        '--network', network, '--model-prefix', run, *NOISE, '--num-epochs', 3, '--resume', *flags, is_unchanged=False
    )
    assert f'epoch 2, batch {batch}: ' in line
    assert 'lambda_block is not finite' in line
    assert manifests(os.path.dirname(run)) == ['0001', '0002']


def test_a_loss_that_is_not_finite_stops_the_run_at_once_and_the_last_good_checkpoint_stays(
    refusal, network, run, trained, monkeypatch
):
    step = MXNetEngine.step

    def spoilt(self, batch, seed):
        self.steps = getattr(self, 'steps', 0) + 1
        if self.steps == 3:
            self._weight('fc1_bias')[:] = np.nan
        return step(self, batch, seed)

    with monkeypatch.context() as patch:
        patch.setattr(MXNetEngine, 'step', spoilt)
        line = refusal(
            '--network', network, '--model-prefix', run, *NOISE, '--num-epochs', 3, '--resume', is_unchanged=False
        )
    assert 'epoch 2, batch 3: the loss is nan' in line
    assert checkpoint(run, 2) == checkpoint(trained, 2)
    assert train(network, run, '--num-epochs', 3, '--resume') == 0


# A process of its own


def test_killed_runs_end_like_the_others():
    """``make kill-test`` kills many more."""
    assert kill_and_resume.main(['--times', '3']) == 0


@pytest.mark.parametrize(('number', 'code'), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_exit_code_of_a_stopped_process(network, tmp_path, number, code):
    prefix = str(tmp_path / 'run')
    command = [
        sys.executable,
        train_cifar.__file__,
        '--network',
        network,
        '--model-prefix',
        prefix,
        *NOISE,
        '--num-epochs',
        '100000',
        '--keep',
        '1',
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, universal_newlines=True)
    for line in process.stderr:
        if 'Validation-accuracy' in line:
            break
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert re.search(
        rf'Stopped by signal {int(number)} after \d+ epochs and \d+ batches; --resume goes on from here',
        said.splitlines()[-1],
    )
    assert len(manifests(tmp_path)) >= 1
    assert 'Traceback' not in said
