"""How checkpoints are named: PREFIX:EPOCH, PREFIX for the last whole one, and the spellings of the last release."""

import json
import re
import shutil

import cv2
import numpy as np
import pytest
from helpers.tiny_runs import save_network, train

from formats.checkpoint_files import (
    Checkpoint,
    find_checkpoint,
    last_checkpoint,
    load_checkpoint,
    named_checkpoint,
    prefix_of,
)
from interop.networks import read_network
from runtime.checkpoint_argument import add_checkpoint, add_old_epoch, checkpoint_name
from runtime.cli import Parser
from runtime.errors import CheckpointError, UserError
from tools import compare_checkpoints, convert, evaluate, predict, report, strip_params, summary
from train.argument_kinds import differing


@pytest.fixture(scope='module')
def network(tmp_path_factory):
    return save_network(tmp_path_factory.mktemp('network'))


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """A folder with PREFIX-symbol.json alone, for the prefix 'net'."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'net-symbol.json').write_text('{}')
    return tmp_path


def add(folder, *labels):
    for label in labels:
        (folder / f'net-{label}.params').write_bytes(b'')


def test_a_name_says_prefix_and_epoch(empty):
    add(empty, '0000', '0012', '12345', 'stopped-0012-40')
    assert find_checkpoint('net:12') == ('net', 12)
    assert find_checkpoint('net:12').paths == ('net-symbol.json', 'net-0012.params')
    assert find_checkpoint('net-0012.params') == ('net', 12)
    assert find_checkpoint('net:stopped-0012-40').paths[1] == 'net-stopped-0012-40.params'
    assert find_checkpoint('net-stopped-0012-40.params') == ('net', 'stopped-0012-40')
    assert str(Checkpoint('runs/net', 12)) == 'runs/net:12'
    assert find_checkpoint('other') is None
    assert find_checkpoint('other-0012.params') is None, 'without its symbol it may be of another program'
    assert [prefix_of(name) for name in ('net:1', 'net', 'net-symbol.json', 'net-0012.params')] == ['net'] * 4


def test_a_prefix_means_its_last_checkpoint(empty):
    assert find_checkpoint('net') is None
    add(empty, '0002', '0010')
    assert find_checkpoint('net') == find_checkpoint('net-symbol.json') == ('net', 10)
    add(empty, 'stopped-0010-3')
    assert find_checkpoint('net') == ('net', 'stopped-0010-3'), 'a stopped run is three batches further'
    add(empty, '0011', 'stripped-0000', 'x-0099')
    assert find_checkpoint('net') == ('net', 11)


def test_what_is_not_whole_is_passed_over(trained, tmp_path, caplog):
    shutil.copytree(trained.rpartition('/')[0], str(tmp_path / 'copy'))
    prefix = str(tmp_path / 'copy' / 'run')
    assert find_checkpoint(prefix) == (prefix, 2)
    (tmp_path / 'copy' / 'run-0003.params').write_bytes(b'half')
    (tmp_path / 'copy' / '.run-0003.unfinished').write_bytes(b'')
    assert last_checkpoint(prefix) == (prefix, 2)
    assert 'run-0003.params: was not written to the end; using' in caplog.text
    with open(f'{prefix}-0002.params', 'r+b') as params:
        params.write(b'!')
    assert last_checkpoint(prefix) == (prefix, 1)
    assert 'run-0002.params: damaged' in caplog.text


def test_a_run_that_was_renamed_is_whole(trained, tmp_path):
    for ending in ('symbol.json', '0002.params', '0002.json'):
        shutil.copy(f'{trained}-{ending}', str(tmp_path / f'other-{ending}'))
    assert last_checkpoint(str(tmp_path / 'other')) == (str(tmp_path / 'other'), 2)


def test_where_none_is_whole_it_is_said(empty):
    add(empty, '0001')
    (empty / 'net-0001.json').write_text('{}')
    with pytest.raises(CheckpointError, match='net-0001.json: damaged'):
        named_checkpoint('net')


@pytest.mark.parametrize(
    ('name', 'said'),
    [
        ('nett', 'nett-symbol.json: no such file; there is no nett-NNNN.params at all; did you mean net?'),
        ('net', 'net: no such checkpoint; there is no net-NNNN.params at all'),
        ('net:one', "net:one: 'one' is no epoch; give PREFIX:EPOCH, there is no net-NNNN.params"),
        ('nett:one', 'nett:one-symbol.json: no such file'),
    ],
)
def test_a_name_of_nothing(name, said, empty):
    with pytest.raises(CheckpointError) as raised:
        named_checkpoint(name)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ('argv', 'new', 'old'),
    [
        (['--prefix', 'a', '--epoch', '3'], 'a:3', '--prefix a --epoch 3'),
        (['--epoch=4', '--prefix=a'], 'a:4', '--prefix a --epoch 4'),
        (['--prefix', 'b'], 'b', '--prefix b'),
        (['c', '--epoch', '3'], 'c:3', 'c --epoch 3'),
        (['d,3'], 'd:3', 'd,3'),
    ],
)
def test_old_spellings_are_taken_and_the_new_one_is_said(argv, new, old, capsys):
    made = Parser()
    add_checkpoint(made)
    assert vars(made.parse_args(argv)) == {'checkpoint': new}
    said = f'warning: write {new} in place of {old}, which the next release will not take\n'
    assert capsys.readouterr().err == said
    assert '--prefix' not in made.format_help()
    assert '--epoch' not in made.format_help()


def test_an_epoch_behind_the_prefix_is_taken(capsys):
    made = Parser()
    made.add_argument('checkpoint', type=checkpoint_name)
    made.add_argument('--to')
    add_old_epoch(made)
    assert made.parse_args(['e', '3', '--to', 'x']).checkpoint == 'e:3'
    assert 'write e:3 in place of e 3' in capsys.readouterr().err
    assert made.parse_args(['e', '--to', 'x']).checkpoint == 'e'
    assert made.parse_args(['e:3', '--to', 'x']).checkpoint == 'e:3'
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ('argv', 'said'),
    [
        ([], 'required: CHECKPOINT'),
        (['--epoch', '3'], 'CHECKPOINT'),
        (['a', '--prefix', 'b'], '--prefix b and a'),
        (['--prefix', 'a', '--epoch', 'last'], "'last' is not a whole number"),
    ],
)
def test_a_checkpoint_that_is_not_named(argv, said):
    made = Parser()
    add_checkpoint(made)
    with pytest.raises(UserError) as raised:
        made.parse_args(argv)
    assert said in str(raised.value)


def stopped_copy(trained, folder):
    """The prefix of a run whose last checkpoint is that of a stopped one."""
    for ending in ('symbol.json', 'metrics.jsonl', '0001.params'):
        shutil.copy(f'{trained}-{ending}', str(folder / f'run-{ending}'))
    shutil.copy(f'{trained}-0002.params', str(folder / 'run-stopped-0001-2.params'))
    return str(folder / 'run')


SHAPE = ['--image-shape', '3,8,8']
IMAGES = ['--dataset', 'synthetic', '--num-examples', '64', *SHAPE]


@pytest.mark.parametrize(
    ('tool', 'options'),
    [
        (evaluate, [*IMAGES, '--json']),
        (summary, SHAPE),
        (strip_params, ['--out', 'cut', '--force', '--json', *SHAPE]),
        (convert, ['--to', 'onnx', '--out', 'net', '--force', *SHAPE]),
        (predict, ['image.png', *SHAPE]),
    ],
    ids=lambda value: getattr(value, '__name__', ''),
)
def test_a_tool_takes_the_last_checkpoint(tool, options, trained, tmp_path, monkeypatch, capsys):
    """Of a run that was stopped; its weights are those of ``trained`` after epoch 2."""
    monkeypatch.chdir(tmp_path)
    cv2.imwrite('image.png', np.arange(192).reshape(8, 8, 3))
    prefix, said = stopped_copy(trained, tmp_path), []
    for name in (prefix, f'{prefix}-symbol.json', f'{prefix}-stopped-0001-2.params', f'{trained}:2'):
        assert tool.main([name, *options]) == 0
        said.append(re.sub(r'\S*run\S*', 'run', capsys.readouterr().out))
    assert said == said[:1] * 4


def test_a_network_to_rewrite_is_the_last_checkpoint(trained, tmp_path):
    prefix = stopped_copy(trained, tmp_path)
    for name in (prefix, f'{prefix}-symbol.json', f'{prefix}:stopped-0001-2'):
        assert read_network(name).files == (f'{prefix}-symbol.json', f'{prefix}-stopped-0001-2.params')


def test_compare_and_report_take_the_last_checkpoint(trained, tmp_path, capsys):
    prefix, page = stopped_copy(trained, tmp_path), str(tmp_path / 'page.html')
    assert compare_checkpoints.main([prefix, f'{trained}:2', *SHAPE]) == 0
    assert compare_checkpoints.main([prefix, f'{trained}:1', *SHAPE]) == 1
    assert report.main([prefix, '--out', page, *SHAPE]) == 0
    with open(page, encoding='utf-8') as text:
        assert f'strip_params.py {prefix}:stopped-0001-2 --out' in text.read()


@pytest.mark.parametrize('option', ['--finetune', '--network'])
def test_training_starts_from_the_last_checkpoint(option, network, trained, tmp_path):
    prefix, out = stopped_copy(trained, tmp_path), str(tmp_path / 'more')
    flags = [option, prefix, '--num-epochs', '1', '--lr', '0', '--gamma', '0']
    assert train(network, out, *flags) == 0
    with open(f'{out}-0001.json', encoding='utf-8') as manifest:
        assert json.load(manifest)['arguments']['finetune'] == f'{prefix}:stopped-0001-2'
    before, after = (load_checkpoint(*named_checkpoint(name))[1] for name in (trained, out))
    assert all((before[name].asnumpy() == after[name].asnumpy()).all() for name in before)


def test_the_old_spelling_of_finetune_is_the_same_run(network, trained, tmp_path, capsys):
    assert train(network, tmp_path / 'run', '--finetune', f'{trained},2', '--num-epochs', '1') == 0
    assert f'write {trained}:2 in place of {trained},2' in capsys.readouterr().err
    assert differing({'finetune': 'a,2'}, {'finetune': 'a:2'}, ()) == []
    assert differing({'finetune': 'a,2'}, {'finetune': 'a:3'}, ()) == ['finetune']
