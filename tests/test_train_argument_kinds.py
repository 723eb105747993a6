"""Every argument has one kind, and runs are compared by it."""

import pytest

from tools.tables.results import Point, baseline_of
from train.argument_kinds import COMPUTE, IDENTITY, OUTPUT, SELECTION, differing
from train.arguments import training_parser
from train.data.datasets import add_data_args
from train.data.imagenet import add_imagenet_args


@pytest.mark.parametrize('add', [add_data_args, add_imagenet_args])
def test_every_argument_has_one_kind(add):
    parser = training_parser('test')
    add(parser)
    for name in {action.dest for action in parser._actions} - {'help'}:
        assert sum(name in kind for kind in (IDENTITY, SELECTION, COMPUTE, OUTPUT)) == 1, name


def run_with(**arguments):
    return {
        'folder': 'x',
        'recipe': 'x',
        'arguments': {'network': 'resnet', 'num_layers': 20, 'optimizer': 'apg', 'num_epochs': 9, **arguments},
    }


@pytest.mark.parametrize('name', sorted(COMPUTE | OUTPUT | SELECTION - {'optimizer'}))
def test_a_run_that_is_only_computed_elsewhere_has_its_baseline(name):
    """With --data-nthreads it had none."""
    run, baseline = run_with(**{name: 'one'}), run_with(**{name: 'another', 'optimizer': 'nag'})
    assert baseline_of(Point([run]), [run, baseline]) == Point([baseline])


@pytest.mark.parametrize('name', ['num_epochs', 'lr', 'lr_schedule', 'label_smoothing', 'dataset'])
def test_another_schedule_is_no_baseline(name):
    assert baseline_of(Point([run_with()]), [run_with(**{name: 'another', 'optimizer': 'nag'})]) is None


def test_older_runs_went_by_what_was_added_later():
    assert differing({'lr': 1}, {'lr': 1, 'lr_schedule': 'step', 'lambda_init': 1.0}, set()) == []
    assert differing({'lr': 1}, {'lr': 1, 'lr_schedule': 'cosine'}, set()) == ['lr_schedule']
