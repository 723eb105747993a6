"""Authenticated connections between the processes of a run: one from the first worker to every other worker and to
every parameter server.

Both ends prove that they know the secret of the run, each with a random number of the other, before any other byte is
read. Then every message has a code, made with a key that only this connection has, over the number of the message: none
can be changed, left out, repeated or taken from another connection. Messages are not encrypted. ``encoding`` says what
they may hold.
"""

import contextlib
import os
import secrets
import socket
import struct
import threading
import time
from typing import Any, Dict, Iterable, List, Optional, Tuple

from runtime.errors import TrainingError

from .encoding import decode, encode
from .secret import VARIABLE, RefusedError, Warnings, code, is_code, signed, verified

ADDRESS = 'address of the first worker'  # what its signature is for
GREETING = b'SSS1'
NONCE_LENGTH, CODE_LENGTH = 32, 32
ROLES = {'server': b's', 'worker': b'w'}
HELLO = struct.Struct(f'<{len(GREETING)}scI{NONCE_LENGTH}s')  # greeting, role, rank, random number
LENGTH, NUMBER = struct.Struct('<Q'), struct.Struct('<Q')
MAX_MESSAGE = 2**34  # bytes: far above the parameters and states of any network
PIECE = 2**20  # bytes that are read at once, so that a length alone takes no memory
HANDSHAKE_SECONDS = 10  # that a peer has to prove who it is
GET_INTERFACE_ADDRESS = 0x8915  # SIOCGIFADDR of Linux
MAX_HANDSHAKES = 64  # at the same time
PATIENCE = 60  # seconds in which a process tries to reach the first worker


class Connection:
    """One end of a connection whose other end has proved that it knows the secret."""

    def __init__(self, stream: socket.socket, send_key: bytes, receive_key: bytes) -> None:
        self._stream, self._send_key, self._receive_key = stream, send_key, receive_key
        self._sent = self._received = 0
        stream.settimeout(None)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, value: Any) -> None:
        """Send what ``encoding.encode`` takes. Raises OSError when the other end is gone."""
        data = encode(value)
        length = LENGTH.pack(len(data))
        self._stream.sendall(length + code(self._send_key, NUMBER.pack(self._sent), length, data))
        self._stream.sendall(data)
        self._sent += 1

    def receive(self) -> Any:
        """The next value. Raises EOFError or OSError when the other end is gone, RefusedError for forged bytes."""
        head = _read(self._stream, LENGTH.size + CODE_LENGTH)
        length, claimed = head[: LENGTH.size], head[LENGTH.size :]
        (size,) = LENGTH.unpack(length)
        if size > MAX_MESSAGE:
            raise RefusedError(f'a message of {size} bytes')
        data = _read(self._stream, size)
        if not is_code(claimed, self._receive_key, NUMBER.pack(self._received), length, data):
            raise RefusedError('a message without a valid code')
        self._received += 1
        return decode(data)

    def close(self) -> None:
        """Close it; the other end then gets EOFError."""
        self._stream.close()


