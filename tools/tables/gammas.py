"""What each γ removed: after how many epochs γ alone takes every λ to 0, what was alive after the first epoch and at
the end, and what that cost.
"""

import argparse
from typing import Dict, List, Optional

from train.argument_kinds import ADDED_LATER
from train.build import cumulative_shrinkage

from .cells import COLUMNS, cost_of
from .render import budget_of, lost_against_baseline, markdown, runs_order, selected
from .results import Point, Result, epochs_of, is_baseline, network_of

NAMES = [
    'network',
    'selects',
    'λ rule',
    'epochs',
    'of them at the first rate',
    'γ',
    'γ alone needs (epochs)',
    'alive after one epoch (%)',
    'alive (%)',
    'MACs kept (%)',
    'lost (points)',
]


def gammas_markdown(results: List[Result]) -> str:
    """A row for every finished run by a fixed γ that has the metrics of its epochs. Runs to a budget are left out,
    since γ does not decide what they remove.
    """
    return markdown(NAMES, _rows(results), aligned=3)


def gammas_json(results: List[Result]) -> List[Dict[str, str]]:
    """The rows of ``gammas_markdown`` as dicts."""
    return [dict(zip(NAMES, row)) for row in _rows(results)]


def epochs_of_gamma_alone(result: Result) -> Optional[float]:
    """The epochs, with a fraction, after which γ alone takes a λ from 1 to 0, that is where no gradient holds it up;
    None where the run was too short for that.

    Section 3.3 of the paper: APG takes ηγ / (1 - μ) a step in the long run.
    """
    from optimizers.rules import RULES  # loads MXNet, so not before the command line is read

    arguments, first = argparse.Namespace(**{**ADDED_LATER, **result['arguments']}), epochs_of(result)[0]
    optimizer = RULES[arguments.lambda_rule](gamma=arguments.gamma, momentum=arguments.mom, learning_rate=arguments.lr)
    batches = round(first['samples_per_second'] * first['seconds'] / arguments.batch_size)
    before = 0.0
    for epoch, pull in enumerate(cumulative_shrinkage(arguments, optimizer, batches)):
        if pull >= 1:
            return epoch + (1 - before) / (pull - before)
        before = pull
    return None


def _rows(results):
    chosen = [
        result
        for result in sorted(results, key=runs_order)
        if not is_baseline(result) and not budget_of(result['arguments']) and epochs_of(result)
    ]
    return [[network_of(result), *_selection(result), *_course(result), *_end(result, results)] for result in chosen]


def _selection(result):
    arguments = result['arguments']
    at_first_rate = min([arguments['num_epochs'], *arguments['lr_step_epochs']])
    return [
        selected(arguments),
        arguments['lambda_rule'],
        str(arguments['num_epochs']),
        str(at_first_rate),
        f'{arguments["gamma"]:g}',
    ]


def _course(result):
    needed = epochs_of_gamma_alone(result)
    return [f'{needed:.2f}' if needed else '–', _alive(epochs_of(result)[0]['lambda'])]


def _end(result, results):
    return [
        _alive(result['alive']),
        f'{COLUMNS["macs_kept"].of_cost(cost_of(result)):.1f}',
        lost_against_baseline(Point([result]), results),
    ]


def _alive(kinds):
    return f'{100 * sum(kind["alive"] for kind in kinds.values()) / sum(kind["total"] for kind in kinds.values()):.0f}'
