"""Damaged, foreign and left-over files beside a run: damage is named and passed over, and nothing is unpickled."""

import hashlib
import json
import os
import pickle

import numpy as np
import pytest
from helpers.tiny_runs import checkpoint, contents, log_lines, open_bytes, save_network, train

from formats.manifest import sealed
from runtime.errors import CheckpointError
from train.checkpoint import Checkpoints

EPOCHS = 2  # of the runs of conftest.py


@pytest.fixture(scope='module')
def network(tmp_path_factory):
    return save_network(tmp_path_factory.mktemp('network'))


def truncate(path):
    data = open_bytes(path)
    with open(path, 'wb') as out:
        out.write(data[: len(data) // 2])


def flip_a_bit(path):
    data = bytearray(open_bytes(path))
    data[len(data) // 2] ^= 1
    with open(path, 'wb') as out:
        out.write(data)


@pytest.mark.parametrize('damage', [truncate, flip_a_bit, os.remove])
@pytest.mark.parametrize('ending', ['params', 'states', 'json'])
def test_a_damaged_checkpoint_is_passed_over(run, damage, ending, caplog):
    path = f'{run}-{EPOCHS:04d}.{ending}'
    damage(path)
    state = Checkpoints(run).load()
    assert state.epoch == EPOCHS - 1
    if (ending, damage) != ('json', os.remove):  # without a manifest there is no checkpoint to speak of
        assert path in caplog.text
        assert f'using {run}-{EPOCHS - 1:04d}.json instead' in caplog.text
    with pytest.raises(CheckpointError, match=f'{EPOCHS:04d}.{ending}') as error:
        Checkpoints(run).load(EPOCHS)
    assert '\n' not in str(error.value)


def test_any_flipped_bit_of_a_manifest_is_noticed(run):
    path = f'{run}-{EPOCHS:04d}.json'
    whole = open_bytes(path)
    random = np.random.default_rng(0)
    for position in random.choice(len(whole), 60, replace=False):
        data = bytearray(whole)
        data[position] ^= 1 << random.integers(7)
        with open(path, 'wb') as out:
            out.write(data)
        try:
            state = Checkpoints(run).load(EPOCHS)
        except CheckpointError:
            continue
        assert json.loads(data.decode()) == json.loads(whole.decode()), 'only white space may change unnoticed'
        assert state.epoch == EPOCHS


def test_a_run_goes_on_from_the_last_good_checkpoint(network, run, trained):
    truncate(f'{run}-{EPOCHS:04d}.params')
    assert train(network, run, '--num-epochs', EPOCHS, '--resume') == 0
    assert checkpoint(run, EPOCHS) == checkpoint(trained, EPOCHS)
    assert any('damaged' in line and 'instead' in line for line in log_lines(run))


def test_when_nothing_is_whole_every_file_is_named(run):
    paths = [f'{run}-{epoch:04d}.params' for epoch in range(1, EPOCHS + 1)]
    for path in paths:
        truncate(path)
    with pytest.raises(CheckpointError) as error:
        Checkpoints(run).load()
    assert all(path in str(error.value) for path in paths)


class Bomb:
    """Leaves a file where it is unpickled."""

    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return open, (self._path, 'w')


@pytest.mark.parametrize('ending', ['params', 'states', 'json'])
def test_nothing_is_unpickled(run, tmp_path, ending):
    trace = str(tmp_path / 'exploded')
    data = pickle.dumps(Bomb(trace))
    with open(f'{run}-{EPOCHS:04d}.{ending}', 'wb') as out:
        out.write(data)
    if ending != 'json':
        reseal(run, ending, data)
    with pytest.raises(CheckpointError):
        Checkpoints(run).load(EPOCHS)
    assert not os.path.exists(trace)
    pickle.loads(data).close()
    assert os.path.exists(trace), 'the bomb would have worked'


def reseal(run, ending, data):
    """Make the manifest fit what was planted."""
    with open(f'{run}-{EPOCHS:04d}.json', encoding='utf-8') as source:
        planted = json.load(source)
    del planted['sha256']
    planted['files'][f'run-{EPOCHS:04d}.{ending}'] = {'bytes': len(data), 'sha256': hashlib.sha256(data).hexdigest()}
    with open(f'{run}-{EPOCHS:04d}.json', 'w', encoding='utf-8') as out:
        json.dump(sealed(planted), out)


def test_scratch_files_of_a_killed_process_are_removed(network, run):
    folder = os.path.dirname(run)
    left = [
        '.run-0005.params.abcd_123.params',
        '.run-symbol.json.12345678.json',
        '.run-stopped-0003-2.states.abcdefgh.states',
    ]
    others = ['.run-2-0005.params.abcd_123.params', '.running.json', '.run.params', 'notes.txt']
    for name in left + others:
        with open(os.path.join(folder, name), 'w') as out:
            out.write('half')
    assert train(network, run, '--num-epochs', EPOCHS, '--resume') == 0
    assert {name for name in contents(folder) if not name.startswith('run')} == set(others)
