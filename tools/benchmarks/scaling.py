"""Workers and parameter servers on this machine: how close their speed comes to perfect scaling.

Every worker computes with ``--threads`` threads. If servers and messages cost nothing, each of up to cores ÷ threads
workers would be as fast as a process alone: that is perfect scaling. More workers share the same cores.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
from typing import Dict, List

from runtime import usable_cores
from runtime.errors import UserError
from train import launch, train_cifar

from .report import TableRow

SPEED = re.compile(r'Node\[(\d+)\] Epoch\[0\] Batch \[(\d+)-\d+\]\tSpeed: ([\d.]+) samples/sec')


def measure(args: argparse.Namespace) -> List[TableRow]:
    """The rows of the table: one process without servers first."""
    alone = images_per_second(args, 0)
    rows = [{'workers': 'one process, no server', 'images/s': alone, 'perfect': alone, 'of perfect': 1.0}]
    for workers in args.workers:
        perfect = alone * min(workers, usable_cores() / args.threads)
        found = images_per_second(args, workers)
        rows.append({'workers': str(workers), 'images/s': found, 'perfect': perfect, 'of perfect': found / perfect})
    return rows


def images_per_second(args: argparse.Namespace, workers: int) -> float:
    """The images per second that ``workers`` workers train on together; 0 is one process without servers. Raises
    UserError where they fail.
    """
    batches = args.steps * (args.rounds + 1)
    command = [
        sys.executable,
        train_cifar.__file__,
        '--benchmark',
        '1',
        '--network',
        args.network,
        '--num-layers',
        str(args.num_layers),
        '--num-classes',
        str(args.num_classes),
        '--image-shape',
        args.image_shape,
        '--batch-size',
        str(args.batch_size),
        '--num-epochs',
        '1',
        '--num-examples',
        str(args.batch_size * batches * max(1, workers)),
        '--disp-batches',
        str(args.steps),
    ]
    if workers:
        command = [
            sys.executable,
            launch.__file__,
            '-n',
            str(workers),
            '-s',
            str(args.servers),
            *command,
            '--kv-store',
            args.kv_store,
        ]
    done = subprocess.run(
        command, env={**os.environ, 'OMP_NUM_THREADS': str(args.threads)}, stderr=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise UserError(
            f'{workers} workers ended with exit code {done.returncode}: {done.stderr.strip().splitlines()[-1]}'
        )
    speeds: Dict[str, List[float]] = {}
    for rank, first, speed in SPEED.findall(done.stderr):
        if int(first):  # the first batches are slower, since everything starts meanwhile
            speeds.setdefault(rank, []).append(float(speed))
    return sum(map(statistics.median, speeds.values()))
