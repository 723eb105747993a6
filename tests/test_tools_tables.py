"""The tables: published numbers against what is really built and stripped, and every sentence that is said about the
difference.
"""

import json
import os
import re

import pytest
from helpers.run_results import write_epochs, write_result

from graphs.complexity import complexity
from runtime.errors import DataError
from symbols import get_symbol
from tools import reproduce_tables, sweep
from tools.tables.cells import COLUMNS, Cell, lines_of
from tools.tables.from_scratch import from_scratch_markdown
from tools.tables.gammas import gammas_json
from tools.tables.published import Value, find_row, read_tables
from tools.tables.render import longest_runs_markdown, runs_markdown
from tools.tables.results import Point, baseline_of, network_of, points_of, read_results
from tools.tables.structures import structure_cost

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SECOND = 'imagenet-resnet-second-source'


@pytest.fixture(scope='module')
def tables():
    return read_tables()


def rows_of(tables):
    return [row for table in tables.values() for row in table.rows]


def test_every_structure_that_is_certain_agrees_to_every_printed_digit(tables):
    checked = []
    for row in rows_of(tables):
        if row.table == SECOND:
            continue
        for line in lines_of(row, tables[row.table].columns, []):
            for name, cell in line.cells.items():
                if cell.published and cell.published.grade == 'A':
                    # "138.3 M" is 138,357,544 cut off.
                    assert cell.agreement == ('= cut' if (row.model, name) == ('VGG-16', 'params') else '='), (
                        row.name,
                        name,
                        cell,
                    )
                    checked.append((row.name, name))
    assert len(checked) == 4 * 3 + 2 + 5 + 4  # ResNet-50, VGG-16, CIFAR-10, CIFAR-100
    assert ('imagenet-resnet/sss-resnet-26', 'params') in checked
    assert ('cifar100/sss-resnet-164', 'params_kept') in checked


def test_what_is_less_certain_agrees_where_it_can_be_computed(tables):
    lines = {row.name: lines_of(row, tables[row.table].columns, []) for row in rows_of(tables)}
    (resnext,) = lines['imagenet-resnext/resnext-50']
    assert {name: cell.agreement for name, cell in resnext.cells.items()} == {'params': '=', 'macs': '='}
    (vgg,) = lines['imagenet-vgg/vgg-16']
    assert vgg.cells['flops'].agreement == '='
    assert lines['imagenet-vgg/sss-vgg-16'] == []


def test_the_second_sources_structures_are_shown_not_to_fit(tables):
    found = {row.model: lines_of(row, tables[SECOND].columns, [])[0].cells for row in tables[SECOND].rows}
    assert {model: cells['params'].agreement for model, cells in found.items()} == {
        'SSS ResNet-41': '=',
        'SSS ResNet-32': '-4.387',
        'SSS ResNet-26': '-0.705',
    }
    assert found['SSS ResNet-32']['blocks'].agreement == 'differs'
    assert found['SSS ResNet-26']['macs'].ours == pytest.approx(2.2780, abs=1e-4)


def test_costs_are_counted_in_the_network(tables):
    row = find_row(tables, 'imagenet-resnet/sss-resnet-41')
    cost = structure_cost(row.network, row.keep)
    full = complexity(get_symbol(**row.network), {'data': (1, 3, 224, 224)})
    assert (cost.full['macs'], cost.full['params_without_bn']) == (full.macs, full.params_without_bn)
    assert cost.blocks == (0, 4, 6, 3)
    with pytest.raises(DataError, match='3 blocks, the network 16'):
        structure_cost(row.network, '111')


@pytest.mark.parametrize(
    ('ours', 'published', 'said'),
    [
        (25.5039, '25.504', '='),
        (138.3575, '138.3', '= cut'),
        (14.236, '18.623', '-4.387'),
        (2.44, '2.4', '='),
        (2.46, '2.4', '= cut'),
        (2.51, '2.4', '+0.1'),
        ('0,4', '0,4', '='),
        ('1,4', '0,4', 'differs'),
        (3, None, None),
    ],
)
def test_agreement_is_said_by_the_printed_digits(ours, published, said):
    assert Cell(ours, published and Value(published, 'A')).agreement == said


def test_a_grade_stands_beside_every_number(tables):
    for row in rows_of(tables):
        assert row.values
        assert all(value.grade in 'ABM?' for value in row.values.values())
        assert set(row.values) <= set(COLUMNS)
    text = reproduce_tables.as_markdown(['imagenet-resnext'], tables, [], 'figures')
    assert '| **SSS ResNeXt-41** | published | 24.07 [B] | 7.00 [M] | 12.4 [B] | 3.234 [B] |' in text


