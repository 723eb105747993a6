"""Connections between the processes of a run: who is let in, who is dropped, and what a recording is worth."""

import contextlib
import socket
import threading
import time

import pytest

from runtime.errors import AnotherEndedError, TrainingError
from train.distributed import connections
from train.distributed.connections import Connection, Hub, connect, read_address
from train.distributed.messages import PeerErrors

SECRET, OTHER = b'the secret of this run, 32 or more', b'the secret of another run, 32 or more'


@pytest.fixture(autouse=True)
def on_loopback(monkeypatch):
    monkeypatch.setenv('DMLC_NODE_HOST', '127.0.0.1')


@contextlib.contextmanager
def listening(secret=SECRET, expected=(('worker', 1), ('server', 0))):
    hub = Hub(secret, expected)
    try:
        yield hub
    finally:
        hub.close()


@contextlib.contextmanager
def recorder(port):
    """A port that passes a connection on to ``port``, and the list of what it has passed on to it."""
    passed = []

    def serve(listener):
        near, _ = listener.accept()
        far = socket.create_connection(('127.0.0.1', port))
        threading.Thread(target=copy, args=(far, near, []), daemon=True).start()
        copy(near, far, passed)

    def copy(source, target, record):
        with contextlib.suppress(OSError):
            while True:
                piece = source.recv(65536)
                if not piece:
                    return
                record.append(piece)
                target.sendall(piece)

    with socket.create_server(('127.0.0.1', 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1], passed


def test_peers_talk():
    with listening() as hub:
        address = read_address(SECRET, hub.signed_address().encode())
        ours = connect(*address, SECRET, 'worker', 1)
        (theirs,) = hub.accept('worker', [1])
        for value in (1, {'a': [2.5, 'λ']}):
            ours.send(value)
            assert theirs.receive() == value
            theirs.send(value)
            assert ours.receive() == value
        ours.close()
        with pytest.raises(AnotherEndedError, match='the worker of rank 1 has ended'), PeerErrors(
            'the worker of rank 1'
        ):
            theirs.receive()


def test_strangers_are_dropped_in_bounded_time_and_named_while_others_are_let_in(monkeypatch, capfd):
    monkeypatch.setattr(connections, 'HANDSHAKE_SECONDS', 2)
    with listening() as hub:
        silent = [socket.create_connection((hub.host, hub.port)) for _ in range(10)]
        for said in (b'', b'GET / HTTP/1.1\r\n\r\n', bytes(1000), b'\x80\x04.'):
            with socket.create_connection((hub.host, hub.port)) as line:
                line.sendall(said)
        with pytest.raises(TrainingError, match='refuses worker 1'):
            connect(hub.host, hub.port, OTHER, 'worker', 1)
        begin = time.monotonic()
        for role, rank in (('worker', 1), ('server', 0)):
            connect(hub.host, hub.port, SECRET, role, rank)
            assert hub.accept(role, [rank])
        assert time.monotonic() - begin < 1
        for line in silent:
            line.settimeout(10)
            assert line.recv(100)
            assert line.recv(1) == b''
        assert time.monotonic() - begin < 8
    said = capfd.readouterr().err
    assert said.count('warning: dropped a connection from 127.0.0.1:') > 10
    assert 'it does not know the secret of the run' in said


def test_more_silent_strangers_than_are_heard_at_once_only_delay(monkeypatch):
    monkeypatch.setattr(connections, 'HANDSHAKE_SECONDS', 1)
    monkeypatch.setattr(connections, 'MAX_HANDSHAKES', 3)
    with listening() as hub:
        silent = [socket.create_connection((hub.host, hub.port)) for _ in range(6)]
        connect(hub.host, hub.port, SECRET, 'worker', 1, patience=20)
        assert hub.accept('worker', [1])
        for line in silent:
            line.close()


def test_a_process_joins_once_and_only_where_it_is_expected():
    with listening() as hub:
        connect(hub.host, hub.port, SECRET, 'worker', 1)
        for role, rank in (('worker', 1), ('worker', 2), ('server', 1)):
            with pytest.raises(TrainingError, match=f'refuses {role} {rank}'):
                connect(hub.host, hub.port, SECRET, role, rank)


def test_who_listens_must_know_the_secret_too():
    with listening(OTHER) as hub, pytest.raises(TrainingError, match='refuses'):
        connect(hub.host, hub.port, SECRET, 'worker', 1)
    with socket.create_server(('127.0.0.1', 0)) as impostor:

        def answer():
            line, _ = impostor.accept()
            line.sendall(b'SSS1' + bytes(32))
            line.recv(1000)
            line.sendall(bytes(32))
            line.recv(1)

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(TrainingError, match='does not know the secret of the run'):
            connect(*impostor.getsockname(), SECRET, 'worker', 1)


def test_nobody_listens():
    with listening() as hub:
        port = hub.port
    with pytest.raises(TrainingError, match=f'server 0 cannot reach the first worker at 127.0.0.1:{port}'):
        connect('127.0.0.1', port, SECRET, 'server', 0, patience=0.5)


@pytest.mark.parametrize('secret', [SECRET, OTHER])
def test_a_recorded_connection_is_not_valid_again(secret):
    """Neither in the same run, where a server might have been restarted, nor in another."""
    with listening() as hub, recorder(hub.port) as (port, passed):
        ours = connect('127.0.0.1', port, SECRET, 'server', 0)
        (theirs,) = hub.accept('server', [0])
        ours.send(('optimizer', {}))
        theirs.receive()
    with listening(secret) as hub, socket.create_connection((hub.host, hub.port)) as line:
        line.sendall(b''.join(passed))
        line.settimeout(10)
        assert len(line.recv(36)) == 36
        with contextlib.suppress(ConnectionError):
            assert line.recv(1) == b''
        assert not hub._found


def pair():
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    near, far = Connection.__new__(Connection), Connection.__new__(Connection)
    near._stream, near._send_key, near._receive_key, near._sent, near._received = ours, b'1', b'2', 0, 0
    far._stream, far._send_key, far._receive_key, far._sent, far._received = theirs, b'2', b'1', 0, 0
    return near, far, ours, theirs


@pytest.mark.parametrize(
    'forge',
    [
        lambda sent: sent + sent,
        lambda sent: sent[:-1] + b'x',
        lambda sent: bytes(40) + sent,
        lambda sent: b'\xff' * 40 + sent,
    ],
)
def test_messages_that_were_repeated_or_changed_are_refused(forge):
    near, far, ours, theirs = pair()
    near.send(['states'])
    sent = theirs.recv(10000)
    ours.sendall(forge(sent))
    if forge(sent).startswith(sent):
        assert far.receive() == ['states']
    with pytest.raises(TrainingError, match='it was changed on the way'), PeerErrors('the worker of rank 1'):
        far.receive()


def test_a_length_alone_takes_no_memory():
    near, far, ours, theirs = pair()
    ours.sendall((2**33).to_bytes(8, 'little') + bytes(32) + bytes(1000))
    ours.close()
    with pytest.raises(EOFError):
        far.receive()


def test_listening_on_the_interface_that_the_user_names(monkeypatch):
    monkeypatch.delenv('DMLC_NODE_HOST')
    monkeypatch.setenv('DMLC_INTERFACE', 'lo')
    assert connections.own_address() == '127.0.0.1'
    monkeypatch.setenv('DMLC_INTERFACE', 'none such')
    with pytest.raises(TrainingError, match='DMLC_INTERFACE none such has no address'):
        connections.own_address()
