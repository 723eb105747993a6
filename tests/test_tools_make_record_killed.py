"""Record files whose making was stopped: the same command goes on to the same bytes, whenever it was, and nothing of a
stopped run is taken for a set.
"""

import fcntl
import itertools
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time

import pytest
from helpers.image_fakes import WNIDS, class_folders, odd_images, write_files
from helpers.tiny_runs import contents, refused

from runtime.cli import run
from tools import make_record
from tools.records import partial, writing
from tools.records.workers import in_order

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FORK = multiprocessing.get_context('fork')
# What a set is made by calls these as it goes from one state on the disk to the next.
STEPS = ('fsync', 'replace', 'remove')


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(writing, 'PART', 6)
    monkeypatch.setattr(partial, 'SECONDS_BETWEEN_SYNCS', 0)


@pytest.fixture(scope='module')
def train(tmp_path_factory):
    """A training set with every kind of odd image, in three small parts."""
    odd = {f'{WNIDS[1]}/{kind}.JPEG': data for kind, data in odd_images().items()}
    return write_files(tmp_path_factory.mktemp('images') / 'train', {**class_folders(), **odd})


@pytest.fixture
def prefix(tmp_path):
    return str(tmp_path / 'out' / 'set')


def arguments(train, prefix, *more):
    return [str(arg) for arg in (train, prefix, '--jobs', 1, '--max-bad', 1, *more)]


def finished(train, prefix, *more):
    """The files of the set that a run makes."""
    assert make_record.main(arguments(train, prefix, *more)) == 0
    return contents(os.path.dirname(prefix))


def die_before(step, argv):
    """Run the tool and kill this process before its step number ``step``."""
    steps = itertools.count()

    def dying(real):
        def call(*args):
            if next(steps) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args)

        return call

    for name in STEPS:
        setattr(os, name, dying(getattr(os, name)))
    make_record.main(argv)


def killed(step, argv):
    """Whether the tool was killed before its step number ``step``, in a process of its own, and had not finished
    before.
    """
    child = FORK.Process(target=die_before, args=(step, argv))
    child.start()
    child.join(60)
    assert child.exitcode in (0, -signal.SIGKILL)
    return child.exitcode != 0


def test_killed_before_every_step(train, prefix, tmp_path):
    expected = finished(train, prefix)
    for step in itertools.count():
        again = str(tmp_path / f'killed-{step}' / 'set')
        if not killed(step, arguments(train, again)):
            break
        assert finished(train, again) == expected
    assert step >= 15  # two for each of three parts, the list's first line, and those of the last files


def test_killed_again_and_again(train, prefix, tmp_path):
    expected = finished(train, prefix)
    again = str(tmp_path / 'killed' / 'set')
    assert all(killed(3, arguments(train, again)) for _ in range(6))
    assert finished(train, again) == expected


def test_every_run_names_the_odd_images_of_all_before_it(train, prefix, capfd):
    assert all(killed(3, arguments(train, prefix)) for _ in range(2))
    capfd.readouterr()
    finished(train, prefix)
    log = capfd.readouterr().err
    for kind, words in (
        ('cmyk', 'CMYK JPEG, encoded'),
        ('png', 'RGB PNG, encoded'),
        ('truncated', 'left out'),
        ('text', 'left out'),
    ):
        assert log.count(f'{WNIDS[1]}/{kind}.JPEG: {words}') == 1


def test_a_forced_run_that_is_killed_goes_on_too(train, prefix, tmp_path):
    expected = finished(train, tmp_path / 'other' / 'set', '--seed', 1)
    finished(train, prefix)
    assert all(killed(step, arguments(train, prefix, '--seed', 1, '--force')) for step in (5, 5, 10))
    assert finished(train, prefix, '--seed', 1, '--force') == expected


@pytest.mark.parametrize('name', ['set.partial.rec', 'set.partial.jsonl'])
@pytest.mark.parametrize('bytes_more', [7, -7])
def test_what_was_half_written_is_written_again(train, prefix, tmp_path, name, bytes_more, capfd):
    expected = finished(train, prefix)
    again = str(tmp_path / 'half' / 'set')
    assert killed(8, arguments(train, again))
    path = os.path.join(os.path.dirname(again), name)
    if bytes_more > 0:
        with open(path, 'ab') as out:
            out.write(b'x' * bytes_more)
    else:
        os.truncate(path, os.path.getsize(path) + bytes_more)
    if (name, bytes_more) == (
        'set.partial.rec',
        -7,
    ):  # more than a kill can do: the list is written when the records are on the disk
        line = refused(capfd, tmp_path, *arguments(train, again), script=make_record)
        assert 'set.partial.jsonl does not fit' in line
        assert finished(train, again, '--force') == expected
    else:
        assert killed(4, arguments(train, again))  # what is added behind it must be read again
        assert finished(train, again) == expected


