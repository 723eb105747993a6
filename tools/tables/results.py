"""What was really run: every ``result.json`` below ``results/``, written by ``tools/sweep.py``."""

import glob
import os
import statistics
from typing import List, NamedTuple, Optional

from formats.json_shape import ANY, misfit
from formats.metrics_file import read_metrics
from formats.recipe_file import read_recipe
from runtime.errors import DataError
from runtime.reading import MB, read_json
from train.argument_kinds import COMPUTE, OUTPUT, SELECTION, differing, flags

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FOLDER = 'results'
COST = {'params_without_bn': float, 'macs': float, 'bias_adds': float}
RESULT = {
    'recipe': str,
    'overrides': [str],
    'date': str,
    'arguments': {
        'network': str,
        'num_layers': int,
        'num_epochs': int,
        'optimizer': str,
        'lambda_rule': str,
        'gamma': float,
    },
    'full': COST,
    'left': COST,
    'blocks': [int],
    'error': {'top1': float, ANY: float},
    'alive': {ANY: {'alive': int, 'total': int}},
}
# Flags that change where a run is computed and what is kept of it, not what it is.
FREE = flags(COMPUTE | OUTPUT)


def read_results(folder=FOLDER):
    """Every finished run below ``folder``, as the dicts that ``tools/sweep.py`` wrote and 'folder', where each lies; in
    the order of their folders.

    Raises DataError for a file that is no such result.
    """
    return [read_result(path) for path in sorted(glob.glob(os.path.join(folder, '**', 'result.json'), recursive=True))]


def read_result(path):
    """The finished run of a ``result.json``, and 'folder', where it lies. Raises DataError where it is none."""
    result = read_json(path, MB)
    reason = misfit(result, RESULT)
    if reason:
        raise DataError(f'{path}: not the result of a run ({reason}); remove it, and let tools/sweep.py make it again')
    return {**result, 'folder': os.path.dirname(path)}


def result_of(row, results):
    """The newest run of a row's recipe, with nothing changed that matters; None where there is none."""
    runs = [result for result in results if result['recipe'] == row.recipe and is_by_recipe(result)]
    return max(runs, key=lambda result: result['date'], default=None)


def is_by_recipe(result, free=FREE):
    """Whether a run's overrides are but ``free`` flags (where to compute, what to keep), or repeat what the recipe says
    (of a grid, the γ that it has).
    """
    words = read_recipe(os.path.join(ROOT, result['recipe']))
    said = dict(zip(words, words[1:]))
    overrides = result['overrides']
    return all(
        flag in free or said.get(flag, '') == value
        for flag, value in zip(overrides, [*overrides[1:], None])
        if flag.startswith('--')
    )


class Point(NamedTuple):
    """Runs that differ in nothing but their seed: one point of a figure, one row of a table."""

    runs: List[dict]

    @property
    def arguments(self) -> dict:
        return self.runs[0]['arguments']

    def mean(self, value) -> float:
        """The mean over the seeds of ``value(run)``."""
        return statistics.fmean(value(run) for run in self.runs)

    def error(self, name: str = 'top1') -> Optional[float]:
        """The mean error (%) of a kind ('top1', 'unstripped', 'onnx', 'start'); None where a run lacks it."""
        return self.mean(lambda run: run['error'][name]) if all(name in run['error'] for run in self.runs) else None

    def error_text(self, name: str = 'top1') -> str:
        """'8.13', or with several seeds '8.13 ± 0.11 (3)': mean, sample deviation, number of seeds; '–' for none."""
        if self.error(name) is None:
            return '–'
        if len(self.runs) == 1:
            return f'{self.error(name):.2f}'
        deviation = statistics.stdev(run['error'][name] for run in self.runs)
        return f'{self.error(name):.2f} ± {deviation:.2f} ({len(self.runs)})'


def points_of(results: List[dict]) -> List[Point]:
    """The results as Points, in the order of their first runs."""
    found: List[Point] = []
    for result in results:
        same = next((point for point in found if _is_repeat(point.runs[0], result)), None)
        if same:
            same.runs.append(result)
        else:
            found.append(Point([result]))
    return found


def _is_repeat(result, other):
    may_differ = COMPUTE | OUTPUT | {'seed'}
    return result['recipe'] == other['recipe'] and not differing(result['arguments'], other['arguments'], may_differ)


def baseline_of(point: Point, results: List[dict]) -> Optional[Point]:
    """The runs without selection of the same network by the same schedule, or None; None for a baseline itself."""
    if is_baseline(point.runs[0]):
        return None
    same = [other for other in results if is_baseline(other) and same_schedule(other, point.runs[0])]
    return points_of(same)[0] if same else None


def is_baseline(result):
    return result['arguments']['optimizer'] == 'nag'


def structure_of(result: dict) -> Optional[str]:
    """The name of the run whose stripped structure a run trains from new weights; None for any other network."""
    folder, name = os.path.split(result['arguments']['network'])
    return os.path.basename(folder) if name == 'stripped-symbol.json' else None


def network_of(result: dict) -> str:
    """Network, depth and data set for people: 'resnet-20 on cifar10', or 'resnet-v1-20 on cifar10, fine-tuned'."""
    arguments = result['arguments']
    network = f'{arguments["network"]}-{arguments["num_layers"]}'
    if arguments['network'].endswith('.json'):
        name = structure_of(result)
        network = f'structure of {name}' if name else os.path.basename(arguments['network'])
    return f'{network} on {arguments.get("dataset", "imagenet")}{", fine-tuned" if arguments.get("finetune") else ""}'


def same_schedule(result, other):
    """Whether two runs trained the same network by the same schedule on the same data, whatever they selected."""
    return not differing(result['arguments'], other['arguments'], SELECTION | COMPUTE | OUTPUT)


def epochs_of(result):
    """What a run measured in each epoch, [] where that is not there: only the result itself must have been kept."""
    path = os.path.join(result['folder'], 'run-metrics.jsonl')
    return read_metrics(path) if os.path.exists(path) else []
