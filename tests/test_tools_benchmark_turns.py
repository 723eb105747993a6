"""How candidates of a benchmark take turns in processes of their own, and what is measured of these processes."""

import subprocess
import sys
import time
from functools import partial

import pytest

from runtime.errors import UserError
from tools.benchmarks.alternating import Measured, time_alternating
from tools.benchmarks.process_usage import family_bytes, family_time, peak_bytes
from tools.benchmarks.report import markdown


def test_a_family_counts_its_children():
    """While they live, and after they have ended."""
    own, family = time.process_time(), family_time()
    script = 'import time\nwhile time.process_time() < 0.5: pass\nprint(flush=True); input()'
    with subprocess.Popen([sys.executable, '-c', script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        assert family_time() - family > 0.4
        assert family_bytes() > peak_bytes() / 4
        child.communicate(b'\n')
    assert family_time() - family > 0.4
    assert time.process_time() - own < 0.4


def refuses():
    raise UserError('not today')


def builds(length):
    array = list(range(length))

    def run_steps(steps):
        for _ in range(steps):
            sum(array)

    return run_steps


def test_candidates_are_measured_in_processes_of_their_own():
    found = time_alternating({'short': partial(builds, 1000), 'long': partial(builds, 1_000_000)}, rounds=3)
    assert [len(measure.seconds) for measure in found.values()] == [3, 3]
    assert found['long'].time_over(found['short']) > 10
    assert found['long'].peak_bytes > found['short'].peak_bytes + 2e7


def test_a_candidate_that_cannot_be_built_says_why():
    with pytest.raises(UserError, match='not today'):
        time_alternating({'refuses': refuses})


def test_rounds_are_compared_one_by_one():
    """A machine that gets slower in the middle changes no ratio."""
    fast, slow = Measured([1.0, 1.0, 10.0, 10.0, 10.0], 0), Measured([2.0, 2.0, 20.0, 20.0, 20.0], 0)
    assert slow.time_over(fast) == 2
    assert slow.median == 20


def test_tables_leave_lists_out():
    assert markdown([{'name': 'a', 'ms': 1.23456, 'all': [1, 2]}]) == '| name | ms |\n| :-- | --: |\n| a | 1.235 |'
