"""The passages that tools/reproduce_tables.py writes into pages: none is stale, and every flag is among the options."""

import os

import pytest
from helpers.run_results import result, write_result

from runtime.errors import DataError
from tools import reproduce_tables
from tools.tables.options import options_markdown
from tools.tables.pages import refreshed
from tools.tables.published import read_tables
from tools.tables.render import longest_runs_markdown
from tools.tables.results import read_results
from train import train_cifar, train_imagenet

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


@pytest.fixture(scope='module')
def tables():
    return read_tables()


def test_passages_are_made_anew():
    text = 'before\n<!-- table: a -->\nold\n<!-- /table -->\nbetween\n<!-- table: b -->\n<!-- /table -->\n'
    expected = 'before\n<!-- table: a -->\n\nA\n\n<!-- /table -->\nbetween\n<!-- table: b -->\n\nB\n\n<!-- /table -->\n'
    make = {'a': lambda: 'A', 'b': lambda: 'B'}
    assert refreshed(text, make) == expected
    assert refreshed(expected, make) == expected
    with pytest.raises(DataError, match='table: b.*unknown table; known are a'):
        refreshed(text, {'a': make['a']})
    with pytest.raises(DataError, match='table: a --> has no'):
        refreshed('<!-- table: a -->\n<!-- table: b -->\n<!-- /table -->\n', make)


def test_update_writes_the_table_and_links_from_its_folder(tmp_path, capsys):
    path = tmp_path / 'README.md'
    path.write_text('<!-- table: imagenet-vgg -->\n<!-- /table -->\n<!-- table: runs -->\n<!-- /table -->\n')
    write_result(tmp_path / 'results', 'a')
    flags = ['--update', str(path), '--results', str(tmp_path / 'results')]
    assert reproduce_tables.main(flags) == 0
    assert '138.36 (= cut)' in path.read_text()
    assert '[results/a](results/a)' in path.read_text()
    assert reproduce_tables.main(flags) == 0
    assert capsys.readouterr().out.endswith('unchanged\n')


PAGES = [
    'README.md',
    os.path.join('results', 'README.md'),
    *sorted(os.path.join('docs', name) for name in os.listdir(os.path.join(ROOT, 'docs'))),
]


@pytest.mark.parametrize('name', PAGES)
def test_the_passages_of_our_own_pages_are_not_stale(tables, name, monkeypatch):
    monkeypatch.chdir(ROOT)
    with open(name, encoding='utf-8') as source:
        text = source.read()
    make = reproduce_tables.makers(tables, read_results(), 'results/figures', os.path.dirname(name) or '.')
    assert refreshed(text, make) == text, f'python tools/reproduce_tables.py --update {name}'


def test_no_run_that_is_shown_is_a_short_one():
    """Selection in a few epochs says nothing about selection in a whole schedule."""
    epochs = [found['arguments']['num_epochs'] for found in read_results(os.path.join(ROOT, 'results'))]
    assert epochs
    assert min(epochs) >= 20


def test_the_longest_run_of_each_network_that_lost_something_is_shown(tmp_path):
    baseline = {'optimizer': 'nag', 'scale': 'none'}
    write_result(tmp_path, 'baseline', arguments=baseline, error={'top1': 8.0, 'unstripped': 8.0})
    write_result(
        tmp_path, 'long-baseline', arguments={**baseline, 'num_epochs': 240}, error={'top1': 7.0, 'unstripped': 7.0}
    )
    write_result(tmp_path, 'long', arguments={'num_epochs': 240}, error={'top1': 9.5, 'unstripped': 9.5})
    write_result(
        tmp_path,
        'long-and-whole',
        arguments={'num_epochs': 240, 'gamma': 0.001},
        error={'top1': 7.1, 'unstripped': 7.1},
        left=result()['full'],
    )
    write_result(tmp_path, 'without-baseline', arguments={'num_epochs': 300}, error={'top1': 6.0, 'unstripped': 6.0})
    write_result(tmp_path, 'short')
    *_, line = longest_runs_markdown(read_results(str(tmp_path)), str(tmp_path)).splitlines()
    assert line == (
        '| resnet-20 on cifar10 | blocks | γ = 0.02 | 240 | 50.0 | 75.0 | 9.50 | – | 7.00 | +2.50 | [long](long) |'
    )


def test_a_run_without_baseline_is_shown_beside_the_weights_that_it_starts_from(tmp_path):
    errors = {'top1': 8.1, 'unstripped': 8.1, 'start': 7.4}
    write_result(tmp_path, 'warm', arguments={'finetune': 'trained:60'}, error=errors)
    *_, line = longest_runs_markdown(read_results(str(tmp_path)), str(tmp_path)).splitlines()
    assert '| 8.10 | 7.40 | – | – | [warm](warm) |' in line


def test_every_flag_is_among_the_options():
    text = options_markdown()
    for script in (train_cifar, train_imagenet):
        for action in script.parser()._actions:
            for flag in action.option_strings:
                assert f'`{flag}' in text or flag in ('-h', '--help')
    assert '| `--batch-size VALUE` | 64; ImageNet 128 |' in text
    assert '| `--resume` | off |' in text
