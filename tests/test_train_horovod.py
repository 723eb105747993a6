"""Two workers under --kv-store horovod, with two functions of Horovod's played by a stand-in: our part is tried
wherever Horovod is not built.
"""

import os
import pathlib
import subprocess
import sys

from helpers.tiny_runs import DIGITS, checkpoint, save_network, train

from train import train_cifar

STAND_IN = '''
"""As much of horovod.mxnet as is used, for two processes that talk over a socket."""
import os
import time
from multiprocessing.connection import Client, Listener

import mxnet as mx

def init():
    global _line
    _line = Listener(os.environ['STAND_IN'], 'AF_UNIX').accept() if rank() == 0 else _connected()

def _connected():
    while True:
        try:
            return Client(os.environ['STAND_IN'], 'AF_UNIX')
        except OSError:
            time.sleep(0.01)

def rank():
    return int(os.environ['STAND_IN_RANK'])

local_rank = rank

def size():
    return 2

def allreduce_(tensor, average=True, name=None, priority=0):
    _line.send((name, tensor.asnumpy()))
    other, array = _line.recv()
    assert other == name and not average
    tensor += mx.nd.array(array)
'''
SECRET = 64 * 'f'
FLAGS = [*DIGITS, '--num-epochs', '2', '--lr-step-epochs', '1', '--gamma', '0.05', '--disp-batches', '5']


def run_pair(folder, *flags):
    """Run train_cifar twice, side by side; returns the exit codes, and what was said."""
    package = pathlib.Path(str(folder)) / 'installed' / 'horovod'
    package.mkdir(parents=True, exist_ok=True)
    (package / '__init__.py').write_text('')
    (package / 'mxnet.py').write_text(STAND_IN)
    socket = package / 'socket'
    if socket.exists():
        socket.unlink()
    path = os.pathsep.join([str(package.parent), *sys.path])
    pair = [
        subprocess.Popen(
            [sys.executable, train_cifar.__file__, '--kv-store', 'horovod', *map(str, flags)],
            stderr=subprocess.PIPE,
            universal_newlines=True,
            env={
                **os.environ,
                'PYTHONPATH': path,
                'STAND_IN': str(socket),
                'STAND_IN_RANK': str(rank),
                'OMP_NUM_THREADS': '1',
                'SSS_SECRET': SECRET,
            },
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=120)[1] for process in pair]
    return [process.returncode for process in pair], said


def test_two_workers_that_resume_are_one_process_with_two_devices(tmp_path):
    network, prefix = save_network(tmp_path), str(tmp_path / 'run' / 'run')
    reference = str(tmp_path / 'reference' / 'run')
    assert train(network, reference, *FLAGS, '--batch-size', '64', '--cpus', '2', data=DIGITS) == 0
    of_two = ['--network', network, '--model-prefix', prefix, '--batch-size', '32', *FLAGS]
    codes, said = run_pair(tmp_path, *of_two, '--num-epochs', '1')
    assert codes == [0, 0], said
    codes, said = run_pair(tmp_path, *of_two, '--resume')
    assert codes == [0, 0], said
    assert checkpoint(prefix, 2) == checkpoint(reference, 2)


def test_the_end_of_one_is_the_end_of_the_other(tmp_path):
    """Only the first worker knows that there is nothing to resume."""
    codes, said = run_pair(
        tmp_path,
        '--network',
        save_network(tmp_path),
        '--model-prefix',
        tmp_path / 'none',
        '--batch-size',
        '32',
        *FLAGS,
        '--resume',
    )
    assert codes == [2, 3]
    assert 'no checkpoint to resume from' in said[0]
    assert 'the worker of rank 0 has ended' in said[1]