def on_a_full_disk(size, argv):
    """Run the tool where no file can grow beyond ``size`` bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    run(make_record.main, argv)


@pytest.mark.parametrize('size', [5000, 15000])  # what the tool says must fit as well
def test_a_full_disk_ends_the_run_and_more_room_lets_it_go_on(train, prefix, tmp_path, size, capfd):
    expected = finished(train, prefix)
    assert len(expected['set.rec']) > 15000
    again = str(tmp_path / 'full' / 'set')
    capfd.readouterr()
    child = FORK.Process(target=on_a_full_disk, args=(size, arguments(train, again)))
    child.start()
    child.join(60)
    assert child.exitcode == 2
    assert f'error: {again}.partial.' in capfd.readouterr().err
    assert finished(train, again) == expected


def test_an_unfinished_set_of_other_images_or_options_is_refused(train, prefix, tmp_path, capfd):
    assert killed(8, arguments(train, prefix))
    for more, name in ((('--resize', 32), '--resize'), (('--quality', 80), '--quality'), (('--seed', 3), 'images')):
        line = refused(capfd, tmp_path, *arguments(train, prefix, *more), script=make_record)
        assert f'was begun with other values of {name}: repeat those, or start again with --force' in line
    assert finished(train, prefix, '--resize', 32, '--force') == finished(
        train, tmp_path / 'other' / 'set', '--resize', 32
    )


def hold(path, is_held, is_over):
    with open(path, 'a') as held:
        fcntl.lockf(held, fcntl.LOCK_EX)
        is_held.set()
        is_over.wait(60)


def test_two_runs_do_not_write_the_same_set(train, prefix, tmp_path, capfd):
    assert killed(8, arguments(train, prefix))
    is_held, is_over = FORK.Event(), FORK.Event()
    other = FORK.Process(target=hold, args=(f'{prefix}.partial.jsonl', is_held, is_over))
    other.start()
    assert is_held.wait(60)
    assert 'another process is writing this set' in refused(
        capfd, tmp_path, *arguments(train, prefix), script=make_record
    )
    is_over.set()
    other.join()


def die_of(data, *_):
    if data == odd_images()['png']:
        os.kill(os.getpid(), signal.SIGKILL)
    return data, None


def test_a_killed_worker_ends_the_command(train, prefix, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(writing, 'prepared', die_of)
    line = refused(capfd, tmp_path, *arguments(train, prefix), script=make_record, is_unchanged=False)
    assert 'a worker process was killed (is there enough memory? try fewer --jobs)' in line


def square(number):
    time.sleep(0.01 * (number % 3))
    return number * number


def test_results_come_in_order_and_are_not_piled_up():
    begun = []
    results = in_order(square, (begun.append(number) or number for number in range(30)), 2)
    for number, result in enumerate(results):
        assert result == number * number
        assert len(begun) <= number + 4
    assert len(begun) == 30


def test_a_killed_command_takes_its_workers_along(prefix, tmp_path):
    train = write_files(tmp_path / 'train', class_folders(100))
    command = [sys.executable, os.path.join(ROOT, 'tools', 'make_record.py'), *arguments(train, prefix), '--jobs', '2']
    tool = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, env={**os.environ, 'PYTHONPATH': ROOT})
    workers = wait_for(lambda: children(tool.pid))
    tool.send_signal(signal.SIGSTOP)  # no chance to tell them, or to finish
    tool.kill()
    tool.wait(60)
    wait_for(lambda: not any(os.path.exists(f'/proc/{worker}') for worker in workers))
    assert not os.path.exists(f'{prefix}.json')


def children(pid):
    with open(f'/proc/{pid}/task/{pid}/children', encoding='ascii') as pids:
        found = pids.read().split()
    return found if len(found) == 2 else None


def wait_for(condition):
    deadline = time.monotonic() + 60
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline
        time.sleep(0.005)
