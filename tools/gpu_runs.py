"""The paper's CIFAR-10 runs on one card, by one command: ResNet-20 by the whole schedule, a baseline and four γ side by
side, then ResNet-164, a baseline and one γ, by a schedule that fits into the remaining minutes.

    python tools/gpu_runs.py                 # on a card: 25 minutes on a large one
    python tools/gpu_runs.py --reduced       # on the CPU: the same steps on small digits, to see that they work

Everything is written below results/, in a folder named after engine and card: logs, metrics, plots, stripped
checkpoints, their proofs and test errors, a table, and the throughput of each run. Stopped by hand or by the clock, it
goes on by the same command line. Five ResNet-20 of 240 epochs are 60 million
images: 20 minutes of training take 50,000 images/s in sum.
"""

import argparse
import glob
import json
import logging
import math
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

from formats.json_shape import misfit
from formats.metrics_file import read_metrics
from runtime.argument_types import above_zero, not_negative_numbers
from runtime.cli import Parser, run
from runtime.errors import DataError, MissingDependencyError, TrainingError
from runtime.files import write_text
from runtime.reading import MB, read_json
from tools.sweep import run_plans, summarise
from tools.sweeps.one_run import RECIPES, ROOT, Plan, write_plan
from tools.tables.render import markdown
from train.data.datasets import load_dataset
from train.log import open_log

RESERVE = 3.0  # minutes that stripping, proving and evaluating take after training
EPOCHS, IMAGES = 240, 50000  # of the paper's schedule, and of an epoch
FEWEST = 6  # epochs that a schedule of two drops makes sense for
# These flags come after those of the recipe and replace them.
REDUCED = ('--dataset', 'digits', '--image-shape', '3,8,8', '--num-epochs', '2', '--lr-step-epochs', '1')


