"""An optimizer as plain data: the name of its rule, numbers, its schedule and the names of its parameters.

That is how an optimizer travels to the parameter servers. What is built from such data can only be a rule of
``optimizers.rules`` with one of MXNet's schedules that are listed here: no class and no function is named by the data,
as a pickle would name them.
"""

from __future__ import annotations

from typing import Any, Dict

import numpy as np

from runtime import mx
from runtime.errors import TrainingError

from .apg import APG, APGNAG
from .rules import RULES

SETTINGS = (
    'gamma',
    'momentum',
    'lambda_name',
    'nonnegative',
    'wd',
    'rescale_grad',
    'clip_gradient',
    'multi_precision',
    'begin_num_update',
)
WARMUP = ('base_lr', 'warmup_steps', 'warmup_final_lr', 'warmup_begin_lr', 'warmup_mode')
SCHEDULES = {
    'MultiFactorScheduler': (*WARMUP, 'step', 'cur_step_ind', 'factor', 'count'),
    'PolyScheduler': (*WARMUP, 'power', 'base_lr_orig', 'max_update', 'final_lr', 'max_steps'),
    'CosineScheduler': (*WARMUP, 'base_lr_orig', 'max_update', 'final_lr', 'max_steps'),
}
FIELDS = {'rule', 'settings', 'lr', 'num_update', 'schedule', 'names', 'lr_mult', 'wd_mult', 'structures'}


def to_plain(optimizer: mx.optimizer.Optimizer) -> Dict[str, Any]:
    """``optimizer`` as dicts, lists, text, numbers and None.

    Its states are not part of it, nor how often it has updated each parameter. Raises TrainingError for an optimizer or
    a schedule that is none of ours.
    """
    names = {kind: name for name, kind in RULES.items()}
    names[APGNAG] = 'apg'
    if type(optimizer) not in names:
        raise TrainingError(
            f'parameter servers run the rules {", ".join(RULES)}, not {type(optimizer).__name__}; add it to '
            f'optimizers/rules.py, '
            'or train without parameter servers'
        )
    # What gluon.Trainer says of its keys.
    explained = {index: parameter.name for index, parameter in optimizer.param_dict.items()}
    structures = {
        parameter: {factor: [int(entry) for entry in entries] for factor, entries in factors.items()}
        for parameter, factors in getattr(optimizer, 'structures', {}).items()
    }
    return {
        'rule': names[type(optimizer)],
        'settings': {name: _plain(getattr(optimizer, name)) for name in SETTINGS},
        'lr': _plain(optimizer.lr),
        'num_update': int(optimizer.num_update),
        'schedule': _schedule_to_plain(optimizer.lr_scheduler),
        'names': {**optimizer.idx2name, **explained},
        'lr_mult': _plain_dict(optimizer.lr_mult),
        'wd_mult': _plain_dict(optimizer.wd_mult),
        'structures': structures,
    }


def from_plain(plain: Dict[str, Any]) -> APG:
    """The optimizer that ``to_plain`` was given. Raises TrainingError for data that it cannot have made."""
    if not isinstance(plain, dict) or set(plain) != FIELDS or set(plain['settings']) != set(SETTINGS):
        raise TrainingError(
            'this is not a description of an optimizer; every process of a run must have the same version of this '
            'project'
        )
    if plain['rule'] not in RULES:
        raise TrainingError(
            f'unknown rule {plain["rule"]!r}; known are {", ".join(RULES)}; every process of a run must have the '
            f'same version of '
            'this project'
        )
    settings = {name: _plain(value) for name, value in plain['settings'].items()}
    if plain['rule'] == 'group-lasso':
        settings['structures'] = {
            parameter: {factor: np.array(entries, dtype=int) for factor, entries in factors.items()}
            for parameter, factors in plain['structures'].items()
        }
    optimizer = RULES[plain['rule']](learning_rate=_plain(plain['lr']), param_idx2name=dict(plain['names']), **settings)
    optimizer.lr_scheduler = _schedule_from_plain(plain['schedule'])
    optimizer.num_update = int(plain['num_update'])
    optimizer.lr_mult, optimizer.wd_mult = _plain_dict(plain['lr_mult']), _plain_dict(plain['wd_mult'])
    return optimizer


def _schedule_to_plain(schedule):
    if schedule is None:
        return None
    kind = type(schedule).__name__
    if type(schedule) is not getattr(mx.lr_scheduler, kind, None) or set(vars(schedule)) != set(
        SCHEDULES.get(kind, ())
    ):
        raise TrainingError(f'parameter servers know the schedules {", ".join(SCHEDULES)} of MXNet, not {kind}')
    return {'kind': kind, 'attributes': {name: _plain(value) for name, value in vars(schedule).items()}}


def _schedule_from_plain(plain):
    """A schedule with the attributes of the one that was sent, so that it goes on from where that was."""
    if plain is None:
        return None
    if plain.get('kind') not in SCHEDULES or set(plain['attributes']) != set(SCHEDULES[plain['kind']]):
        raise TrainingError('this is not a known schedule; every process of a run must have the same version of it')
    kind = getattr(mx.lr_scheduler, plain['kind'])
    schedule = kind.__new__(kind)
    vars(schedule).update((name, _plain(value)) for name, value in plain['attributes'].items())
    return schedule


def _plain_dict(numbers):
    return {name: _plain(value) for name, value in numbers.items()}


def _plain(value):
    """``value``, if it is text, a number, None or a list of these, with NumPy's numbers as Python's."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TrainingError(
        f'the setting {value!r} of an optimizer is neither text nor a number, so it cannot be sent to parameter servers'
    )
