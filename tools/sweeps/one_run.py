"""One run of a sweep, from the first epoch to ``result.json``: it is trained, stripped, proved, evaluated and drawn,
each step by its command line.
"""

from __future__ import annotations

import contextlib
import datetime
import glob
import json
import logging
import os
import re
import shlex
import subprocess
import sys
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Set, TextIO, Tuple

from formats.log_file import read_run_line
from formats.metrics_file import read_metrics
from formats.recipe_file import MAX_BYTES
from runtime import THREADS_GIVEN
from runtime.errors import UserError
from runtime.files import write_text
from runtime.reading import read_text
from tools.tables.structures import blocks_left

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RECIPES = os.path.join(ROOT, 'train', 'recipes')
# execute(command, log): runs a command line with its stderr in the file ``log``; returns (exit code, stdout).
Execute = Callable[[List[str], TextIO], Tuple[int, str]]
Running = Set['subprocess.Popen[str]']


class Plan(NamedTuple):
    """What defines a run: the folder that it writes to, its recipe, the ``overrides`` that follow the recipe on the
    command line, the flags of stripping; and whether the stripped network is scored in ONNX Runtime too.
    """

    folder: str
    recipe: str
    overrides: Tuple[str, ...]
    strip_flags: Tuple[str, ...] = ()
    onnx: bool = False

    @property
    def name(self) -> str:
        """The name of its folder."""
        return os.path.basename(self.folder)

    @property
    def source(self) -> str:
        """The path of the recipe from the root of the project, or as it was given where it is elsewhere."""
        path = os.path.relpath(os.path.abspath(self.recipe), ROOT)
        return self.recipe if path.startswith(os.pardir) else path

    def description(self) -> Dict[str, Any]:
        """What identifies the run, as plain values."""
        return {'recipe': self.source, 'overrides': list(self.overrides), 'strip': list(self.strip_flags)}


class StepError(UserError):
    """A step of a run that failed; the message names it and repeats its last line."""


def script_of(recipe: str) -> str:
    """The training script of a recipe, which its comment ``# python train/train_….py @…`` names. Raises UserError where
    there is no such comment.
    """
    found = re.search(r'^# python (train/train_\w+\.py) @', _text_of(recipe), re.MULTILINE)
    if not found:
        raise UserError(f"{recipe}: no comment '# python train/train_cifar.py @{recipe}' says which script it is for")
    return found.group(1)


def baseline_of(recipe: str) -> Optional[str]:
    """The recipe of the same network and schedule without λ, which the comment ``# Baseline: …`` names; None without
    one. Raises UserError where it is missing.
    """
    found = re.search(r'^# Baseline: (\S+)$', _text_of(recipe), re.MULTILINE)
    if not found:
        return None
    path = os.path.relpath(os.path.join(ROOT, found.group(1)))
    if not os.path.exists(path):
        raise UserError(f'{recipe}: its baseline {found.group(1)} does not exist; correct the comment')
    return path


def _text_of(recipe):
    return read_text(recipe, MAX_BYTES, missing='train/recipes/ holds those of the paper')


def write_plan(plan: Plan) -> None:
    """Write ``plan.json`` into the run's folder, so that no other run continues there. Raises UserError where the
    folder belongs to another run.
    """
    path, text = os.path.join(plan.folder, 'plan.json'), json.dumps(plan.description(), indent=1) + '\n'
    if not os.path.exists(path):
        write_text(path, text)
        return
    before = read_text(path, MAX_BYTES)
    if before != text:
        raise UserError(f'{plan.folder} is of another run ({" ".join(before.split())}): give another --out')


def result_path(plan: Plan) -> str:
    """The file that a finished run has."""
    return os.path.join(plan.folder, 'result.json')


def run_plan(plan: Plan, execute: Execute) -> None:
    """Carry out the steps of a run that are left, and write its result. Raises StepError."""
    steps = Steps(plan, execute)
    prefix, stripped = os.path.join(plan.folder, 'run'), os.path.join(plan.folder, 'stripped')
    # A run that was stopped before its first checkpoint starts from the beginning.
    resume = ['--resume'] if glob.glob(f'{prefix}-*.states') else []
    steps.run('train', script_of(plan.recipe), f'@{plan.recipe}', *plan.overrides, '--model-prefix', prefix, *resume)
    run_line = read_run_line(f'{prefix}.log')
    last = read_metrics(f'{prefix}-metrics.jsonl', needs=('validation_images',))[-1]
    data = _data_flags(run_line['arguments'])
    trained = f'{prefix}:{run_line["arguments"]["num_epochs"]}'
    stripping = json.loads(
        steps.run(
            'strip',
            'tools/strip_params.py',
            trained,
            '--out',
            stripped,
            '--force',
            '--json',
            *_renamed(data),
            *plan.strip_flags,
        )
    )
    scores = (
        json.loads(steps.run('evaluate', 'tools/evaluate.py', stripped, '--json', *data))
        if data
        else last['validation']
    )
    elsewhere = _score_in_onnx_runtime(steps, stripped, data) if plan.onnx and data else {}
    start = _score_at_start(steps, run_line['arguments'].get('finetune'), data)
    steps.run('plot', 'tools/plot.py', prefix, '--out', os.path.join(plan.folder, 'training.png'))
    write_text(
        result_path(plan),
        json.dumps(
            _result(plan, steps, run_line, last, stripping, {**scores, **elsewhere, **start}), indent=1, sort_keys=True
        )
        + '\n',
    )
    steps.remove_log()


