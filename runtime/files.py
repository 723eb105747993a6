"""Files that are either there, whole, or not there at all."""

import contextlib
import hashlib
import os
import tempfile

from .reading import MB, open_regular


@contextlib.contextmanager
def written_whole(path):
    """Give the name of a scratch file beside ``path``; on success it becomes ``path``, on any error it vanishes.

    The scratch name keeps the ending of ``path``, since some libraries choose the format by it. Data reaches the disk
    before the name does.
    """
    path = os.path.abspath(path)
    folder, name = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=folder, prefix='.' + name + '.', suffix=os.path.splitext(name)[1])
    os.close(handle)
    os.chmod(scratch, 0o666 & ~_umask())
    try:
        with naming(path, scratch):
            yield scratch
            with open(scratch, 'rb') as written:
                os.fsync(written.fileno())
            os.replace(scratch, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.remove(scratch)
        raise
    _sync_folder(folder)


@contextlib.contextmanager
def naming(path, scratch=None):
    """Let an OSError from within name ``path``: that of a full disk names no file, and a ``scratch`` file means nothing
    to anybody.
    """
    try:
        yield
    except OSError as error:
        if error.filename in (None, scratch):
            error.filename = path
        raise


def write_text(path, text):
    """Write ``text`` to ``path`` atomically, as UTF-8."""
    with written_whole(path) as scratch, open(scratch, 'w', encoding='utf-8') as out:
        out.write(text)


def sha256(path):
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