def test_a_cell_that_is_not_a_graded_number_is_refused(tmp_path):
    (tmp_path / 'p.yaml').write_text("t: {title: T, columns: [top1], rows: [{model: X, top1: '24.5'}]}\n")
    with pytest.raises(DataError, match=r"X: '24.5' is not a number and its grade"):
        read_tables(str(tmp_path / 'p.yaml'))


def test_a_cell_that_nobody_ran_says_how_to(tables, capsys, tmp_path):
    assert reproduce_tables.main(['cifar10', '--results', str(tmp_path)]) == 0
    assert '`--run cifar10/sss-resnet-20`' in capsys.readouterr().out


def test_run_starts_the_recipe_of_the_row(monkeypatch):
    started = []
    monkeypatch.setattr(sweep, 'main', lambda argv: started.append(argv) or 0)
    assert reproduce_tables.main(['--run', 'cifar10/sss-resnet-20/top1', '--results', 'there']) == 0
    assert started == [['--recipe', 'train/recipes/cifar10/resnet20-sss.args', '--no-baseline', '--out', 'there']]
    with pytest.raises(DataError, match='imagenet-resnet/resnet-50'):
        reproduce_tables.main(['--run', 'cifar10/nothing'])


def test_a_run_fills_its_row(tables, tmp_path):
    write_result(tmp_path, 'old', error={'top1': 11.0, 'unstripped': 11.0})
    write_result(tmp_path, 'new', date='2021-01-01T00:00:00+00:00')
    write_result(
        tmp_path,
        'other',
        date='2022-01-01T00:00:00+00:00',
        overrides=['--gamma', '0.5'],
        error={'top1': 50.0, 'unstripped': 50.0},
    )
    row = find_row(tables, 'cifar10/sss-resnet-20')
    (line,) = lines_of(row, tables['cifar10'].columns, read_results(str(tmp_path)))
    assert (line.origin, os.path.basename(line.source)) == ('run', 'new')
    assert str(line.cells['top1']) == '9.25 (+0.10)'
    assert str(line.cells['macs_kept']) == '50.00 (+4.84)'
    assert str(line.cells['blocks']) == '1,2,2'


@pytest.mark.parametrize(
    ('overrides', 'fills'),
    [
        ([], True),
        (['--gamma', '0.001'], True),
        (['--gamma', '0.02'], False),
        (['--num-epochs', '3'], False),
        (['--engine', 'torch', '--gpus', '0', '--gamma', '0.001'], True),
        (['--no-augment'], False),
    ],
)
def test_only_a_run_by_the_whole_recipe_fills_a_row(tables, tmp_path, overrides, fills):
    write_result(tmp_path, 'a', overrides=overrides)
    lines = lines_of(find_row(tables, 'cifar10/sss-resnet-20'), tables['cifar10'].columns, read_results(str(tmp_path)))
    assert bool(lines) == fills


def test_runs_are_set_against_their_baseline(tmp_path):
    baseline = {'optimizer': 'nag', 'scale': 'none', 'gamma': 0.01}
    write_result(tmp_path, 'a', arguments=baseline, error={'top1': 8.0, 'unstripped': 8.0}, alive={})
    write_result(tmp_path, 'b', arguments={**baseline, 'num_epochs': 240}, error={'top1': 7.0, 'unstripped': 7.0})
    write_result(tmp_path, 'c', error={'top1': 9.25, 'unstripped': 9.26, 'onnx': 9.27})
    results = read_results(str(tmp_path))
    baselines = [baseline_of(Point([found]), results) for found in results]
    assert baselines[:2] == [None, None]
    assert [os.path.basename(run['folder']) for run in baselines[2].runs] == ['a']
    table = runs_markdown(results, str(tmp_path))
    assert re.findall(r'\[(.)\]\(', table) == ['a', 'c', 'b']  # a baseline before what is set against it
    (line,) = (line for line in table.splitlines() if '[c](c)' in line)
    assert line.startswith(
        '| resnet-20 on cifar10 | apg | γ = 0.02 | 30 | 9.26 | 9.25 | 9.27 | +1.25 | 0.150 | 75.00 | 20.0 | 50.00 '
        '| blocks 5/6 |'
    )


