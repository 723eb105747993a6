"""Kill training with ``kill -9`` again and again, resume it each time, and compare what it ends with to a run that
nobody touched.

    python tests/kill_and_resume.py --times 20
    python tests/kill_and_resume.py --times 20 --shrink --engine torch

A third of the kills come at a random moment, a third while a checkpoint is being written, as soon as one of its files
appears, and a third after a SIGTERM, while the run is saving what it has. With ``--shrink`` the run has a budget, its
network is rebuilt twice, and half of the kills come while it is being rebuilt or shortly after. Every run must end with
the parameters, optimizer states and metrics of the reference, byte for byte. Exit code 1 where one has not.
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

from helpers.tiny_runs import DIGITS, checkpoint, metrics, open_bytes, save_network

from graphs.stripped_files import stripped_paths
from train import train_cifar

# The learning rate drops in the middle. An epoch is short, so that much of the time goes into saving.
FLAGS = [*DIGITS, '--batch-size', '128', '--lr-step-epochs', '3', '--disp-batches', '3']
PLAIN = ['--num-epochs', '6', '--gamma', '0.1']
# Structures die in the second and in the third epoch, and the network is rebuilt after each.
SHRINKING = ['--num-epochs', '9', '--gamma', '0.001', '--target-macs', '0.4', '--shrink', '--lr', '0.05']
TIMES_OUT = 300
REBUILT = 'Rebuilt the network'


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--times', type=int, default=20, help='how many processes to kill')
    parser.add_argument('--seed', type=int, default=0, help='of the moments')
    parser.add_argument('--shrink', action='store_true', help='train to a budget, with a network that shrinks')
    parser.add_argument('--engine', default='mxnet', help='mxnet or torch')
    args = parser.parse_args(argv)
    chance, kills, runs = random.Random(args.seed), collections.Counter(), 0
    folder = tempfile.mkdtemp()
    kinds = ('block', 'neuron') if args.shrink else ('block',)
    network = save_network(folder, kinds=kinds, width=48, dropout=0.2)
    flags = ['--network', network, '--engine', args.engine, *FLAGS, *(SHRINKING if args.shrink else PLAIN)]
    reference = os.path.join(folder, 'reference', 'run')
    live(flags, reference)
    while sum(kills.values()) < args.times:
        runs += 1
        prefix = os.path.join(folder, f'killed-{runs}', 'run')
        while live(flags, prefix, chance if sum(kills.values()) < args.times else None) == -signal.SIGKILL:
            kills[moment_of_death(prefix)] += 1
        differences = compare(prefix, reference, epochs_of(flags))
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


def epochs_of(flags):
    return int(flags[flags.index('--num-epochs') + 1])


def live(flags, prefix, chance=None):
    """Start or resume a run, and kill it at a moment left to ``chance``, or let it end; returns its exit code once that
    is final.
    """
    ways = [wait_a_while, wait_for_a_file, wait_for_a_stop]
    if '--shrink' in flags:
        ways += [wait_for_a_rebuild, wait_after_a_rebuild] * 2
    code = None
    while code in (
        None,
        128 + signal.SIGTERM,
        -signal.SIGTERM,
    ):  # stopped before it could be killed, or before it began
        resume = ['--resume'] if manifests(prefix) else []
        os.makedirs(os.path.dirname(prefix), exist_ok=True)
        with open(stderr_of(prefix), 'w', encoding='utf-8') as stderr:
            process = subprocess.Popen(
                [sys.executable, train_cifar.__file__, '--model-prefix', prefix, *flags, *resume], stderr=stderr
            )
        if chance:
            # Importing takes longer than anything else and writes nothing, so the clock starts after it.
            wait_until(process, lambda: ' Run: ' in said(prefix))
            chance.choice(ways)(process, prefix, chance)
            process.kill()
        process.wait(timeout=TIMES_OUT)
        code = process.returncode
    if code not in (0, -signal.SIGKILL):
        raise RuntimeError(f'the run ended with exit code {code}:\n{said(prefix)}')
    return code


def stderr_of(prefix):
    return os.path.join(os.path.dirname(prefix), 'stderr')


def said(prefix):
    """What the last process of a run has written to stderr so far."""
    with open(stderr_of(prefix), encoding='utf-8') as lines:
        return lines.read()


def wait_until(process, is_so, seconds=TIMES_OUT):
    """Until ``is_so()``, or the process has ended."""
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end and not is_so():
        time.sleep(0.002)


def wait_a_while(process, prefix, chance):
    time.sleep(chance.uniform(0, 1.5))


def wait_for_a_rebuild(process, prefix, chance):
    """Until a rebuild has begun, and perhaps a little longer. A resumed run may begin with one."""
    wait_until(process, lambda: is_rebuilding(prefix))
    time.sleep(chance.choice([0, chance.uniform(0, 0.05), chance.uniform(0, 0.3)]))


def wait_after_a_rebuild(process, prefix, chance):
    before = said(prefix).count(REBUILT)
    wait_until(process, lambda: said(prefix).count(REBUILT) > before)
    time.sleep(chance.uniform(0, 0.3))


def is_rebuilding(prefix):
    """Whether the newest checkpoint has dead structures that the process has not yet rebuilt its network without."""
    dead = {int(name[4:8]): number_of_dead(prefix, name) for name in manifests(prefix) if 'stopped' not in name}
    rebuilt = [int(epochs) for epochs in re.findall(rf'{REBUILT} .* after (\d+) epochs', said(prefix))]
    if not dead or rebuilt and rebuilt[-1] not in dead:
        return False
    return dead[max(dead)] > (dead[rebuilt[-1]] if rebuilt else 0)


def number_of_dead(prefix, name):
    """How many structures a checkpoint says are dead for good; 0 for one that has just been removed."""
    try:
        with open(os.path.join(os.path.dirname(prefix), name), encoding='utf-8') as source:
            return sum(map(len, (json.load(source)['selection'] or {'frozen': {}})['frozen'].values()))
    except FileNotFoundError:
        return 0


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
    if is_rebuilding(prefix):
        return 'in a rebuild' if 'Train-accuracy' in said(prefix) else 'in the loading or rebuild of a resumed run'
    if REBUILT in said(prefix):
        return 'after a rebuild'
    if any(not os.path.exists(os.path.join(folder, f'{label}.json')) for label in labels):
        return 'between the files of a checkpoint'
    return 'elsewhere'


def compare(prefix, reference, epochs):
    """The names of what differs between the ends of two runs."""
    found = {
        'parameters or states': checkpoint(prefix, epochs) == checkpoint(reference, epochs),
        'the stripped network': stripped(prefix) == stripped(reference),
        'metrics': [without_time(line) for line in metrics(prefix)]
        == [without_time(line) for line in metrics(reference)],
        'checkpoints kept': set(manifests(reference)) <= set(manifests(prefix))
        and not glob.glob(os.path.join(os.path.dirname(prefix), '.run*')),
    }
    return [what for what, is_equal in found.items() if not is_equal]


def stripped(prefix):
    """The bytes of the stripped network that a run with a budget writes; of another run, nothing."""
    paths = stripped_paths(f'{prefix}-stripped')
    return [open_bytes(path) if os.path.exists(path) else None for path in paths]


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
