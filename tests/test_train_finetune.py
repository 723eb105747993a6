"""--finetune takes the weights of a checkpoint and nothing else of it; λ that it lacks start at 1."""

import mxnet
import numpy as np
import pytest
from helpers.tiny_runs import DIGITS, checkpoint, log_lines, metrics, save_network, train

# At a learning rate of 0 an epoch changes nothing but the statistics of batch normalisation.
STILL = ['--num-epochs', 1, '--lr', 0]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('finetune')


@pytest.fixture(scope='module')
def without_lambda(folder):
    """The prefix of a trained baseline: no λ in its graph, and a learning rate that has dropped."""
    network = save_network(folder, 'plain', kinds=())
    assert (
        train(
            network, folder / 'baseline', '--num-epochs', 3, '--optimizer', 'nag', '--lr-step-epochs', '2', data=DIGITS
        )
        == 0
    )
    return str(folder / 'baseline')


@pytest.fixture(scope='module')
def network(folder):
    return save_network(folder, 'scaled', kinds=('block', 'neuron'))


def arguments_of(prefix, epoch):
    return {name: array.asnumpy() for name, array in mxnet.model.load_checkpoint(str(prefix), epoch)[1].items()}


def test_weights_are_taken_and_lambda_starts_at_one(folder, without_lambda, network):
    assert train(network, folder / 'still', *STILL, '--finetune', f'{without_lambda}:3', data=DIGITS) == 0
    found, before = arguments_of(folder / 'still', 1), arguments_of(without_lambda, 3)
    assert sorted(set(found) - set(before)) == [
        'lambda_block',
        *(f'lambda_stage{stage}_unit1_conv{conv}' for stage in (1, 2) for conv in (1, 2)),
    ]
    for name, value in found.items():
        np.testing.assert_array_equal(value, before.get(name, np.ones_like(value)), err_msg=name)


def test_nothing_else_is_taken(folder, without_lambda, network):
    """The schedule begins anew, with the momentum: the first epoch's rate is the first rate."""
    assert train(network, folder / 'one', '--num-epochs', 1, '--finetune', f'{without_lambda}:3', data=DIGITS) == 0
    assert (
        train(
            network,
            folder / 'two',
            '--num-epochs',
            1,
            '--finetune',
            f'{folder / "one"}:1',
            '--lr-step-epochs',
            '1',
            data=DIGITS,
        )
        == 0
    )
    assert [epoch['epoch'] for epoch in metrics(folder / 'two')] == [0]
    assert not any('Change learning rate' in line for line in log_lines(folder / 'two'))


def test_it_starts_where_the_baseline_ended(folder, without_lambda, network):
    """The network with λ = 1 is the network without λ, so its first losses are those of the baseline's last epoch, not
    of chance.
    """
    assert (
        train(
            network,
            folder / 'on',
            '--num-epochs',
            1,
            '--gamma',
            0.01,
            '--lr',
            0.01,
            '--finetune',
            f'{without_lambda}:3',
            data=DIGITS,
        )
        == 0
    )
    assert metrics(folder / 'on')[0]['train']['cross-entropy'] < metrics(without_lambda)[-1]['train']['cross-entropy']


def test_a_finetuned_run_can_be_resumed(folder, without_lambda, network):
    """With or without saying again where it came from."""
    flags = ['--finetune', f'{without_lambda}:3', '--gamma', 0.05]
    assert train(network, folder / 'whole', '--num-epochs', 2, *flags, data=DIGITS) == 0
    for name, said_again in (('with', flags), ('without', flags[2:])):
        assert train(network, folder / name, '--num-epochs', 1, *flags, data=DIGITS) == 0
        assert train(network, folder / name, '--num-epochs', 2, '--resume', *said_again, data=DIGITS) == 0
        assert checkpoint(folder / name, 2) == checkpoint(folder / 'whole', 2)