def test_seeds_are_one_row(tmp_path):
    """8.0, 8.2 and 8.4 have the mean 8.2 and the sample deviation 0.2; the runs to a budget lose 9.5 - 8.2."""
    baseline = {'optimizer': 'nag', 'scale': 'none'}
    budget = {'target_macs': 0.5, 'gamma': 0.001}
    for seed, error in enumerate((8.0, 8.2, 8.4)):
        errors = {'top1': error, 'unstripped': error}
        write_result(tmp_path, f'full{seed}', arguments={**baseline, 'seed': seed}, error=errors)
    for seed, error in enumerate((9.0, 10.0)):
        errors = {'top1': error, 'unstripped': error}
        write_result(tmp_path, f'half{seed}', arguments={**budget, 'seed': seed, 'threads': seed}, error=errors)
    write_result(tmp_path, 'other', arguments={**budget, 'target_macs': 0.3}, error={'top1': 11.0, 'unstripped': 11.0})
    results = read_results(str(tmp_path))
    assert [len(point.runs) for point in points_of(results)] == [3, 2, 1]
    rows = [line.split(' | ') for line in longest_runs_markdown(results, str(tmp_path)).splitlines()[2:]]
    assert [(row[2], *row[6:10]) for row in rows] == [
        ('50 % of the MACs', '9.50 ± 0.71 (2)', '–', '8.20 ± 0.20 (3)', '+1.30'),
        ('30 % of the MACs', '11.00', '–', '8.20 ± 0.20 (3)', '+2.80'),
    ]


def test_a_run_is_set_against_its_structure_trained_from_new_weights(tmp_path):
    write_result(tmp_path, 'a', arguments={'scale': 'neuron', 'target_macs': 0.5})
    write_result(tmp_path, 'b', arguments={'target_macs': 0.5})
    structure = {'network': 'results/cifar10/a/stripped-symbol.json', 'scale': 'none', 'optimizer': 'nag'}
    write_result(tmp_path, 'c', arguments=structure, error={'top1': 9.5, 'unstripped': 9.5})
    results = read_results(str(tmp_path))
    (row,) = from_scratch_markdown(results).splitlines()[2:]
    assert row == '| resnet-20 on cifar10 | channels | 50 % of the MACs | 30 | 50.0 | 9.25 | 9.50 | -0.25 |'
    assert network_of(results[2]) == 'structure of a on cifar10'
    assert from_scratch_markdown(results[:2]) == 'None yet.'


def test_a_damaged_result_is_named(tmp_path):
    path = write_result(tmp_path, 'a')
    with open(os.path.join(path, 'result.json'), 'w') as out:
        out.write('{"recipe": 1}')
    with pytest.raises(DataError, match='result.json: not the result of a run'):
        read_results(str(tmp_path))


def test_json_holds_the_same(capsys):
    assert reproduce_tables.main(['imagenet-vgg', '--json']) == 0
    rows = json.loads(capsys.readouterr().out)['imagenet-vgg']['rows']
    assert rows[0]['published']['params'] == {'published': '138.3', 'grade': 'A'}
    assert rows[0]['ours'][0]['cells']['params']['ours'] == pytest.approx(138.357544)
    with pytest.raises(DataError, match="no table 'nothing'; there are all, imagenet-resnet"):
        reproduce_tables.main(['nothing'])


@pytest.mark.parametrize(
    ('changes', 'needed'),
    [
        ({}, '0.50'),
        ({'gamma': 0.001}, '10.00'),
        ({'mom': 0.0}, '5.00'),
        ({'lambda_rule': 'ista'}, '5.00'),
        ({'lambda_rule': 'group-lasso'}, '–'),
        ({'gamma': 0.0001}, '–'),
        ({'gamma': 0.001, 'lr_step_epochs': [9]}, '19.00'),
        ({'gamma': 0.001, 'lr_step_epochs': [9], 'num_epochs': 18}, '–'),
    ],
)
def test_a_run_is_told_when_gamma_alone_would_have_taken_everything(tmp_path, changes, needed):
    """100 batches an epoch; APG takes ηγ / (1 - μ) = 0.02 a step."""
    schedule = {'batch_size': 128, 'lr': 0.1, 'mom': 0.9, 'lr_factor': 0.1, 'lr_step_epochs': [20], 'warmup_epochs': 0}
    write_epochs(write_result(tmp_path, 'a', arguments={**schedule, **changes}), [0.6, 0.7])
    (row,) = gammas_json(read_results(str(tmp_path)))
    assert (
        row['γ alone needs (epochs)'],
        row['alive after one epoch (%)'],
        row['alive (%)'],
        row['MACs kept (%)'],
    ) == (needed, '67', '83', '50.0')