class Hub:
    """Accepts the connections of the other processes for the first worker: one for each (role, rank) of ``expected``.
    Any other connection is dropped.

    Each peer has a thread of its own and a limited time, so that none can hold up the rest. A peer that is dropped is
    named on stderr.
    """

    def __init__(self, secret: bytes, expected: Iterable[Tuple[str, int]]) -> None:
        self._secret, self._expected = secret, set(expected)
        self._found: Dict[Tuple[str, int], Connection] = {}
        self._changed, self._slots, self._warn = threading.Condition(), threading.Semaphore(MAX_HANDSHAKES), Warnings()
        self._listener = socket.create_server((own_address(), 0), backlog=128)
        self.host, self.port = self._listener.getsockname()
        threading.Thread(target=self._listen, daemon=True).start()

    def signed_address(self) -> str:
        """Where it listens, as text that ``read_address`` reads."""
        return signed(self._secret, ADDRESS, [self.host, self.port])

    def accept(self, role: str, ranks: Iterable[int]) -> List[Connection]:
        """The connections of these processes, in the order of ``ranks``, once all of them are there."""
        with self._changed:
            self._changed.wait_for(lambda: all((role, rank) in self._found for rank in ranks))
            return [self._found[role, rank] for rank in ranks]

    def close(self) -> None:
        """Listen no longer. Connections stay."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for a peer
        self._listener.close()

    def _listen(self):
        while self._listener.fileno() >= 0:
            try:
                stream, peer = self._listener.accept()
            except OSError:
                time.sleep(0.1)  # closed, or too many open files for the moment
                continue
            if self._slots.acquire(blocking=False):
                threading.Thread(target=self._meet, args=(stream, peer), daemon=True).start()
            else:
                stream.close()  # a process of the run tries again

    def _meet(self, stream, peer):
        try:
            role, rank, connection = self._handshake(stream)
            with self._changed:
                self._found[role, rank] = connection
                self._changed.notify_all()
        except (OSError, EOFError, RefusedError) as error:
            stream.close()
            self._warn(
                f'dropped a connection from {peer[0]}:{peer[1]} that is not of this run: {error or "it was closed"}'
            )
        finally:
            self._slots.release()

    def _handshake(self, stream):
        deadline = time.monotonic() + HANDSHAKE_SECONDS
        stream.settimeout(HANDSHAKE_SECONDS)
        greeting = GREETING + secrets.token_bytes(NONCE_LENGTH)
        stream.sendall(greeting)
        hello, claimed = _read(stream, HELLO.size, deadline), _read(stream, CODE_LENGTH, deadline)
        if not is_code(claimed, self._secret, b'peer', greeting, hello):
            raise RefusedError('it does not know the secret of the run')
        _, letter, rank, _ = HELLO.unpack(hello)
        role = {letter: role for role, letter in ROLES.items()}.get(letter)
        with self._changed:
            if (role, rank) not in self._expected:
                raise RefusedError(f'{role} {rank} is not expected, or already there')
            self._expected.remove((role, rank))
        stream.sendall(code(self._secret, b'hub', greeting, hello))
        return (
            role,
            rank,
            Connection(
                stream,
                code(self._secret, b'from hub', greeting, hello),
                code(self._secret, b'from peer', greeting, hello),
            ),
        )


def connect(host: str, port: int, secret: bytes, role: str, rank: int, patience: Optional[float] = None) -> Connection:
    """This process's end of a connection to the ``Hub``. Raises TrainingError when it cannot be reached, or one of both
    does not know the secret.
    """
    deadline = time.monotonic() + (PATIENCE if patience is None else patience)
    while True:
        stream = None
        try:
            stream = socket.create_connection((host, port), timeout=HANDSHAKE_SECONDS)
            greeting = _read(stream, len(GREETING) + NONCE_LENGTH, time.monotonic() + HANDSHAKE_SECONDS)
            break
        except (OSError, EOFError) as error:  # it may be busy with others
            if stream:
                stream.close()
            if time.monotonic() > deadline:
                raise TrainingError(
                    f'{role} {rank} cannot reach the first worker at {host}:{port} ({error}); allow '
                    'connections between the machines of the run in their firewalls'
                ) from None
            time.sleep(0.2)
    hello = HELLO.pack(GREETING, ROLES[role], rank, secrets.token_bytes(NONCE_LENGTH))
    try:
        stream.sendall(hello + code(secret, b'peer', greeting, hello))
        proof = _read(stream, CODE_LENGTH, time.monotonic() + HANDSHAKE_SECONDS)
    except (OSError, EOFError):
        raise TrainingError(
            f'the first worker at {host}:{port} refuses {role} {rank}; {VARIABLE} must be the same in every process '
            f'of a run'
        ) from None
    if not is_code(proof, secret, b'hub', greeting, hello):
        raise TrainingError(
            f'the process at {host}:{port} does not know the secret of the run; {VARIABLE} must be the same in every '
            f'process of a run'
        )
    return Connection(stream, code(secret, b'from peer', greeting, hello), code(secret, b'from hub', greeting, hello))


def read_address(secret: bytes, text: bytes) -> Tuple[str, int]:
    """(host, port) of the ``Hub``. Raises TrainingError for bytes that were not signed with the secret of this run."""
    try:
        host, port = verified(secret, ADDRESS, text)
    except RefusedError as error:
        raise TrainingError(
            f'the address of the first worker is {error}; {VARIABLE} must be the same in every process of a run'
        ) from None
    return host, port


def own_address() -> str:
    """The address by which the other machines reach this one: that of the interface towards the machine that started
    the run. Raises TrainingError where DMLC_INTERFACE names an interface without an address.
    """
    if 'DMLC_NODE_HOST' in os.environ:
        return os.environ['DMLC_NODE_HOST']
    if 'DMLC_INTERFACE' in os.environ:
        return _address_of_interface(os.environ['DMLC_INTERFACE'])
    starter = next(
        (os.environ[name] for name in ('DMLC_PS_ROOT_URI', 'HOROVOD_GLOO_RENDEZVOUS_ADDR') if name in os.environ),
        socket.gethostname(),
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((starter, 1))  # sends nothing
        return probe.getsockname()[0]


def _address_of_interface(name):
    import fcntl  # not everywhere

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe, GET_INTERFACE_ADDRESS, struct.pack('256s', name.encode()[:15]))
        except OSError as error:
            raise TrainingError(f'DMLC_INTERFACE {name} has no address ({error.strerror}); ip addr shows all') from None
    return socket.inet_ntoa(answer[20:24])


def _read(stream, count, deadline=None):
    data = bytearray()
    while len(data) < count:
        if deadline is not None:
            stream.settimeout(max(0.001, deadline - time.monotonic()))
        piece = stream.recv(min(count - len(data), PIECE))
        if not piece:
            raise EOFError('it was closed')
        data += piece
    return bytes(data)
