"""The results of our runs: every ``result.json`` below ``results/``, written by ``tools/sweep.py``."""

import glob
import os
import statistics
from typing import Any, Callable, Container, Dict, List, NamedTuple, Optional, Sequence

from formats.json_shape import ANY, misfit
from formats.metrics_file import read_metrics
from formats.recipe_file import read_recipe
from runtime.errors import DataError
from runtime.reading import MB, read_json
from train.argument_kinds import COMPUTE, OUTPUT, SELECTION, differing, flags

from .published import Row

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
Result = Dict[str, Any]  # as RESULT says, and 'folder', where the file is


def read_results(folder: str = FOLDER) -> List[Result]:
    """Every finished run below ``folder``, in the order of their folders.

    Raises DataError for a file that is no result of ``tools/sweep.py``.
    """
    return [read_result(path) for path in sorted(glob.glob(os.path.join(folder, '**', 'result.json'), recursive=True))]


def read_result(path: str) -> Result:
    """The finished run of a ``result.json``. Raises DataError where it is none."""
    result = read_json(path, MB)
    reason = misfit(result, RESULT)
    if reason:
        raise DataError(f'{path}: not the result of a run ({reason}); remove it, and let tools/sweep.py make it again')
    return {**result, 'folder': os.path.dirname(path)}


def result_of(row: Row, results: Sequence[Result]) -> Optional[Result]:
    """The newest run of a row's recipe that changed no flag that matters; None where there is none."""
    runs = [result for result in results if result['recipe'] == row.recipe and is_by_recipe(result)]
    return max(runs, key=lambda result: result['date']) if runs else None


def is_by_recipe(result: Result, free: Container[str] = FREE) -> bool:
    """Whether a run's overrides are only ``free`` flags (where to compute, what to keep), or repeat a value of the
    recipe.
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
    """Runs that differ only in their seed: one point of a figure, one row of a table."""

    runs: List[Result]

    @property
    def arguments(self) -> Dict[str, Any]:
        """The arguments of the first run."""
        return self.runs[0]['arguments']

    def mean(self, value: Callable[[Result], float]) -> float:
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


def points_of(results: List[Result]) -> List[Point]:
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


def baseline_of(point: Point, results: List[Result]) -> Optional[Point]:
    """The runs without selection of the same network by the same schedule, or None; None for a baseline itself."""
    if is_baseline(point.runs[0]):
        return None
    same = [other for other in results if is_baseline(other) and same_schedule(other, point.runs[0])]
    return points_of(same)[0] if same else None


def is_baseline(result: Result) -> bool:
    """Whether a run selected nothing: its optimizer is MXNet's NAG."""
    return result['arguments']['optimizer'] == 'nag'


def structure_of(result: Result) -> Optional[str]:
    """The name of the run whose stripped structure a run trains from new weights; None for any other network."""
    folder, name = os.path.split(result['arguments']['network'])
    return os.path.basename(folder) if name == 'stripped-symbol.json' else None


def network_of(result: Result) -> str:
    """``trained_network`` with the start: 'resnet-20 on cifar10', or 'resnet-v1-20 on cifar10, fine-tuned'."""
    return trained_network(result) + (', fine-tuned' if result['arguments'].get('finetune') else '')


def trained_network(result: Result) -> str:
    """Network, depth and data set for people: 'resnet-20 on cifar10'."""
    arguments = result['arguments']
    network = f'{arguments["network"]}-{arguments["num_layers"]}'
    if arguments['network'].endswith('.json'):
        name = structure_of(result)
        network = f'structure of {name}' if name else os.path.basename(arguments['network'])
    return f'{network} on {arguments.get("dataset", "imagenet")}'


def same_schedule(result: Result, other: Result) -> bool:
    """Whether two runs trained the same network by the same schedule on the same data, whatever they selected."""
    return not differing(result['arguments'], other['arguments'], SELECTION | COMPUTE | OUTPUT)


def epochs_of(result: Result) -> List[Dict[str, Any]]:
    """What a run measured in each epoch; [] where its metrics file was not kept."""
    path = os.path.join(result['folder'], 'run-metrics.jsonl')
    return read_metrics(path) if os.path.exists(path) else []
