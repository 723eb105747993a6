"""What a run foresees from its schedule: how far γ alone takes a λ, held against the optimizers themselves, which are
given no gradient.
"""

import mxnet
import pytest
from helpers.tiny_runs import log_lines, save_network, train

from formats.symbol_file import load_symbol
from train.arguments import training_parser
from train.build import cumulative_shrinkage, make_optimizer

UPDATES = 500


@pytest.fixture(scope='module')
def network(tmp_path_factory):
    return save_network(tmp_path_factory.mktemp('network'))


@pytest.mark.parametrize(
    'flags',
    [
        ['--lambda-rule', 'apg'],
        ['--lambda-rule', 'apg', '--mom', '0'],
        ['--lambda-rule', 'ista'],
        ['--lambda-rule', 'subgradient'],
        ['--lambda-rule', 'apg', '--warmup-epochs', '2'],
        ['--lambda-rule', 'apg', '--lr-factor', '0.5', '--lr-step-epochs', '1,3'],
    ],
)
def test_gamma_alone_takes_as_much_from_lambda_as_foreseen(network, flags):
    args = training_parser('test').parse_args(
        ['--lr', '0.02', '--gamma', '0.02', '--num-epochs', '4', '--lr-step-epochs', '3', *flags]
    )
    optimizer = make_optimizer(args, load_symbol(network), UPDATES)
    foreseen = cumulative_shrinkage(args, optimizer, UPDATES)
    lambda_, nothing = mxnet.nd.array([10.0]), mxnet.nd.zeros(1)
    state = optimizer.create_state('lambda_block', lambda_)
    for pull in foreseen:
        for _ in range(UPDATES):
            optimizer.update('lambda_block', lambda_, nothing, state)
        assert 10 - lambda_.asscalar() == pytest.approx(pull, rel=0.06)


@pytest.mark.parametrize('flags', [['--gamma', '0'], ['--optimizer', 'nag'], ['--lambda-rule', 'group-lasso']])
def test_nothing_is_foreseen_where_gamma_takes_nothing_from_lambda(network, flags):
    args = training_parser('test').parse_args(flags)
    assert cumulative_shrinkage(args, make_optimizer(args, load_symbol(network), UPDATES), UPDATES) == []


@pytest.mark.parametrize(
    ('gamma', 'said'),
    [
        (0.05, 'Gamma alone shrinks λ by 0.80 (< 1): only structures that the loss also pushes down can be removed'),
        (0.08, 'Gamma alone shrinks λ from 1 to 0 in epoch 1'),
        (0, None),
    ],
)
def test_a_run_begins_with_what_gamma_can_do(network, tmp_path, gamma, said):
    assert train(network, tmp_path / 'run', '--num-epochs', 2, '--lr', 0.1, '--gamma', gamma) == 0
    assert [line.split('Node[0] ')[1] for line in log_lines(tmp_path / 'run') if 'Gamma alone' in line] == [said] * (
        said is not None
    )
