"""Break runs of two workers and a parameter server in every way, ``--times`` each, and resume them: they must end like
a run that nobody touched.

    python tests/kill_cluster.py --times 10

A worker or the server is killed with ``kill -9``; a worker or the server is stopped, as a cut network stops it (nothing
comes from it any more, and no connection ends); the launcher is killed. Every time all processes must be gone in
bounded time with a message that says why, the last checkpoint must be whole, and a resumed run must have the parameters
and optimizer states of the reference, byte for byte. Exit code 1 where one has not.
"""

import argparse
import collections
import os
import random
import shutil
import signal
import sys
import tempfile
import time

from helpers.clustered_runs import cluster, kill
from helpers.tiny_runs import DIGITS, checkpoint, save_network, train

from train.checkpoint import Checkpoints
from train.launch import GRACE_SECONDS

EPOCHS = 4
FLAGS = ['--num-epochs', str(EPOCHS), '--lr-step-epochs', '3', '--gamma', '0.05', '--disp-batches', '2']
OF_TWO = [*DIGITS, *FLAGS, '--batch-size', '32']
TIMEOUT = 10  # seconds of silence that end a run, far above what a step or a checkpoint takes
BOUND = TIMEOUT + GRACE_SECONDS + 30  # seconds to the end of it all on a machine that is busy with other things

Fault = collections.namedtuple('Fault', 'role signal code message')
FAULTS = {
    'worker killed': Fault('worker', signal.SIGKILL, 128 + signal.SIGKILL, 'was killed by signal 9'),
    'server killed': Fault('server', signal.SIGKILL, 128 + signal.SIGKILL, 'server 0 was killed by signal 9'),
    'worker cut off': Fault('worker', signal.SIGSTOP, 3, 'seconds (--dist-timeout) this worker has waited for'),
    # For whom, depends on the moment: within a checkpoint the first worker waits for that server, and the others for
    # the first worker.
    'server cut off': Fault('server', signal.SIGSTOP, 3, 'seconds (--dist-timeout) this worker has waited for'),
    'launcher killed': Fault('launcher', signal.SIGKILL, -signal.SIGKILL, ''),
}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--times', type=int, default=10, help='how often for each fault')
    parser.add_argument('--faults', nargs='+', choices=FAULTS, default=list(FAULTS), help='which (default: all)')
    parser.add_argument('--seed', type=int, default=0, help='of the moments')
    args = parser.parse_args(argv)
    chance, folder = random.Random(args.seed), tempfile.mkdtemp()
    network = save_network(folder)
    reference = one_process(network, os.path.join(folder, 'reference', 'run'))
    for name in args.faults:
        seconds = []
        for number in range(args.times):
            prefix = os.path.join(folder, f'{name.replace(" ", "-")}-{number}', 'run')
            seconds.append(suffer(network, prefix, FAULTS[name], chance))
            if resumed(network, prefix) != reference:
                print(f'{name}, number {number}: {prefix} differs from {reference}')
                return 1
        print(
            f'{name} {args.times} times: every run was over within {max(seconds):.1f} seconds, and resumed to the end '
            'of the reference, byte for byte',
            flush=True,
        )
    shutil.rmtree(folder)
    return 0


def one_process(network, prefix):
    """The parameters and optimizer states at the end of one process with two devices."""
    if train(network, prefix, *FLAGS, '--batch-size', '64', '--cpus', '2', data=DIGITS):
        raise RuntimeError('the reference did not train to its end')
    return checkpoint(prefix, EPOCHS)


def suffer(network, prefix, fault, chance):
    """Let a run suffer ``fault`` in its second epoch or later, and check how it ends; returns the seconds that this
    took.
    """
    with cluster(network, prefix, *OF_TWO, '--dist-timeout', TIMEOUT) as run:
        run.wait_for_file(f'{prefix}-0001.json')
        time.sleep(chance.uniform(0, 0.5))
        victims = [run.process.pid] if fault.role == 'launcher' else run.alive(fault.role)
        begin = time.monotonic()
        kill(chance.choice(victims), fault.signal)
        code = run.ends(BOUND)
        left = run.outlived_by()
        if code != fault.code or left or fault.message not in run.said:
            raise RuntimeError(f'exit code {code}, left {left}, said:\n{run.said}')
        seconds = time.monotonic() - begin
    state = Checkpoints(prefix).load()
    if not 1 <= state.epoch < EPOCHS:
        raise RuntimeError(f'the last checkpoint is of epoch {state.epoch}')
    return seconds


def resumed(network, prefix):
    """What a run has at its end when it goes on."""
    with cluster(network, prefix, *OF_TWO, '--resume') as run:
        if run.ends() or run.outlived_by():
            raise RuntimeError(f'resuming {prefix} ended with exit code {run.process.returncode}:\n{run.said}')
    return checkpoint(prefix, EPOCHS)


if __name__ == '__main__':
    sys.exit(main())