def _score_in_onnx_runtime(steps, stripped, data):
    steps.run('convert', 'tools/convert.py', stripped, '--to', 'onnx', '--out', f'{stripped}.onnx', '--force')
    printed = steps.run(
        'compare',
        'tools/compare_checkpoints.py',
        stripped,
        f'{stripped}.onnx',
        '--outputs-only',
        '--json',
        *_renamed(data),
    )
    return {'onnx': json.loads(printed)['accuracy']['b']}


def _score_at_start(steps, checkpoint, data):
    """The accuracy of the weights that a run starts from, where they are a network for the same classes."""
    if not checkpoint or not data:
        return {}
    try:
        printed = steps.run('evaluate-start', 'tools/evaluate.py', checkpoint, '--json', *data)
    except StepError as error:
        logging.info('Could not measure the error of the weights that the run starts from: %s', error)
        return {}
    return {'start': json.loads(printed)['accuracy']}


class Steps:
    """Runs the steps of a plan one after the other by ``execute``; their stderr is added to ``steps.log``. ``commands``
    are their command lines, by their names.
    """

    def __init__(self, plan: Plan, execute: Execute) -> None:
        self._log, self._execute = os.path.join(plan.folder, 'steps.log'), execute
        self.commands: Dict[str, str] = {}

    def run(self, name: str, script: str, *flags: str) -> str:
        """The output of one step. Raises StepError where it fails."""
        self.commands[name] = shlex.join(['python', script, *(flag for flag in flags if flag != '--resume')])
        with open(self._log, 'a', encoding='utf-8') as log:
            log.write(f'{self.commands[name]}\n')
            log.flush()
            code, output = self._execute([sys.executable, os.path.join(ROOT, script), *flags], log)
        if code:
            raise StepError(f'{name} ended with exit code {code}: {self._last_line_of_log()}')
        return output

    def remove_log(self) -> None:
        """Remove ``steps.log``: all steps succeeded."""
        os.remove(self._log)

    def _last_line_of_log(self):
        with open(self._log, encoding='utf-8') as log:
            return log.read().strip().splitlines()[-1]


def _result(plan, steps, run_line, last, stripping, scores):
    unstripped = stripping.get('accuracy', {}).get('before', last['validation']['accuracy'])
    commands = {
        step: f'OMP_NUM_THREADS={run_line["versions"]["threads"]} {command}' for step, command in steps.commands.items()
    }
    return {
        **plan.description(),
        'commands': commands,
        'date': datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds'),
        'arguments': run_line['arguments'],
        'versions': run_line['versions'],
        'seconds': _training_seconds(plan),
        'log': 'run.log',
        'images': scores.get('images', last['validation_images']),
        'error': {**_errors(scores), 'unstripped': _error(unstripped)},
        'full': stripping['before'],
        'left': stripping['after'],
        'blocks': blocks_left(stripping),
        'alive': _alive(plan, stripping, last),
        'proof': stripping['proof'],
        'threshold_cost': stripping.get('threshold_cost'),
    }


def _errors(scores):
    names = {'top1': 'accuracy', 'top5': 'top_k_accuracy_5', 'onnx': 'onnx', 'start': 'start'}
    return {name: _error(scores[accuracy]) for name, accuracy in names.items() if accuracy in scores}


def _error(accuracy):
    return round(100 * (1 - accuracy), 6)


def _alive(plan, stripping, last):
    """How many structures of each kind are alive: by the threshold if given, else as training counted them."""
    if not plan.strip_flags:
        return {
            kind: {'alive': found['alive'], 'total': found['total']} for kind, found in last.get('lambda', {}).items()
        }
    kinds = {}
    for factors in stripping['lambdas'].values():
        counts = kinds.setdefault(factors['kind'], {'alive': 0, 'total': 0})
        counts['alive'] += factors['alive_count']
        counts['total'] += factors['count']
    return kinds


def _data_flags(arguments):
    """The test images that a run was validated on, as flags of ``tools/evaluate.py``; none where they are not among its
    data sets.
    """
    if 'dataset' not in arguments:
        return []
    flags = ['--dataset', arguments['dataset']]
    for name in ('data_dir', 'image_shape'):
        if arguments.get(name):
            value = arguments[name]
            flags += [f'--{name.replace("_", "-")}', value if isinstance(value, str) else ','.join(map(str, value))]
    return flags


def _renamed(flags):
    return ['--data' if flag == '--dataset' else flag for flag in flags]


def _training_seconds(plan):
    records = read_metrics(os.path.join(plan.folder, 'run-metrics.jsonl'), needs=('seconds',))
    return round(sum(record['seconds'] for record in records), 1)


def run_command(command: List[str], log: TextIO, threads: Optional[int], running: Running) -> Tuple[int, str]:
    """(exit code, stdout) of a command line; its stderr goes to the file ``log``. ``running`` holds its process while
    it runs, so that ``stop`` can end it.

    With ``threads`` None the program chooses their number. It starts a process group of its own: Ctrl-C reaches it only
    once, from this process, and a trainer saves at the first one.
    """
    environment = dict(os.environ)
    if threads:
        environment['OMP_NUM_THREADS'] = str(threads)
    elif not THREADS_GIVEN:
        # Importing runtime has set it for this process; the trainer would take it for the user's choice.
        environment.pop('OMP_NUM_THREADS', None)
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=log, env=environment, start_new_session=True, text=True
    )
    running.add(process)
    try:
        output, _ = process.communicate()
    finally:
        running.discard(process)
    return process.returncode, output


def stop(running: Running) -> None:
    """Send SIGTERM to every process of ``running``, so that it saves and ends, and wait for it."""
    for process in list(running):
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
    for process in list(running):
        process.wait()
