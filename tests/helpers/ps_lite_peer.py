"""A stranger who speaks ps-lite's own protocol (ZMTP 3.0, protobuf) over a plain socket: it sends commands to the
servers of a run that it is not part of.
"""

import contextlib
import os
import socket
import struct

GREETING = b'\xff' + bytes(8) + b'\x7f' + b'\x03\x00' + b'NULL'.ljust(20, b'\0') + b'\0' + bytes(31)
FIRST_WORKER = (
    b'ps09'  # ps-lite reads number 9 from it, the first worker's; to ZeroMQ it is another name than ps9, which is taken
)


def send_command(port, body, head=0):
    """Send the parameter server on ``port`` of this machine a command with ``body``, as MXNet's
    ``_send_command_to_servers`` does.
    """
    with socket.create_connection(('127.0.0.1', port), timeout=10) as line:
        line.sendall(GREETING)
        receive(line, len(GREETING))
        ready = b'\x05READY' + named(b'Socket-Type', b'DEALER') + named(b'Identity', FIRST_WORKER)
        line.sendall(b'\x04' + bytes([len(ready)]) + ready)
        flags, size = receive(line, 2)
        assert flags == 4, 'ZeroMQ was to answer with its own READY'
        receive(line, size)
        meta = field(1, head) + field(2, body) + field(4, 1) + field(6, 1) + field(7, 0) + field(8, 0) + field(10, 0)
        line.sendall(b'\x02' + struct.pack('>Q', len(meta)) + meta)
        line.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError):
            while line.recv(4096):  # until the server has read everything and closes
                pass


def named(name, value):
    """A property of ZMTP's READY."""
    return bytes([len(name)]) + name + struct.pack('>I', len(value)) + value


def field(number, value):
    """A field of a protobuf message: an int or bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value):
    found = b''
    while value > 127:
        found += bytes([value & 127 | 128])
        value >>= 7
    return found + bytes([value])


def receive(line, count):
    data = b''
    while len(data) < count:
        piece = line.recv(count - len(data))
        assert piece, 'the connection was closed'
        data += piece
    return data


def listening_ports(pid):
    """The TCP ports on which a process listens."""
    inodes = set()
    for name in os.listdir(f'/proc/{pid}/fd'):
        with contextlib.suppress(OSError):
            inodes.add(os.readlink(f'/proc/{pid}/fd/{name}'))
    with open(f'/proc/{pid}/net/tcp', encoding='ascii') as table:
        rows = [line.split() for line in list(table)[1:]]
    return sorted(int(row[1].split(':')[1], 16) for row in rows if row[3] == '0A' and f'socket:[{row[9]}]' in inodes)
