"""One process at a time writes under a prefix."""

import contextlib
import errno
import fcntl
import logging
import os
import socket
from typing import Iterator, Optional, TextIO

from runtime.errors import CheckpointError
from runtime.files import naming

# The errors of file systems without locks.
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def locked(prefix: Optional[str]) -> Iterator[None]:
    """Hold ``PREFIX.lock`` while the block runs; without a prefix, nothing is done.

    The file says which process holds it. The lock itself is the system's (flock), which ends with the process, even by
    a kill: the file of a killed process is taken over. Raises CheckpointError where another process holds it.
    """
    if not prefix:
        yield
        return
    path = f'{prefix}.lock'
    folder = os.path.dirname(os.path.abspath(path))
    is_new_folder = not os.path.isdir(folder)
    os.makedirs(folder, exist_ok=True)
    file = _acquire(path)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.remove(path)
        file.close()
        if is_new_folder:
            with contextlib.suppress(OSError):  # it holds files
                os.rmdir(folder)


def _acquire(path: str) -> TextIO:
    """The open file, locked, with this process's name in it."""
    while True:
        with naming(path):
            file = open(path, 'a+', encoding='utf-8', errors='replace')  # noqa: SIM115  (it stays open with the lock)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(file) or 'another process'
            file.close()
            raise CheckpointError(
                f'{path}: {holder} is writing there; wait until it has ended, or take another --model-prefix'
            ) from None
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                file.close()
                raise
            logging.warning('%s: this file system has no locks; see that no other run writes there', path)
        # Another process may have removed the file between its opening and its locking here.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                break
        file.close()
    left_by = _holder(file)
    if left_by:
        logging.info('%s was left by %s, which has ended; this run takes it over', path, left_by)
    file.seek(0)
    file.truncate()
    file.write(f'process {os.getpid()} on {socket.gethostname()}\n')
    file.flush()
    return file


def _holder(file: TextIO) -> str:
    file.seek(0)
    return file.read(200).strip()
