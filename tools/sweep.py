"""Train a list of recipes, or one over a grid of γ; strip, prove and evaluate each; and set error against MACs.

    python tools/sweep.py --recipe train/recipes/cifar10/resnet20-sss.args --gamma 0.01,0.02,0.05 --jobs 2
    python tools/sweep.py --recipe train/recipes/cifar10/resnet20-sss.args --seed 0,1,2 -- --num-epochs 30

The baseline that a recipe names is trained too, by the same flags. Each run has a folder below --out. The same command
line continues a sweep that was stopped: finished runs are left alone, others resume at their last checkpoint.
"""

import argparse
import concurrent.futures
import itertools
import json
import logging
import os
import signal
from typing import Dict, List, Optional, Sequence, Set

import tqdm

from runtime import usable_cores
from runtime.argument_types import not_negative, not_negative_numbers, processes, seeds, shares
from runtime.cli import Parser, run
from runtime.errors import UserError
from runtime.files import write_text
from tools.sweeps.one_run import (
    RECIPES,
    Plan,
    Running,
    StepError,
    baseline_of,
    result_path,
    run_command,
    run_plan,
    script_of,
    stop,
    write_plan,
)
from tools.tables.plotting import save
from tools.tables.render import failures_markdown, runs_markdown
from tools.tables.results import read_results
from tools.tables.run_figures import frontier
from train.argument_kinds import SELECTION, flags
from train.log import open_log

OUT = os.path.join('runs', 'sweep')
# Options that take several values, each of which makes runs of its own, and what they are called in the name of a run's
# folder.
GRID = {'gamma': 'gamma', 'target_macs': 'macs', 'seed': 'seed'}


