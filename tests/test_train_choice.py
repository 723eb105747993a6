"""What a budget chooses, epoch by epoch."""

from types import SimpleNamespace

import numpy as np
import pytest

from symbols import get_symbol
from train.choice import Choice
from train.selection import Schedule, Selection, schedule_of


def selection_of_resnet20(target):
    """``Selection`` of the six blocks of ResNet-20 in a run of 60 epochs."""
    args = SimpleNamespace(
        target_macs=target,
        target_params=None,
        freeze_dead=False,
        optimizer='apg',
        gamma=0.001,
        gamma_weight='none',
        num_epochs=60,
    )
    return Selection(args, get_symbol('resnet', 20, 10, (3, 32, 32), 'block'), {'data': (1, 3, 32, 32)})


@pytest.mark.parametrize('target', [0.7, 0.5, 0.3])
def test_blocks_die_one_after_the_other(target):
    """In ResNet-20 each block costs about 15 % of the MACs; none dies earlier than it must, nor two at once."""
    chosen = selection_of_resnet20(target)
    lambdas, shares = {'lambda_block': np.ones(6)}, []
    for epoch in range(20):
        before = np.count_nonzero(lambdas['lambda_block'])
        lambdas['lambda_block'][np.isfinite(chosen._dying.get('lambda_block', np.full(6, np.inf)))] = 0
        assert before - np.count_nonzero(lambdas['lambda_block']) <= 1
        chosen.end_epoch(epoch, lambdas, lambda: {'lambda_block': np.arange(1, 7) * 0.1})
        shares.append(chosen.share_left())
    assert target - 0.17 < shares[-1] <= target
    assert shares[-2] > target


def test_the_last_block_to_die_is_the_one_the_loss_needs_least():
    """The fifth contributes less for its MACs than the second, but more: either reaches the target."""
    chosen = selection_of_resnet20(0.6)
    rises = np.array([0, 0.46, 0, 0.78, 0.48, 0.59])
    chosen.end_epoch(18, {'lambda_block': np.array([0.0, 1, 0, 1, 1, 1])}, lambda: {'lambda_block': rises})
    assert np.flatnonzero(np.isfinite(chosen._dying['lambda_block'])).tolist() == [1]


def test_where_no_set_of_structures_is_enough_all_of_them_die():
    masks = {'lambda_block': np.array([False, False, True])}
    choice = Choice(masks, {'lambda_block': 'block'}, lambda dead: 1 - dead['lambda_block'].sum() / 9, masks)
    assert choice.last(0.1) == [('lambda_block', 0), ('lambda_block', 1)]
    masks['lambda_block'][:] = True
    assert choice.last(0.1) == []


def test_selection_takes_the_first_third():
    assert schedule_of(60) == Schedule(3, 20)
    assert schedule_of(3) == Schedule(1, 2)
    shares = [schedule_of(60).share(epoch, 0.5) for epoch in range(60)]
    assert shares[:2] == [None, None]
    assert shares[19:] == [None] * 41
    assert shares[18] == 0.5
    falling = [share for share in shares if share is not None]
    assert falling == sorted(falling, reverse=True)
    assert falling[0] == pytest.approx(1 - 0.5 / 17)
