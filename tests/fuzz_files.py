"""Feed every file reader of the project with damaged files, and report what crashes, hangs, raises anything untyped, or
takes too much memory.

    python tests/fuzz_files.py --count 100000
    python tests/fuzz_files.py --seconds 90 --seed 7            # a part; the last line says how to go on
    python tests/fuzz_files.py --seconds 90 --seed 7 --begin 5400

Each case follows from ``--seed`` and its number; the files that found something are kept in ``--keep``. Without
``--seed`` every call makes other files.
"""

import argparse
import contextlib
import glob
import json
import math
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time

from helpers.fuzz_worker import CASE
from tqdm import tqdm

from runtime import usable_cores
from runtime.argument_types import MOST, above_zero, positive, processes, seed, whole
from runtime.cli import run

TESTS = os.path.dirname(os.path.abspath(__file__))
WORKER = os.path.join(TESTS, 'helpers', 'fuzz_worker.py')


class Worker:
    """A process that judges every ``step``-th case, started again behind each case that killed it."""

    def __init__(self, folder, seed, first, step, count, run_share):
        self.folder, self.seed, self.step, self.count, self.run_share = folder, seed, step, count, run_share
        self.deaths = []
        self.start(first)

    def start(self, first):
        self.first = first
        # Two threads a process would only stand in one another's way.
        path = os.pathsep.join(filter(None, (TESTS, os.environ.get('PYTHONPATH'))))
        environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': path}
        command = [
            sys.executable,
            WORKER,
            self.folder,
            *map(str, (self.seed, first, self.step, self.count, self.run_share)),
        ]
        os.makedirs(self.folder, exist_ok=True)
        with open(os.path.join(self.folder, 'log'), 'wb') as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    @property
    def place(self):
        """The number of the case in hand, -1 when all are done, None before the first."""
        try:
            with open(os.path.join(self.folder, 'place'), 'rb') as place:
                return struct.unpack('<q', place.read(8))[0]
        except (FileNotFoundError, struct.error):
            return None

    def is_done(self):
        """Whether all cases are judged; a process found dead is started again behind the case that killed it."""
        code = self.process.poll()
        if code is None:
            return False
        if code == 0:
            return True
        with open(os.path.join(self.folder, 'log'), errors='replace') as log:
            text = log.read()
        if self.place is None or self.place < self.first:
            raise RuntimeError(f'the worker does not start: {text[-500:]}')
        self.deaths.append(
            {
                'index': self.place,
                'kind': 'death',
                'reason': f'exit code {code}: {" | ".join(text.splitlines()[-4:])[-300:]}',
            }
        )
        if self.place + self.step >= self.count:
            return True
        self.start(self.place + self.step)
        return False

    def stop(self):
        """End the process, if it has not ended yet."""
        self.process.kill()
        self.process.wait()

    def findings(self):
        path = os.path.join(self.folder, 'findings.jsonl')
        if not os.path.exists(path):
            return self.deaths
        with open(path) as lines:
            return self.deaths + [json.loads(line) for line in lines]


def fuzz(count, seed, workers, run_share, folder, begin=0, seconds=math.inf):
    """Judge the cases from ``begin`` up to ``count`` in ``workers`` processes, until ``seconds`` are over or Ctrl-C.

    Returns the list of findings, by case number, and the number of the first case that was not judged.
    """
    crew = [
        Worker(os.path.join(folder, str(number)), seed, begin + number, workers, count, run_share)
        for number in range(workers)
    ]
    end = time.monotonic() + seconds
    reached = begin
    with tqdm(total=count, initial=begin, unit='file', disable=None) as bar, contextlib.suppress(KeyboardInterrupt):
        done = [False] * workers
        while not all(done) and time.monotonic() < end:
            time.sleep(0.2)
            done = [finished or worker.is_done() for finished, worker in zip(done, crew)]
            under_way = [worker.place or begin for finished, worker in zip(done, crew) if not finished]
            reached = max(reached, min(under_way, default=count))
            bar.update(reached - bar.n)
    for worker in crew:
        worker.stop()
    findings = [finding for worker in crew for finding in worker.findings()]
    return sorted(findings, key=lambda finding: finding['index']), reached


def keep_files(folder, keep):
    """Move the files that found something from the workers' folders to ``keep``."""
    os.makedirs(keep, exist_ok=True)
    for path in glob.glob(os.path.join(folder, '*', CASE + '*')):
        shutil.move(path, os.path.join(keep, os.path.basename(path)))


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--count', type=positive, default=100_000, help='how many damaged files there are to try')
    parser.add_argument('--begin', type=whole, default=0, help='the number of the first one, to go on with a seed')
    parser.add_argument('--seconds', type=above_zero, default=math.inf, help='stop after this time')
    parser.add_argument('--seed', type=seed, help='the same seed makes the same files (default: another each time)')
    parser.add_argument(
        '--workers',
        type=processes,
        default=usable_cores(),
        help='processes; no more than there are cores',
    )
    parser.add_argument(
        '--run-share',
        type=int,
        default=50,
        help='of the symbols that were accepted, how many percent to bind and run (the slow part)',
    )
    parser.add_argument(
        '--keep', default='fuzz-findings', help='folder for the files that found something; made only if one does'
    )
    options = parser.parse_args(argv)
    number = random.SystemRandom().randrange(MOST) if options.seed is None else options.seed
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        findings, end = fuzz(
            options.count, number, options.workers, options.run_share, folder, options.begin, options.seconds
        )
        if findings:
            keep_files(folder, options.keep)
    seconds = time.monotonic() - start
    files = end - options.begin
    print(f'{files} files in {seconds:.0f} s ({files / seconds:.0f} a second), seed {number}, {len(findings)} findings')
    for finding in findings:
        print(f'{finding["index"]} {finding["kind"]}: {finding["reason"]}')
    if findings:
        print(f'the files are in {options.keep}')
    if end < options.count:
        print(f'go on with --seed {number} --begin {end}')
    return 1 if findings else 0


if __name__ == '__main__':
    run(main)
