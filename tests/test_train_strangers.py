"""Strangers without the secret speak to every port of a run of two workers and two servers.

Nothing of theirs runs, nothing changes, and nothing ends.
"""

import contextlib
import os
import pickle
import socket
import sys
import time

import pytest
from helpers.clustered_runs import Launched, cluster
from helpers.ps_lite_peer import GREETING, listening_ports, send_command
from helpers.tiny_runs import DIGITS, checkpoint, metrics, save_network

from optimizers.apg import APG
from runtime import mx
from runtime.errors import TrainingError
from train import train_cifar
from train.distributed.connections import ADDRESS, connect
from train.distributed.secret import signed

FLAGS = [
    *DIGITS,
    '--num-epochs',
    '2',
    '--batch-size',
    '32',
    '--lr-step-epochs',
    '1',
    '--gamma',
    '0.05',
    '--disp-batches',
    '5',
]
WRONG_SECRET = b'this is not the secret of the run'

# The worker that is not the first one waits for a file before it connects, so that the first one listens for as long.
SCRIPT = """
import os, runpy, sys, time
from train.distributed import parameter_servers
connect = parameter_servers.connect
go, sys.argv = sys.argv[1], sys.argv[2:]
def connect_later(*args):
    while not os.path.exists(go):
        time.sleep(0.01)
    return connect(*args)
parameter_servers.connect = connect_later
runpy.run_path(sys.argv[0], run_name='__main__')
"""


class Runs:
    """What, unpickled, makes a folder."""

    def __init__(self, path):
        self._path = str(path)

    def __reduce__(self):
        return os.mkdir, (self._path,)


@pytest.fixture(scope='module')
def network(tmp_path_factory):
    return save_network(tmp_path_factory.mktemp('network'))


def bodies(folder):
    """Commands that a stranger may send: pickles that leave a trace or stop the training, and malformed ones."""
    frozen = APG(learning_rate=0.0, param_idx2name={})
    yield pickle.dumps(Runs(folder / 'ran'), 0)
    yield pickle.dumps(frozen, 0)
    yield pickle.dumps(mx.optimizer.SGD(learning_rate=0.0), 0)
    yield b''
    yield b'{'
    yield b'{"host": "127.0.0.1", "port": 1, "key": ""}'
    yield b'\xff\xfe'
    yield b'0' * 1000000
    yield b'0' * 64
    yield signed(WRONG_SECRET, ADDRESS, ['127.0.0.1', 1]).encode()
    yield b'0' * 64 + b'["127.0.0.1", 1]'


def speak_nonsense(port):
    """Connect and close; a wrong greeting, in three forms; and a connection that says nothing, which is returned."""
    for said in (b'', b'GET / HTTP/1.1\r\n\r\n', bytes(1000), GREETING[:20]):
        with contextlib.suppress(OSError), socket.create_connection(('127.0.0.1', port), timeout=5) as line:
            line.sendall(said)
    return socket.create_connection(('127.0.0.1', port), timeout=5)


def all_ports(run):
    return sorted({port for pid in run.alive() for port in listening_ports(pid)})


def send_to_servers(run, folder):
    for pid in run.alive('server'):
        for port in listening_ports(pid):
            for body in bodies(folder):
                send_command(port, body)


def wait_for_hub(run, seconds=60):
    """The port on which the first worker listens for the others; it is the only process that has two."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for pid in run.alive('worker'):
            ports = listening_ports(pid)
            if len(ports) == 2:
                return next(port for port in ports if is_hub(port))
        time.sleep(0.05)
    raise AssertionError(f'no worker listens for the others: {run.said}')


def is_hub(port):
    with socket.create_connection(('127.0.0.1', port), timeout=5) as line:
        return line.recv(4) == b'SSS1'


def test_strangers_change_nothing(network, tmp_path):
    with cluster(network, tmp_path / 'undisturbed', *FLAGS, servers=2) as run:
        assert run.ends() == 0, run.said
    go, silent = tmp_path / 'go', []
    command = [
        sys.executable,
        '-c',
        SCRIPT,
        go,
        train_cifar.__file__,
        '--network',
        network,
        '--kv-store',
        'dist_sync',
        *FLAGS,
        '--model-prefix',
        tmp_path / 'disturbed',
    ]
    with Launched(['-n', 2, '-s', 2], command) as run:
        hub = wait_for_hub(run)
        for _ in range(3):
            silent += [speak_nonsense(port) for port in all_ports(run)]
        with pytest.raises(TrainingError, match='refuses worker 1; SSS_SECRET'):
            connect('127.0.0.1', hub, WRONG_SECRET, 'worker', 1)
        send_to_servers(run, tmp_path)
        go.touch()
        run.wait_for('Epoch[0] Batch [0-5]')
        silent += [speak_nonsense(port) for port in all_ports(run)]
        send_to_servers(run, tmp_path)
        assert run.ends() == 0, run.said
        said = run.said
    for line in silent:
        line.close()
    assert not (tmp_path / 'ran').exists()
    assert checkpoint(str(tmp_path / 'disturbed'), 2) == checkpoint(str(tmp_path / 'undisturbed'), 2)
    for line, expected in zip(metrics(str(tmp_path / 'disturbed')), metrics(str(tmp_path / 'undisturbed'))):
        assert line['train'] == expected['train']
        assert line['validation'] == expected['validation']
    assert 'warning: refused a command to this parameter server: ' in said
    assert 'that is not of this run: it does not know the secret of the run' in said
