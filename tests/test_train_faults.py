"""One death of each kind in a run of two workers and a server (``make kill-cluster`` tries each ten times, and
resumes).
"""

import random

import pytest
from helpers.tiny_runs import save_network
from kill_cluster import FAULTS, suffer


@pytest.mark.parametrize('name', ['worker killed', 'server cut off'])
def test_a_run_that_is_broken_ends_in_bounded_time_and_keeps_its_last_checkpoint(name, tmp_path):
    suffer(save_network(tmp_path), str(tmp_path / 'run' / 'run'), FAULTS[name], random.Random(0))
