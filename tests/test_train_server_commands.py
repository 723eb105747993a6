"""Commands to a parameter server: what bears a valid code is carried out, all else is refused and named."""

import contextlib
import os
import subprocess
import sys
import time

import pytest

from runtime.errors import UserError
from train import train_cifar
from train.distributed import connections
from train.distributed.connections import ADDRESS, Hub
from train.distributed.secret import VARIABLE, RefusedError, run_secret, signed, verified
from train.distributed.server import Server

SECRET, OTHER = b'the secret of this run, 32 or more', b'the secret of another run, 32 or more'


@pytest.fixture(autouse=True)
def on_loopback(monkeypatch):
    monkeypatch.setenv('DMLC_NODE_HOST', '127.0.0.1')


@contextlib.contextmanager
def listening():
    hub = Hub(SECRET, [('server', 0)])
    try:
        yield hub
    finally:
        hub.close()


def test_a_signature_is_for_one_purpose_and_one_secret():
    text = signed(SECRET, ADDRESS, ['host', 1]).encode()
    assert verified(SECRET, ADDRESS, text) == ['host', 1]
    for secret, purpose, body in (
        (OTHER, ADDRESS, text),
        (SECRET, 'another', text),
        (SECRET, ADDRESS, text + b' '),
        (SECRET, ADDRESS, text[1:]),
        (SECRET, ADDRESS, b''),
        (SECRET, ADDRESS, b'\xff' * 100),
    ):
        with pytest.raises(RefusedError, match='without a valid code'):
            verified(secret, purpose, body)


@pytest.mark.parametrize('secret', [None, '', 'too short'])
def test_a_run_without_a_secret_is_refused(secret, monkeypatch):
    monkeypatch.delenv('SSS_SECRET', raising=False)
    if secret is not None:
        monkeypatch.setenv('SSS_SECRET', secret)
    with pytest.raises(UserError, match='SSS_SECRET must hold a secret of at least 32 characters'):
        run_secret()


@pytest.mark.parametrize('role', ['server', 'worker'])
def test_a_process_that_was_given_no_secret_ends_in_one_line(role):
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    command = [sys.executable, train_cifar.__file__, '--kv-store', 'dist_sync', '--dataset', 'digits']
    done = subprocess.run(
        command, env={**environment, 'DMLC_ROLE': role}, stderr=subprocess.PIPE, text=True, timeout=60
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith('error: SSS_SECRET must hold a secret')


class Store:
    handle, rank = None, 0


def test_a_server_names_what_it_refuses_and_not_without_end(capfd):
    take = Server(Store(), SECRET)._controller()
    for _ in range(100):
        take(0, b'{}', None)
        take(0, None, None)
    take(0, signed(OTHER, ADDRESS, ['127.0.0.1', 1]).encode(), None)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 20
    assert all(
        line.startswith('warning: refused a command to this parameter server: the address of the first worker is ')
        for line in lines
    )
    assert lines[-1].endswith('(further warnings of this kind are not shown)')


def test_a_recorded_address_does_not_keep_a_restarted_server_from_its_run(monkeypatch, capfd):
    monkeypatch.setattr(connections, 'PATIENCE', 0.1)
    with listening() as gone:
        recorded = gone.signed_address().encode()
    server = Server(Store(), SECRET)
    server._take_command(recorded)
    while not server._connecting.acquire(blocking=False):
        time.sleep(0.01)
    server._connecting.release()
    assert 'warning: server 0 cannot reach the first worker' in capfd.readouterr().err
    with listening() as hub:
        server._take_command(hub.signed_address().encode())
        assert hub.accept('server', [0])


def test_a_message_that_a_server_cannot_read_ends_the_connection_and_is_named(monkeypatch, capfd):
    server = Server(Store(), SECRET)
    with listening() as hub:
        server._take_command(hub.signed_address().encode())
        (connection,) = hub.accept('server', [0])
        monkeypatch.setattr(connections, 'encode', lambda value: b'of another version')
        connection.send(None)
        with pytest.raises(EOFError):
            connection.receive()
    assert 'error: a message of the first worker was not understood: a message' in capfd.readouterr().err


def test_a_server_connects_once_and_takes_no_second_address():
    server = Server(Store(), SECRET)
    with listening() as hub:
        address = hub.signed_address().encode()
        server._take_command(address)
        (connection,) = hub.accept('server', [0])
        with pytest.raises(RefusedError, match='connected to the first worker already'):
            server._take_command(address)
        connection.send(('unknown', 1))
        is_done, _ = connection.receive()
        assert not is_done
