"""Files that a run finds under its prefix and did not write, or not like this: copied, damaged, or another script's."""

import json
import shutil

import pytest
from helpers.tiny_runs import NOISE, log_lines, metrics, refused, save_network, train

from formats.manifest import sealed
from runtime.errors import CheckpointError
from train.checkpoint import Checkpoints

FLAGS = ['--num-epochs', 2, '--threads', 1]


@pytest.fixture
def network(tmp_path):
    folder = tmp_path / 'networks'
    folder.mkdir()
    return save_network(folder)


@pytest.fixture
def prefix(network, tmp_path):
    (tmp_path / 'runs').mkdir()
    assert train(network, tmp_path / 'runs' / 'run', *FLAGS) == 0
    return tmp_path / 'runs' / 'run'


def resumed(network, prefix, epochs=3):
    return train(network, prefix, '--num-epochs', epochs, '--threads', 1, '--resume')


def test_a_prefix_without_a_name_is_refused(network, tmp_path, capfd):
    line = refused(capfd, tmp_path, '--network', network, *NOISE, '--model-prefix', f'{tmp_path}/runs/')
    assert 'give a name after the folder' in line


def test_the_files_of_a_copied_run_are_those_that_are_checked(network, prefix):
    for path in prefix.parent.glob('run-*'):
        shutil.copy(str(path), str(path.with_name(path.name.replace('run-', 'copy-'))))
    copy = prefix.with_name('copy')
    for path in prefix.parent.glob('run-*'):
        path.unlink()
    assert resumed(network, copy) == 0, 'the first run is not needed'
    damaged = copy.with_name('copy-0003.params')
    damaged.write_bytes(damaged.read_bytes()[:-1] + b'?')
    with pytest.raises(CheckpointError, match='copy-0003.params: damaged'):
        Checkpoints(str(copy)).load(3)


@pytest.mark.parametrize('ending', ['params', 'states'])
def test_parameters_of_another_script_are_not_overwritten(ending, network, tmp_path, capfd):
    (tmp_path / f'mine-0001.{ending}').write_bytes(b'weeks of work')
    line = refused(
        capfd, tmp_path, '--network', network, *NOISE, '--model-prefix', tmp_path / 'mine', '--num-epochs', '1'
    )
    assert 'exist already' in line


@pytest.mark.parametrize('field', ['num_update', 'files', 'optimizer_state', 'best', 'tally', 'arguments', 'batch'])
def test_a_sealed_manifest_without_a_field_is_named_and_the_one_before_taken(field, network, prefix):
    path = prefix.with_name('run-0002.json')
    manifest = json.loads(path.read_text())
    del manifest[field], manifest['sha256']
    path.write_text(json.dumps(sealed(manifest)))
    assert resumed(network, prefix, epochs=2) == 0
    assert any('run-0002.json: lacks what a checkpoint has' in line and 'instead' in line for line in log_lines(prefix))


@pytest.mark.parametrize(
    'damage',
    [
        lambda text: '\ufeff' + text,
        lambda text: text[:-20],
        lambda text: text + '\n',
        lambda text: '\0' * 40 + '\n' + text,
        lambda text: '[1, 2]\n' + text,
        lambda text: '{"epoch": "one"}\n' + text,
    ],
    ids=['BOM', 'cut', 'blank', 'NUL', 'list', 'text'],
)
def test_damaged_metrics_do_not_stop_a_resume(damage, network, prefix):
    path = prefix.with_name('run-metrics.jsonl')
    before, text = metrics(prefix), path.read_text()
    path.write_bytes(damage(text).encode())
    assert resumed(network, prefix) == 0
    found = metrics(prefix)
    assert [record['epoch'] for record in found][-1] == 2
    assert [record for record in before if record in found] == found[:-1]
    is_whole = damage(text).lstrip('\ufeff') == text
    assert path.with_name('run-metrics.jsonl.damaged').exists() != is_whole
