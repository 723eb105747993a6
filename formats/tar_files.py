"""Members of a tar file, compressed by gzip or not. The sizes that the archive says are checked before use."""

import gzip
import tarfile
import zlib
from typing import BinaryIO, Callable, Dict, Optional, Union

from runtime.errors import DataError
from runtime.reading import open_regular

GZIP_MAGIC = b'\x1f\x8b'
# What tarfile and gzip raise for damage. A chain of headers that extend each other makes tarfile call itself.
DAMAGE = (tarfile.TarError, EOFError, OSError, zlib.error, ValueError, OverflowError, RecursionError)


def read_members(
    path: str, wanted: Callable[[str], Optional[str]], most: int, most_of_one: int, remedy: str
) -> Dict[str, bytes]:
    """The regular files of the archive ``path`` for which ``wanted(name in the archive)`` is not None: a dict from what
    it returns to the contents. Of files of the same name, the last counts.

    Raises DataError, ending in ``remedy``, where the archive is damaged, has more than ``most`` bytes once unpacked,
    or a wanted file more than ``most_of_one``.
    """
    found = {}
    with open_regular(path, most) as source:
        is_packed = source.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        source.seek(0)
        contents = _Limited(gzip.GzipFile(fileobj=source) if is_packed else source, most)
        try:
            # 'r|': read once from front to back, so that no length in it leads back.
            # A stream needs nothing but read(), though its type asks for all of a file.
            with tarfile.open(fileobj=contents, mode='r|') as archive:  # type: ignore[call-overload]
                for member in archive:
                    name = wanted(member.name) if member.isreg() else None
                    if name is None:
                        continue
                    if member.size > most_of_one:
                        raise DataError(f'{member.name} has {member.size:,} bytes, more than {most_of_one:,}')
                    found[name] = archive.extractfile(member).read()
        except DAMAGE as error:
            raise DataError(f'{path}: {" ".join(str(error).split())[:200] or type(error).__name__}; {remedy}') from None
    return found


class _Limited:
    """A file that ends in DataError after ``most`` bytes: a megabyte of gzip may hold a gigabyte of zeros."""

    def __init__(self, source: Union[BinaryIO, gzip.GzipFile], most: int) -> None:
        self._source, self._left, self._most = source, most, most

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes. Raises DataError once more than ``most`` were read."""
        data = self._source.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise DataError(f'has more than {self._most:,} bytes once unpacked')
        return data