def parser() -> Parser:
    """The parser of this script."""
    made = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument('flags', nargs='*', help='after --: flags of the trainer, for every run')
    runs = made.add_argument_group('which runs')
    runs.add_argument('--recipe', nargs='+', required=True, help='files of flags, such as those of train/recipes/')
    runs.add_argument(
        '--gamma',
        type=not_negative_numbers,
        default=(),
        metavar='G1,G2,...',
        help='train each recipe with each of these in place of its own',
    )
    runs.add_argument(
        '--target-macs',
        type=shares,
        default=(),
        metavar='S1,S2,...',
        help='train each recipe with each of these budgets',
    )
    runs.add_argument(
        '--seed', type=seeds, default=(), metavar='N1,N2,...', help='train everything with each of these seeds'
    )
    runs.add_argument('--no-baseline', action='store_true', help='do not train the baselines of the recipes')
    work = made.add_argument_group('how they are run')
    work.add_argument('--out', default=OUT, help=f'a folder for each run is made below this one (default: {OUT})')
    work.add_argument(
        '--jobs',
        type=processes,
        default=1,
        help='runs at a time; each has its share of the cores (small networks gain little from two threads)',
    )
    work.add_argument(
        '--strip-threshold',
        type=not_negative,
        help='strip with this --threshold, which rules that leave no λ exactly 0 need',
    )
    work.add_argument(
        '--onnx', action='store_true', help='also export each stripped network to ONNX, and score it in ONNX Runtime'
    )
    return made


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Carry out the runs that the command line ``argv`` asks for; returns the exit code."""
    args = parser().parse_args(argv)
    plans = make_plans(args)
    for plan in plans:
        script_of(plan.recipe)
        write_plan(plan)
    open_log()
    try:
        failures = run_plans(plans, args.jobs)
    except KeyboardInterrupt:
        logging.info('Stopped; the same command continues from here')
        return 130
    summarise(args.out, failures)
    return 1 if failures else 0


def make_plans(args: argparse.Namespace) -> List[Plan]:
    """A Plan for every recipe, γ, target and seed, after those of its baseline. Raises UserError where two would have
    the same name.
    """
    plans: List[Plan] = []
    baselines: Set[str] = set()
    for recipe in args.recipe:
        baseline = None if args.no_baseline else baseline_of(recipe)
        # Recipes of one network share their baseline.
        if baseline and baseline not in baselines.union(args.recipe):
            baselines.add(baseline)
            plans += _grid(args, baseline, ('seed',), without_selection(args.flags))
        plans += _grid(args, recipe, GRID, args.flags)
    folders = [plan.folder for plan in plans]
    twice = next((folder for folder in folders if folders.count(folder) > 1), None)
    if twice:
        raise UserError(f'{twice} would be the folder of two runs: give each recipe, γ, target and seed once')
    return plans


def _grid(args, recipe, names, flags_of_all):
    """The Plans of one recipe, over the values of the options ``names``."""
    strip_flags = ('--threshold', f'{args.strip_threshold:g}') if args.strip_threshold else ()
    for values in itertools.product(*(getattr(args, name) or (None,) for name in names)):
        chosen = [(name, value) for name, value in zip(names, values) if value is not None]
        ending = ''.join(f'-{GRID[name]}{value:g}' for name, value in chosen)
        overrides = [word for name, value in chosen for word in (f'--{name.replace("_", "-")}', f'{value:g}')]
        folder = os.path.join(args.out, _name_of(recipe) + ending)
        yield Plan(folder, recipe, (*flags_of_all, *overrides), strip_flags, args.onnx)


def without_selection(words: Sequence[str]) -> List[str]:
    """Flags of the trainer without those that select a structure, which a baseline does not have."""
    kept, is_kept, selecting = [], True, set(flags(SELECTION - {'seed'}))
    for word in words:
        if word.startswith('--'):
            is_kept = word.partition('=')[0] not in selecting
        if is_kept:
            kept.append(word)
    return kept


def run_plans(plans: Sequence[Plan], jobs: int) -> Dict[str, str]:
    """Carry out every plan that has no result yet, ``jobs`` at a time; returns those that failed: a dict from the
    folder to the reason.
    """
    waiting = [plan for plan in plans if not os.path.exists(result_path(plan))]
    logging.info(
        '%d runs: %d finished before, %d to do, %d at a time', len(plans), len(plans) - len(waiting), len(waiting), jobs
    )
    running: Running = set()
    failures: Dict[str, str] = {}
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    pool = concurrent.futures.ThreadPoolExecutor(jobs)
    try:
        threads = max(1, usable_cores() // jobs) if jobs > 1 else None
        pending = {pool.submit(_run_plan, plan, threads, running): plan for plan in waiting}
        for future in tqdm.tqdm(concurrent.futures.as_completed(pending), total=len(pending), unit='run', disable=None):
            reason = future.result()
            if reason:
                failures[pending[future].folder] = reason
    except KeyboardInterrupt:
        for future in pending:
            future.cancel()
        stop(running)
        raise
    finally:
        pool.shutdown()
        signal.signal(signal.SIGTERM, before)
    return failures


def summarise(out: str, failures: Dict[str, str]) -> None:
    """Write the table and the figure of everything below ``out``, and print the table."""
    results = read_results(out)
    text = f'## Runs\n\n{runs_markdown(results, out)}'
    if failures:
        text += f'\n\n## Failed\n\n{failures_markdown(failures, out)}'
    write_text(os.path.join(out, 'sweep.md'), text + '\n')
    write_text(
        os.path.join(out, 'sweep.json'),
        json.dumps({'results': results, 'failures': failures}, indent=1, sort_keys=True) + '\n',
    )
    if results:
        save(frontier(results), os.path.join(out, 'sweep'))
    print(text)


def _run_plan(plan, threads, running):
    """Why a run failed, or None."""
    logging.info('%s: starting', plan.name)
    try:
        run_plan(plan, lambda command, log: run_command(command, log, threads, running))
    except StepError as error:
        logging.error('%s: %s', plan.name, error)
        return str(error)
    logging.info('%s: finished', plan.name)
    return None


def _name_of(recipe):
    """'cifar10/resnet20-sss' of train/recipes/cifar10/resnet20-sss.args; the bare name of a recipe from elsewhere."""
    path = os.path.relpath(os.path.abspath(recipe), RECIPES)
    return os.path.splitext(os.path.basename(recipe) if path.startswith(os.pardir) else path)[0]


if __name__ == '__main__':
    run(main)
