"""The table and the figure of runs with a budget."""

import pytest
from helpers.tiny_runs import metrics, save_network, train

from tools.tables.budget_figure import budget_course
from tools.tables.budgets import budgets_markdown, is_within, largest_structure


def result(left, target=0.5, seed=0, error=5.0, **arguments):
    """What a run to a share of the MACs leaves behind, as far as the table reads it."""
    return {
        'recipe': 'train/recipes/digits/resnet20-blocks.args',
        'folder': f'results/{target}-{seed}',
        'arguments': {
            'network': 'resnet',
            'num_layers': 20,
            'dataset': 'digits',
            'image_shape': [3, 16, 16],
            'scale': 'block',
            'optimizer': 'apg',
            'lambda_rule': 'apg',
            'gamma': 0.001,
            'target_macs': target,
            'num_epochs': 9,
            'seed': seed,
            **arguments,
        },
        'full': {'macs': 1000},
        'left': {'macs': left},
        'error': {'top1': error},
    }


def test_one_structure_is_the_most_expensive_one():
    """Counted by hand for ResNet-20 on 16x16: the first block of stage 2, or of stage 3, without its shortcut."""
    stem, classes = 16**2 * 27 * 16, 256 * 10
    same = 16**2 * (64 * 16 + 9 * 16**2 + 16 * 64)  # the second block of every stage: half the map, twice the channels
    first = 16**2 * (16 * 16 + 9 * 16**2 + 16 * 64)
    halving = 16**2 * 64 * 32 + 8**2 * (9 * 32**2 + 32 * 128)
    shortcuts = 16**2 * 16 * 64 + 2 * 8**2 * 64 * 128
    whole = stem + first + 2 * halving + 3 * same + shortcuts + classes
    assert largest_structure(result(500)) == pytest.approx(halving / whole)


@pytest.mark.parametrize(('left', 'is_right'), [(500, True), (501, False), (400, True), (300, False)])
def test_a_run_ends_within_one_structure_of_its_target(left, is_right):
    assert is_within(result(left)) == is_right


def test_seeds_share_a_row():
    runs = [result(490), result(450, seed=1, error=7.0), result(510, seed=2), result(690, target=0.7)]
    table = budgets_markdown(runs)
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in table.splitlines() if '50 %' in line]
    assert rows == [
        [
            'resnet-20 on digits',
            'blocks',
            '9',
            '50 % of the MACs',
            '45.0 to 51.0',
            f'{100 * largest_structure(runs[0]):.1f}',
            '2 of 3',
            '94.3 ± 1.2',
        ]
    ]
    assert '3 of 4 runs end at or below' in table


def test_no_budget_no_table():
    assert budgets_markdown([result(500, target=None)]) == 'None yet.'


def test_the_figure_shows_what_the_metrics_say(tmp_path):
    network, prefix = save_network(tmp_path, kinds=('block', 'neuron')), tmp_path / 'run'
    flags = ['--num-epochs', '6', '--target-macs', '0.7', '--gamma', '0.001', '--lr', '0.05', '--shrink']
    assert train(network, prefix, *flags) == 0
    lambdas, share, *_ = budget_course({**result(0, target=0.7), 'folder': str(tmp_path)}).axes
    records = metrics(prefix)
    values = [vector['values'] for vector in records[-1]['lambda_values'].values()]
    assert [line.get_ydata()[-1] for line in lambdas.get_lines()] == sum(values, [])
    left = next(line for line in share.get_lines() if line.get_label() == 'left')
    assert list(left.get_ydata()) == [100 * record['alive']['macs'] / record['full']['macs'] for record in records]
