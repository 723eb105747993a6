"""Whoever dies of a batch of images, the batches stay the same, and nothing is left behind."""

import os
import signal
import subprocess
import sys
import time

import pytest
from helpers.image_batches import assert_same, contents, epoch_of
from helpers.jpegs import Poisoned

from runtime.errors import TrainingError
from train.data import decoder_pool
from train.data.image_sources import RecordSource


def test_a_process_that_is_killed_is_replaced_and_the_batches_stay_the_same(images):
    expected = [epoch_of(images.train)]
    images.train.reset()
    expected.append(epoch_of(images.train))
    for epoch, batches in enumerate(expected):
        images.train.set_epoch(epoch)
        found = [contents(images.train.next())]
        # One that is killed while it starts is another matter: it ends the run.
        ready = [process.popen.pid for process in images.pool._processes if process.is_ready]
        assert ready
        for pid in ready:
            os.kill(pid, signal.SIGKILL)
        assert_same(found + epoch_of(images.train), batches)


@pytest.mark.parametrize(('act', 'said'), [('die', 'SIGFPE'), ('hang', 'SIGKILL')])
def test_an_image_at_which_processes_die_counts_as_damaged(open_images, rec, monkeypatch, caplog, act, said):
    monkeypatch.setattr(decoder_pool, 'PATIENCE', 2.0)
    monkeypatch.setattr('train.data.imagenet.RecordSource', lambda *paths: Poisoned(RecordSource(*paths), act))
    validation = open_images('--data-train', rec, '--data-val', rec, '--max-bad', 0.1).validation
    found = epoch_of(validation)
    assert [batch[2] for batch in found] == [1, 0, 0, 2]
    assert [record.getMessage() for record in caplog.records] == [
        f'Epoch[0] Damaged validation image 5 left out: a process that read it was ended by {said}, twice'
    ]


def test_processes_that_cannot_start(open_images, rec, monkeypatch, capfd):
    monkeypatch.setattr(decoder_pool, 'START', 'import sys; sys.exit(3)')
    data = open_images('--data-train', rec, '--data-val', rec)
    with pytest.raises(TrainingError, match=r'a process that decodes images could not start \(ended with code 3\)'):
        data.train.next()


def is_alive(pid):
    try:
        with open(f'/proc/{pid}/stat') as state:
            return state.read().rpartition(')')[2].split()[0] != 'Z'
    except FileNotFoundError:
        return False


def wait_until(condition, seconds=20):
    end = time.time() + seconds
    while not condition() and time.time() < end:
        time.sleep(0.05)
    return condition()


def test_closing_ends_the_processes(images):
    images.train.next()
    pids = images.pool.pids
    assert all(map(is_alive, pids))
    images.pool.close()
    assert not any(os.path.exists(f'/proc/{pid}') for pid in pids)


ONE_BATCH = """
import sys, time
sys.path.insert(0, {tests!r})
import argparse
from train.data.imagenet import add_imagenet_args, imagenet_from_args
parser = argparse.ArgumentParser()
add_imagenet_args(parser)
parser.set_defaults(seed=0, num_examples=None)
args = parser.parse_args(['--data-train', {rec!r}, '--data-val', {rec!r}, '--data-nthreads', '2'])
data = imagenet_from_args(args, (3, 32, 32), 3, 8)
data.train.next()
print(*data.pool.pids, flush=True)
{then}
"""


@pytest.mark.parametrize(('then', 'code'), [('time.sleep(1000)', -9), ('1 / 0', 1)])
def test_however_the_trainer_ends_nothing_is_left(rec, then, code):
    shared = set(os.listdir('/dev/shm'))
    trainer = subprocess.Popen(
        [sys.executable, '-c', ONE_BATCH.format(tests=os.path.dirname(__file__), rec=rec, then=then)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
    )
    pids = [int(pid) for pid in trainer.stdout.readline().split()]
    assert len(pids) == 2
    if 'sleep' in then:
        for pid in pids:  # they leave these to the trainer
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGTERM)
        time.sleep(0.2)
        assert all(map(is_alive, pids))
        trainer.kill()
    assert trainer.wait(60) == code
    trainer.stdout.close()
    assert wait_until(lambda: not any(map(is_alive, pids)))
    assert set(os.listdir('/dev/shm')) <= shared


def test_decoding_processes_do_without_mxnet(images):
    images.train.next()
    for pid in images.pool.pids:
        with open(f'/proc/{pid}/maps') as maps:
            assert 'libmxnet' not in maps.read()
