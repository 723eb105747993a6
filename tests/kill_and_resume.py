"""Kill training with ``kill -9`` again and again, resume it each time, and compare what it ends with to a run that
nobody touched.

    python tests/kill_and_resume.py --times 20

A third of the kills come at a random moment, a third while a checkpoint is being written, as soon as one of its files
appears, and a third after a SIGTERM, while the run is saving what it has. Every run must end with the parameters,
optimizer states and metrics of the reference, byte for byte. Exit code 1 where one has not.
"""

import argparse
import collections
import glob
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from helpers.tiny_runs import DIGITS, checkpoint, metrics, save_network

from train import train_cifar

EPOCHS = 6
# The learning rate drops in the middle. An epoch is short, so that much of the time goes into saving.
FLAGS = [
    *DIGITS,
    '--batch-size',
    '128',
    '--num-epochs',
    str(EPOCHS),
    '--lr-step-epochs',
    '3',
    '--gamma',
    '0.1',
    '--disp-batches',
    '3',
]
TIMES_OUT = 300


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--times', type=int, default=20, help='how many processes to kill')
    parser.add_argument('--seed', type=int, default=0, help='of the moments')
    args = parser.parse_args(argv)
    chance, kills, runs = random.Random(args.seed), collections.Counter(), 0
    folder = tempfile.mkdtemp()
    network = save_network(folder, width=48, dropout=0.2)
    reference = os.path.join(folder, 'reference', 'run')
    live(network, reference)
    while sum(kills.values()) < args.times:
        runs += 1
        prefix = os.path.join(folder, f'killed-{runs}', 'run')
        while live(network, prefix, chance if sum(kills.values()) < args.times else None) == -signal.SIGKILL:
            kills[moment_of_death(prefix)] += 1
        differences = compare(prefix, reference)
        if differences:
            print(f'{prefix} differs from {reference} after {dict(kills)}: {", ".join(differences)}')
            return 1
    shutil.rmtree(folder)
    print(
        f'{sum(kills.values())} kills in {runs} runs '
        f'({", ".join(f"{count} {moment}" for moment, count in sorted(kills.items()))}): '
        'every run ended like the reference, byte for byte'
    )
    return 0


def live(network, prefix, chance=None):
    """Start or resume a run, and kill it at a moment left to ``chance``, or let it end; returns its exit code once that
    is final.
    """
    code = None
    while code in (
        None,
        128 + signal.SIGTERM,
        -signal.SIGTERM,
    ):  # stopped before it could be killed, or before it began
        resume = ['--resume'] if manifests(prefix) else []
        process = subprocess.Popen(
            [sys.executable, train_cifar.__file__, '--network', network, '--model-prefix', prefix, *FLAGS, *resume],
            stderr=subprocess.PIPE,
            universal_newlines=True,
        )
        if chance:
            wait_until_training(process)
            chance.choice([wait_a_while, wait_for_a_file, wait_for_a_stop])(process, prefix, chance)
            process.kill()
        _, said = process.communicate(timeout=TIMES_OUT)
        code = process.returncode
    if code not in (0, -signal.SIGKILL):
        raise RuntimeError(f'the run ended with exit code {code}:\n{said}')
    return code


def wait_until_training(process):
    """Importing takes longer than anything else and writes nothing, so the clock starts after it."""
    for line in process.stderr:
        if 'Run:' in line:
            return


def wait_a_while(process, prefix, chance):
    time.sleep(chance.uniform(0, 1.5))


def wait_for_a_stop(process, prefix, chance):
    wait_a_while(process, prefix, chance)
    process.send_signal(signal.SIGTERM)
    wait_for_a_file(process, prefix, chance, skip=0)


def wait_for_a_file(process, prefix, chance, skip=None):
    """Until one of the files of a checkpoint appears, finished or not, and perhaps a moment longer."""
    label = r'run-(\d{4}|stopped-\d{4}-\d+)'
    pattern = re.compile(
        chance.choice(
            [
                rf'\.{label}\.(params|states)\..+',
                rf'{label}\.params',
                rf'{label}\.states',
                rf'\.{label}\.json\..+',
                rf'{label}\.json',
                r'\.run-symbol\.json\..+',
            ]
        )
    )
    folder = os.path.dirname(prefix)
    known = set(names_in(folder))
    skip = chance.randrange(2) if skip is None else skip
    while process.poll() is None:
        new = [name for name in set(names_in(folder)) - known if pattern.fullmatch(name)]
        known.update(new)
        skip -= len(new)
        if new and skip < 0:
            break
    time.sleep(chance.choice([0, chance.uniform(0, 0.01)]))


def moment_of_death(prefix):
    """What the folder looks like after a kill."""
    folder = os.path.dirname(prefix)
    labels = {os.path.splitext(name)[0] for name in names_in(folder) if name.endswith(('.params', '.states'))}
    if any(name.startswith('.') for name in names_in(folder)):
        return 'within a file'
    if any(not os.path.exists(os.path.join(folder, f'{label}.json')) for label in labels):
        return 'between the files of a checkpoint'
    return 'elsewhere'


def compare(prefix, reference):
    """The names of what differs between the ends of two runs."""
    found = {
        'parameters or states': checkpoint(prefix, EPOCHS) == checkpoint(reference, EPOCHS),
        'metrics': [without_time(line) for line in metrics(prefix)]
        == [without_time(line) for line in metrics(reference)],
        'checkpoints kept': set(manifests(reference)) <= set(manifests(prefix))
        and not glob.glob(os.path.join(os.path.dirname(prefix), '.run*')),
    }
    return [what for what, is_equal in found.items() if not is_equal]


def without_time(line):
    return json.dumps({name: value for name, value in line.items() if name not in ('seconds', 'samples_per_second')})


def manifests(prefix):
    return sorted(
        name for name in names_in(os.path.dirname(prefix)) if re.fullmatch(r'run-(\d{4}|stopped-.+)\.json', name)
    )


def names_in(folder):
    return os.listdir(folder) if os.path.isdir(folder) else []


if __name__ == '__main__':
    sys.exit(main())
