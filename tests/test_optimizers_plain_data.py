"""An optimizer that was sent as plain data does what the one does that was not sent."""

import json

import numpy as np
import pytest

from optimizers.plain_data import from_plain, to_plain
from optimizers.rules import RULES
from runtime import mx
from runtime.errors import TrainingError

SHAPES = {'conv_weight': (4, 3), 'bn_beta': (4,), 'lambda_block': (1,)}
SCHEDULES = {
    'number': lambda: None,
    'step': lambda: mx.lr_scheduler.MultiFactorScheduler([3, 6], 0.3, 0.2, warmup_steps=2),
    'cosine': lambda: mx.lr_scheduler.CosineScheduler(10, 0.2, warmup_steps=2),
    'linear': lambda: mx.lr_scheduler.PolyScheduler(10, 0.2, pwr=1, warmup_steps=0),
}


def made(rule='apg', schedule='number', **settings):
    if rule == 'group-lasso':
        settings['structures'] = {'conv_weight': {'lambda_block': np.zeros(4, int)}}
    optimizer = RULES[rule](
        learning_rate=0.2,
        lr_scheduler=SCHEDULES[schedule](),
        gamma=0.02,
        momentum=0.8,
        wd=0.1,
        rescale_grad=0.5,
        param_idx2name=dict(enumerate(SHAPES)),
        **settings,
    )
    optimizer.set_wd_mult({'bn_beta': 0.0})
    optimizer.set_lr_mult({'conv_weight': 0.5})
    return optimizer


def moved(optimizer, first=0):
    """Parameters after eight updates, with gradients that are the same for every optimizer."""
    random, updater = np.random.default_rng(first), mx.optimizer.get_updater(optimizer)
    arrays = [mx.nd.array(random.normal(size=shape)) for shape in SHAPES.values()]
    for _ in range(8):
        for index, array in enumerate(arrays):
            updater(index, mx.nd.array(random.normal(size=array.shape)), array)
    return [array.asnumpy().tolist() for array in arrays]


@pytest.mark.parametrize('schedule', SCHEDULES)
@pytest.mark.parametrize('rule', RULES)
def test_it_moves_parameters_bit_for_bit_the_same(rule, schedule):
    sent = from_plain(to_plain(made(rule, schedule)))
    assert type(sent) is RULES[rule]
    assert moved(sent) == moved(made(rule, schedule))


@pytest.mark.parametrize(
    'settings', [{'clip_gradient': 0.1}, {'begin_num_update': 4}, {'multi_precision': True}, {'nonnegative': False}]
)
def test_settings_arrive(settings):
    assert moved(from_plain(to_plain(made('apg', 'step', **settings)))) == moved(made('apg', 'step', **settings))


def test_a_schedule_goes_on_from_where_it_was():
    first, same = made('apg', 'step'), made('apg', 'step')
    for optimizer in (first, same):
        optimizer.lr_scheduler(5)  # MXNet's schedulers remember how far they were asked
    assert moved(from_plain(to_plain(first))) == moved(same)


def test_it_is_plain_text_besides_its_keys():
    plain = to_plain(made('group-lasso', 'cosine'))
    assert json.loads(json.dumps({**plain, 'names': None})) == {**plain, 'names': None}


def test_the_authors_name_is_a_rule_too():
    assert type(from_plain(to_plain(mx.optimizer.create('apgnag')))) is RULES['apg']


class OwnSchedule(mx.lr_scheduler.CosineScheduler):
    pass


def test_what_is_none_of_ours_is_not_sent():
    with pytest.raises(TrainingError, match='parameter servers run the rules apg, .*, not SGD'):
        to_plain(mx.optimizer.SGD())
    for schedule in (OwnSchedule(10, 0.2), lambda count: 0.1):
        optimizer = made()
        optimizer.lr_scheduler = schedule
        with pytest.raises(TrainingError, match='parameter servers know the schedules'):
            to_plain(optimizer)


@pytest.mark.parametrize(
    'change',
    [
        {'rule': 'os.system'},
        {'schedule': {'kind': 'LRScheduler', 'attributes': {}}},
        {'lr': {}},
        {'extra': 1},
        {'settings': {}},
        {'schedule': {'kind': 'CosineScheduler', 'attributes': {'__class__': 1}}},
    ],
)
def test_what_cannot_have_been_sent_is_refused(change):
    with pytest.raises(TrainingError):
        from_plain({**to_plain(made('apg', 'cosine')), **change})
    with pytest.raises(TrainingError):
        from_plain('text')
