"""How closely runs with a budget end at it: every network, what it selects and its target, over seeds."""

import functools
from typing import List

import numpy as np

from graphs.alive import AliveCounter
from graphs.complexity import complexity
from graphs.lambdas import lambda_layout
from symbols import get_symbol
from train.data.datasets import DATASETS

from .render import budget_of, markdown, runs_order, selected
from .results import Point, Result, network_of, points_of

NAMES = [
    'network',
    'selects',
    'epochs',
    'target',
    'ends at (%)',
    'one structure (%)',
    'at or below, within one',
    'accuracy (%)',
]


def budgets_markdown(results: List[Result]) -> str:
    """A row for every network, kind of structure and budget. 'one structure' is what the most expensive one costs, as a
    share of the network; 'at or below, within one' counts the runs that end there.
    """
    points = points_of(sorted((result for result in results if budget_of(result['arguments'])), key=runs_order))
    if not points:
        return 'None yet.'
    rows = [_row(point) for point in points]
    kept = sum(is_within(run) for point in points for run in point.runs)
    total = sum(len(point.runs) for point in points)
    said = f'{kept} of {total} runs end at or below their target and within one structure of it.'
    return f'{markdown(NAMES, rows, aligned=2)}\n\n{said}'


def is_within(result: Result) -> bool:
    """Whether a run ended at or below its target, and less than the most expensive structure below it."""
    below = target_of(result) - share_of(result)
    return 0 <= below < largest_structure(result)


def target_of(result: Result) -> float:
    """The share that a run was to end at."""
    return result['arguments'].get('target_macs') or result['arguments']['target_params']


def share_of(result: Result) -> float:
    """The share of MACs (or parameters) that a run ended with."""
    cost = _cost(result)
    return result['left'][cost] / result['full'][cost]


def largest_structure(result: Result) -> float:
    """The share of the whole network that its most expensive structure costs."""
    arguments = result['arguments']
    return _largest_structure(
        arguments['network'],
        arguments['num_layers'],
        arguments['dataset'],
        tuple(arguments.get('image_shape') or DATASETS[arguments['dataset']].image_shape),
        arguments['scale'],
        _cost(result),
    )


@functools.lru_cache(maxsize=None)
def _largest_structure(network, depth, dataset, image_shape, scale, cost):
    symbol = get_symbol(network, depth, DATASETS[dataset].num_classes, image_shape, scale)
    one_image = {'data': (1, *image_shape)}
    shapes = dict(zip(symbol.list_arguments(), symbol.infer_shape(**one_image)[0]))
    alive, full = AliveCounter(symbol, one_image), getattr(complexity(symbol, one_image), cost)
    ones = {vector.name: np.ones(shapes[vector.name]) for vector in lambda_layout(symbol)}
    largest = 0.0
    for vector in lambda_layout(symbol):
        # The channels of a layer cost alike, as do the groups of a block.
        size = int(np.prod(shapes[vector.name]))
        count = 1 if vector.kind == 'neuron' else len(vector.stages)
        for place in range(0, size, size // count):
            without = ones[vector.name].copy()
            without.flat[place] = 0
            left = getattr(alive({**ones, vector.name: without}), cost)
            largest = max(largest, 1 - left / full)
    return largest


def _cost(result):
    return 'params' if result['arguments'].get('target_params') else 'macs'


def _row(point: Point) -> List[str]:
    shares = sorted(100 * share_of(run) for run in point.runs)
    ends = f'{shares[0]:.1f}' if len(shares) == 1 else f'{shares[0]:.1f} to {shares[-1]:.1f}'
    accuracies = [100 - run['error']['top1'] for run in point.runs]
    deviation = f' ± {np.std(accuracies, ddof=1):.1f}' if len(accuracies) > 1 else ''
    return [
        network_of(point.runs[0]),
        selected(point.arguments),
        str(point.arguments['num_epochs']),
        budget_of(point.arguments),
        ends,
        f'{100 * largest_structure(point.runs[0]):.1f}',
        f'{sum(map(is_within, point.runs))} of {len(point.runs)}',
        f'{np.mean(accuracies):.1f}{deviation}',
    ]
