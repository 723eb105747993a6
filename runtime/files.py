"""Write files atomically: after an error or a kill, a file is whole or does not exist."""

import contextlib
import hashlib
import os
import tempfile
from typing import Iterator, List, Optional, Sequence

from .reading import MB, open_regular


@contextlib.contextmanager
def written_whole(path: str) -> Iterator[str]:
    """Give the name of a scratch file beside ``path``: on success it is renamed to ``path``, on an error it is removed.

    The scratch name keeps the ending of ``path``, since some libraries choose the format by it. The data is on the disk
    before the file gets its name.
    """
    with written_together([path]) as (scratch,), naming(os.path.abspath(path), scratch):
        yield scratch


@contextlib.contextmanager
def written_together(paths: Sequence[str]) -> Iterator[List[str]]:
    """Give the names of scratch files beside ``paths``. On success they are renamed to ``paths``; on any error they are
    removed, and the old files stay.

    The files belong together, and a process may be killed while it renames them. So all old files but the first are
    removed before, the last one first; then the first is replaced in one step. An old file is never beside a new one.
    """
    paths = [os.path.abspath(path) for path in paths]
    scratches: List[str] = []
    try:
        scratches += (_scratch(path) for path in paths)
        yield scratches
        for path, scratch in zip(paths, scratches):
            with naming(path, scratch), open(scratch, 'rb') as written:
                os.fsync(written.fileno())
        for path in reversed(paths[1:]):
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)
        for path, scratch in zip(paths, scratches):
            with naming(path, scratch):
                os.replace(scratch, path)
    except BaseException:
        for scratch in scratches:
            with contextlib.suppress(FileNotFoundError):
                os.remove(scratch)
        raise
    for folder in {os.path.dirname(path) for path in paths}:
        _sync_folder(folder)


def _scratch(path: str) -> str:
    """A new, empty file beside ``path``."""
    folder, name = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=folder, prefix='.' + name + '.', suffix=os.path.splitext(name)[1])
    os.close(handle)
    os.chmod(scratch, 0o666 & ~_umask())
    return scratch


@contextlib.contextmanager
def naming(path: str, scratch: Optional[str] = None) -> Iterator[None]:
    """Let an OSError from the block name ``path`` where it names no file (a full disk) or the ``scratch`` file, which
    the user does not know.
    """
    try:
        yield
    except OSError as error:
        if error.filename in (None, scratch):
            error.filename = path
        raise


def write_text(path: str, text: str) -> None:
    """Write ``text`` to ``path`` atomically, as UTF-8."""
    with written_whole(path) as scratch, open(scratch, 'w', encoding='utf-8') as out:
        out.write(text)


def sha256(path: str) -> str:
    """The SHA-256 sum of a regular file, as hexadecimal digits. Raises as ``runtime.reading.open_regular``."""
    total = hashlib.sha256()
    with open_regular(path) as data:
        for block in iter(lambda: data.read(MB), b''):
            total.update(block)
    return total.hexdigest()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder):
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
