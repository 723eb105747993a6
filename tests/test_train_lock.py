"""Two runs must not write under one prefix at the same time."""

import os
import socket

import pytest
from helpers.tiny_runs import NOISE, log_lines, save_network, train

from runtime.errors import CheckpointError
from train.lock import locked


@pytest.fixture(scope='module')
def network(tmp_path_factory):
    return save_network(tmp_path_factory.mktemp('network'))


def test_a_second_run_names_the_first(network, tmp_path, refusal):
    with locked(str(tmp_path / 'run')):
        line = refusal('--network', network, '--model-prefix', tmp_path / 'run', *NOISE, '--num-epochs', 1)
    assert f'run.lock: process {os.getpid()} on {socket.gethostname()} is writing there' in line


def test_what_a_killed_process_left_is_taken_over(network, tmp_path):
    (tmp_path / 'run.lock').write_text('process 123 on another\n')
    assert train(network, tmp_path / 'run', '--num-epochs', 1) == 0
    assert any(
        'run.lock was left by process 123 on another, which has ended' in line for line in log_lines(tmp_path / 'run')
    )
    assert not (tmp_path / 'run.lock').exists()


def test_a_lock_is_gone_after_an_error_and_so_is_its_folder(tmp_path):
    with pytest.raises(CheckpointError), locked(str(tmp_path / 'new' / 'run')):
        raise CheckpointError('refused')
    assert list(tmp_path.iterdir()) == []
    with locked(str(tmp_path / 'new' / 'run')), locked(str(tmp_path / 'new' / 'other')):
        assert sorted(os.listdir(str(tmp_path / 'new'))) == ['other.lock', 'run.lock']
