"""What was really run: every ``result.json`` below ``results/``, written by ``tools/sweep.py``."""

import glob
import json
import os

from runtime.errors import DataError
from train.argument_kinds import COMPUTE, OUTPUT, SELECTION, differing, flags

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FOLDER = 'results'
# Flags that change where a run is computed and what is kept of it, not what it is.
FREE = flags(COMPUTE | OUTPUT)


def read_results(folder=FOLDER):
    """Every finished run below ``folder``, as the dicts that ``tools/sweep.py`` wrote and 'folder', where each lies; in
    the order of their folders.

    Raises DataError for a file that is no such result.
    """
    found = []
    for path in sorted(glob.glob(os.path.join(folder, '**', 'result.json'), recursive=True)):
        try:
            with open(path, encoding='utf-8') as source:
                result = json.load(source)
            result['folder'] = os.path.dirname(path)
            if not {'recipe', 'overrides', 'arguments', 'error', 'full', 'left'} <= set(result):
                raise ValueError('it lacks what a finished run has')
        except (ValueError, TypeError) as error:
            raise DataError(
                f'{path}: not the result of a run ({error}); remove it, and let tools/sweep.py make it again'
            ) from None
        found.append(result)
    return found


def result_of(row, results):
    """The newest run of a row's recipe, with nothing changed that matters; None where there is none."""
    runs = [result for result in results if result['recipe'] == row.recipe and is_by_recipe(result)]
    return max(runs, key=lambda result: result['date'], default=None)


def is_by_recipe(result, free=FREE):
    """Whether a run's overrides are but ``free`` flags (where to compute, what to keep), or repeat what the recipe says
    (of a grid, the γ that it has).
    """
    with open(os.path.join(ROOT, result['recipe']), encoding='utf-8') as lines:
        words = [word for line in lines for word in line.split('#')[0].split()]
    said = dict(zip(words, words[1:]))
    overrides = result['overrides']
    return all(
        flag in free or said.get(flag, '') == value
        for flag, value in zip(overrides, [*overrides[1:], None])
        if flag.startswith('--')
    )


def baseline_of(result, results):
    """The run without selection of the same network by the same schedule, or None."""
    same = [other for other in results if is_baseline(other) and same_schedule(other, result)]
    return same[0] if same and not is_baseline(result) else None


def is_baseline(result):
    return result['arguments']['optimizer'] == 'nag'


def network_of(result):
    """(network, depth, data set) for people: 'resnet-20 on cifar10', or 'resnet-v1-20 on cifar10, fine-tuned'."""
    arguments = result['arguments']
    network = (
        os.path.basename(arguments['network'])
        if arguments['network'].endswith('.json')
        else f'{arguments["network"]}-{arguments["num_layers"]}'
    )
    return f'{network} on {arguments.get("dataset", "imagenet")}{", fine-tuned" if arguments.get("finetune") else ""}'


def same_schedule(result, other):
    """Whether two runs trained the same network by the same schedule on the same data, whatever they selected."""
    return not differing(result['arguments'], other['arguments'], SELECTION | COMPUTE | OUTPUT)


def epochs_of(result):
    """What a run measured in each epoch, [] where that is not there: only the result itself must have been kept."""
    path = os.path.join(result['folder'], 'run-metrics.jsonl')
    if not os.path.exists(path):
        return []
    with open(path, encoding='utf-8') as lines:
        return [json.loads(line) for line in lines]