def parser() -> Parser:
    """The parser of this script."""
    made = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument('--gpu', default='0', help='number of the card (default: 0)')
    made.add_argument(
        '--minutes',
        type=above_zero,
        default=25.0,
        help='stop after this time; the same command continues (default: 25)',
    )
    made.add_argument(
        '--gamma',
        type=not_negative_numbers,
        default=(0.0003, 0.001, 0.003, 0.01),
        metavar='G1,G2,...',
        help='γ of ResNet-20 (default: 0.0003,0.001,0.003,0.01)',
    )
    made.add_argument(
        '--deep-gamma',
        type=not_negative_numbers,
        default=(0.001,),
        metavar='G1,...',
        help='γ of ResNet-164 (default: 0.001)',
    )
    made.add_argument('--out', help='where to write (default: results/torch-NAME-OF-THE-CARD)')
    made.add_argument('--data-dir', metavar='FOLDER', help='the folder of CIFAR-10 (default: it is fetched)')
    made.add_argument(
        '--reduced', action='store_true', help='the same steps on small digits on the CPU, in about a minute'
    )
    made.add_argument(
        'flags',
        nargs='*',
        help='after --: flags of the trainer for every run, such as --allow-tf32 or --dtype bfloat16',
    )
    return made


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Carry out the runs that the command line ``argv`` asks for; returns the exit code."""
    args = parser().parse_args(argv)
    open_log()
    deadline = time.monotonic() + 60 * args.minutes
    card = versions_of_card(None if args.reduced else args.gpu)
    out = args.out or os.path.join(
        'results', f'torch-{_slug(card["card"] or "cpu")}{"-reduced" if args.reduced else ""}'
    )
    fetch(args)
    failures: Dict[str, str] = {}
    code = 0
    try:
        with alarm(deadline):
            shallow = plans(args, out, 20, args.gamma)
            failures.update(run_plans(shallow, jobs=len(shallow)))
            deep = deep_plans(args, out, deadline)
            failures.update(run_plans(deep, jobs=max(len(deep), 1)))
    except KeyboardInterrupt:
        logging.info('Stopped; the same command continues from here')
        code = 130
    summarise(out, failures)
    write_throughput(out, card)
    return 1 if failures else code


def versions_of_card(gpu: Optional[str]) -> Dict[str, Any]:
    """The versions of PyTorch and of the libraries of the card number ``gpu`` (None: the CPU). Raises
    MissingDependencyError without PyTorch, UserError where there is no such card.
    """
    try:
        from train.engines.torch import TorchEngine
    except ImportError as error:
        raise MissingDependencyError(
            f'PyTorch is needed here ({error}); install it with make venv EXTRAS=torch'
        ) from None
    return TorchEngine.versions(gpu)


def fetch(args: argparse.Namespace) -> None:
    """Fetch the data once, before several processes would do so at the same time."""
    if not args.reduced:
        load_dataset('cifar10', args.data_dir)


def plans(args: argparse.Namespace, out: str, depth: int, gammas: Sequence[float], *schedule: str) -> List[Plan]:
    """A Plan for the baseline and for each γ of ResNet-``depth``, each written into its folder below ``out``."""
    data: Tuple[str, ...] = ('--data-dir', args.data_dir) if args.data_dir else ()
    where: Tuple[str, ...] = REDUCED if args.reduced else ('--gpus', args.gpu, *data)
    flags = ('--engine', 'torch', *where, *args.flags, *schedule)
    recipe = os.path.relpath(os.path.join(RECIPES, 'cifar10', f'resnet{depth}-{{}}.args')).format
    made = [Plan(os.path.join(out, f'resnet{depth}-baseline'), recipe('baseline'), flags)]
    made += [
        Plan(os.path.join(out, f'resnet{depth}-sss-gamma{gamma:g}'), recipe('sss'), (*flags, '--gamma', f'{gamma:g}'))
        for gamma in gammas
    ]
    for plan in made:
        write_plan(plan)
    return made


def deep_plans(args: argparse.Namespace, out: str, deadline: float) -> List[Plan]:
    """The Plans of ResNet-164, by the paper's schedule or, where time is too short, by one of the same proportions;
    none where it is too short for any. ``deadline`` is in seconds of ``time.monotonic``. Raises DataError for a damaged
    schedule file.
    """
    if args.reduced:
        return plans(args, out, 164, args.deep_gamma, '--num-epochs', '1')
    path = os.path.join(out, 'resnet164-schedule.json')
    if not os.path.exists(path):
        schedule = schedule_that_fits(args, deadline)
        if schedule is None:
            return []
        write_text(path, json.dumps(schedule) + '\n')
    flags = read_json(path, MB)
    if misfit(flags, [str]):
        raise DataError(f'{path}: not a list of flags; remove it')
    return plans(args, out, 164, args.deep_gamma, *flags)


def schedule_that_fits(args: argparse.Namespace, deadline: float) -> Optional[List[str]]:
    """Flags of a schedule for ResNet-164 that ends before ``deadline``; None where fewer than FEWEST epochs fit."""
    runs, speed = 1 + len(args.deep_gamma), measured_speed(args, 164)
    seconds = deadline - time.monotonic() - 60 * RESERVE
    epochs = min(EPOCHS, max(0, math.floor(seconds * speed / (runs * IMAGES))))
    logging.info('ResNet-164: %.0f images/s, time for %d of %d epochs of each of %d runs', speed, epochs, EPOCHS, runs)
    if epochs < FEWEST:
        logging.info('No time is left for ResNet-164; the same command line does it, with its own --minutes')
        return None
    return ['--num-epochs', str(epochs), '--lr-step-epochs', f'{epochs // 2},{epochs * 2 // 3}']


def measured_speed(args: argparse.Namespace, depth: int) -> float:
    """Images per second that one run of ResNet-``depth`` trains on, on noise, in its second epoch. Raises TrainingError
    where it cannot train.
    """
    with tempfile.TemporaryDirectory() as folder:
        prefix = os.path.join(folder, 'speed')
        command = [
            sys.executable,
            os.path.join(ROOT, 'train', 'train_cifar.py'),
            '--num-layers',
            str(depth),
            '--engine',
            'torch',
            '--gpus',
            args.gpu,
            *args.flags,
            '--benchmark',
            '1',
            '--num-examples',
            '12800',
            '--num-epochs',
            '2',
            '--model-prefix',
            prefix,
        ]
        if subprocess.run(command, check=False).returncode:
            raise TrainingError(f'ResNet-{depth} does not train on this card; its output is above')
        return _epochs(prefix)[-1]['samples_per_second']


@contextmanager
def alarm(deadline: float) -> Iterator[None]:
    """Send Ctrl-C to this process at ``deadline``, in seconds of ``time.monotonic``, so that the current runs save and
    end.

    A shell starts background commands with Ctrl-C ignored; here it is not ignored.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    seconds = min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX)
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, before)


def write_throughput(out: str, card: Dict[str, Any]) -> None:
    """Write and print the epochs, the error and the speed of every run below ``out``: throughput.md and
    throughput.json.
    """
    runs = []
    for path in sorted(glob.glob(os.path.join(out, '*', 'run-metrics.jsonl'))):
        epochs = _epochs(path[: -len('-metrics.jsonl')])
        if epochs:
            runs.append(
                {
                    'run': os.path.basename(os.path.dirname(path)),
                    'epochs': len(epochs),
                    'error': 100 * (1 - epochs[-1]['validation']['accuracy']),
                    'images_per_second': statistics.median(epoch['samples_per_second'] for epoch in epochs),
                }
            )
    rows = [[run['run'], str(run['epochs']), f'{run["error"]:.2f}', f'{run["images_per_second"]:.0f}'] for run in runs]
    table = markdown(['run', 'epochs', 'test error (%)', 'images/s'], rows)
    where = ', '.join(f'{name} {version}' for name, version in card.items() if version)
    note = f'PyTorch engine, {where}. Runs of one depth were trained side by side and shared the device.'
    text = f'## Throughput\n\n{note}\n\n{table}\n'
    write_text(os.path.join(out, 'throughput.md'), text)
    write_text(
        os.path.join(out, 'throughput.json'), json.dumps({'engine': 'torch', **card, 'runs': runs}, indent=1) + '\n'
    )
    print(text)


def _epochs(prefix):
    return read_metrics(f'{prefix}-metrics.jsonl', needs=('samples_per_second',))


def _slug(name):
    return re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')


if __name__ == '__main__':
    run(main)
