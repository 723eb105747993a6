"""How many threads a run takes beside other processes, and that MXNet's workers obey."""

import subprocess
import sys

import pytest

from runtime import threads
from runtime.threads import LoadMeter, ThreadChooser, threads_beside


@pytest.mark.parametrize(
    ('busy', 'cores', 'now', 'expected'),
    [
        (0.0, 2, 2, 2),
        (1.0, 2, 2, 1),
        (0.5, 2, 2, 2),
        (0.5, 2, 1, 1),
        (0.2, 2, 1, 2),
        (2.0, 2, 2, 1),
        (9.0, 2, 2, 1),
        (0.9, 16, 16, 15),
        (4.0, 16, 16, 12),
        (0.0, 16, 12, 16),
    ],
)
def test_one_thread_for_each_core_that_is_free(busy, cores, now, expected):
    assert threads_beside(busy, cores, now) == expected


def test_a_load_in_between_changes_nothing():
    for now in (1, 2):
        assert {threads_beside(0.35 + 0.01 * step, 2, now) for step in range(24)} == {now}


class Meter:
    seconds = 6.0

    def __init__(self):
        self.busy = 0.0

    def cores_busy_elsewhere(self):
        return self.busy


def test_threads_are_given_up_and_taken_back(monkeypatch, caplog):
    monkeypatch.setattr(threads, 'THREADS_GIVEN', False)
    monkeypatch.setattr(threads, 'usable_cores', lambda: 2)
    monkeypatch.setattr(threads, 'LoadMeter', Meter)
    applied = []
    with caplog.at_level('INFO'):
        chooser = ThreadChooser(None, applied.append)
        for busy in (0.0, 1.0, 1.0, 0.0):
            chooser._meter.busy = busy
            chooser.look()
    assert applied == [2, 1, 2]
    assert caplog.messages[1:] == [
        'Other processes use 1.0 of 2 cores: 1 thread from now on',
        'Other processes use 0.0 of 2 cores: 2 threads from now on',
    ]


def test_a_given_number_stays(monkeypatch):
    applied = []
    chooser = ThreadChooser(3, applied.append)
    chooser.look()
    assert (applied, chooser._meter) == ([3], None)


def test_the_load_of_others_is_not_ours():
    meter = LoadMeter()
    sum(number * number for number in range(2_000_000))
    ours = meter.cores_busy_elsewhere()
    other = subprocess.Popen([sys.executable, '-c', 'while True: pass'])
    try:
        meter = LoadMeter()
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(1)
        assert meter.cores_busy_elsewhere() > 0.2
    finally:
        other.kill()
        other.wait()
    assert ours >= 0


def test_mxnets_workers_take_the_number():
    """What OpenMP would give a worker of MXNet's engine is read in the worker itself, in a process whose engine has
    one.
    """
    code = """
import ctypes
from runtime import mx
from runtime.threads import set_mxnet_threads
openmp, seen = ctypes.CDLL('libgomp.so.1'), []
look = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(lambda *_: seen.append(openmp.omp_get_max_threads()))
for number in (1, 3, 2):
    set_mxnet_threads(number)
    context = (ctypes.c_int32 * 4)(1)
    mx.base.check_call(mx.base._LIB.MXEnginePushSync(look, None, None, context, None, 0, None, 0, None, 0, None))
    mx.nd.waitall()
print(seen)
"""
    assert (
        subprocess.run([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
        == '[1, 3, 2]'
    )
