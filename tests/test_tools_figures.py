"""The figures: the same picture twice, every point on it, and rules compared under equal conditions."""

import os

import pytest
from helpers.run_results import write_epochs, write_result

from tools import reproduce_tables
from tools.tables import figures, plotting, run_figures
from tools.tables.published import read_tables
from tools.tables.results import read_results


@pytest.fixture(scope='module')
def tables():
    return read_tables()


def test_figures_are_drawn_the_same_twice(tables, tmp_path):
    write_result(tmp_path, 'a', arguments={'optimizer': 'nag'}, error={'top1': 8.0, 'unstripped': 8.0})
    write_epochs(write_result(tmp_path, 'b'), [0.6, 0.7])
    write_epochs(write_result(tmp_path, 'c', arguments={'lambda_rule': 'ista'}), [0.5, 0.6])
    made = figures.all_figures(tables, read_results(str(tmp_path)))
    assert set(made) == {'imagenet', 'cifar', 'structure', 'runs', 'lambda', 'rules'} == set(reproduce_tables.CAPTIONS)
    for name in ('runs', 'lambda', 'rules', 'imagenet'):
        for twin in ('one', 'two'):
            plotting.save(made[name](), str(tmp_path / twin))
        for ending in ('png', 'svg'):
            assert (tmp_path / f'one.{ending}').read_bytes() == (tmp_path / f'two.{ending}').read_bytes()


def test_the_published_points_of_a_network_are_beside_its_runs(tables, tmp_path):
    """ResNet-20 on CIFAR-10: 7.47 % whole, and 9.15 % with 45.16 % of the MACs; our run kept half of them. A run from
    trained weights is a curve of its own in the same panel.
    """
    write_result(tmp_path, 'a')
    write_result(tmp_path, 'b', arguments={'finetune': 'x:0'}, error={'top1': 8.5, 'unstripped': 8.5, 'start': 8.0})
    (panel,) = run_figures.frontier(read_results(str(tmp_path)), tables).axes
    drawn = [[tuple(map(float, point)) for point in line.get_xydata()] for line in panel.lines]
    assert [(45.16, 9.15), (100.0, 7.47)] in drawn
    assert [(50.0, 9.25)] in drawn
    assert [(50.0, 8.5)] in drawn
    assert [(100.0, 8.0)] in drawn


def test_rules_are_compared_by_one_network_schedule_and_gamma(tmp_path):
    write_epochs(write_result(tmp_path, 'baseline', arguments={'optimizer': 'nag'}), [0.7, 0.9])
    write_epochs(write_result(tmp_path, 'same'), [0.6, 0.85])
    write_epochs(write_result(tmp_path, 'another-gamma', arguments={'gamma': 0.5}), [0.6, 0.85])
    write_epochs(write_result(tmp_path, 'longer', arguments={'num_epochs': 99}), [0.6, 0.85])
    assert run_figures.comparable_rules(read_results(str(tmp_path))) == []
    write_epochs(write_result(tmp_path, 'ista', arguments={'lambda_rule': 'ista'}), [0.5, 0.8])
    compared = run_figures.comparable_rules(read_results(str(tmp_path)))
    assert [os.path.basename(run['folder']) for run in compared] == ['same', 'ista', 'baseline']
    error, macs = run_figures.rules(read_results(str(tmp_path))).axes
    assert ([1, 2], [50.0, 20.0]) in [
        (list(x), [round(y, 6) for y in ys]) for x, ys in (line.get_data() for line in error.lines)
    ]
    assert (2, 9.25) in {(x[0], y[0]) for x, y in (line.get_data() for line in error.lines) if len(x) == 1}
    assert ([1, 2], [75.0, 75.0]) in [(list(x), list(y)) for x, y in (line.get_data() for line in macs.lines)]


def test_every_point_of_a_curve_is_on_the_picture(tables, tmp_path):
    ours = {'dataset': 'imagenet', 'num_layers': 50}
    write_result(tmp_path, 'a', arguments=ours, overrides=['--gamma', '0.5'], error={'top1': 25.5, 'unstripped': 25.5})
    write_result(
        tmp_path, 'shorter', arguments=ours, overrides=['--num-epochs', '3'], error={'top1': 66.0, 'unstripped': 66.0}
    )
    figure = figures.imagenet(tables, read_results(str(tmp_path)))
    drawn = {(x, y) for line in figure.axes[1].lines for x, y in zip(*line.get_data())}
    assert {(4.0892, 23.88), (2.3294, 28.18), (1.549, 26.83), (2.726, 27.7), (0.02, 25.5)} <= drawn
    assert (0.02, 66.0) not in drawn
    assert [axes.get_xlabel() for axes in figure.axes] == ['parameters without batch normalisation (M)', 'MACs (G)']
