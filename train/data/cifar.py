"""CIFAR-10 and CIFAR-100 from any of their official layouts, each file checked by its sum before it is used.

The layouts: a folder of binary files, a folder of Python pickles, and a .tar.gz of either, which is read where it is
and never unpacked.
"""

import hashlib
import os
from typing import Callable, List, NamedTuple, Tuple

import numpy as np

from formats.tar_files import read_members
from runtime.errors import DataError
from runtime.reading import MB, read_bytes

from .arrays import Split
from .cifar_pickle import read_batch

PIXELS = 3 * 32 * 32
HOME = 'https://www.cs.toronto.edu/~kriz/'
# The Python versions have 186 MB unpacked.
MAX_ARCHIVE = 512 * MB


class Part(NamedTuple):
    """One file of images, in both forms: ``name`` is the pickle, ``name``.bin the binary file."""

    name: str
    records: int
    sha1: str  # of the binary file; MXNet's gluon.data.vision checks by the same sums
    md5: str  # of the pickle, the sum that its web page and torchvision give


class Cifar(NamedTuple):
    """One of the two data sets. A binary record is ``label_bytes`` labels, the last of which counts, and 3072 bytes of
    pixels (3, 32, 32).
    """

    name: str
    label_bytes: int
    folder_names: Tuple[str, str]  # of the binary and the Python version
    archive_names: Tuple[str, str]
    labels_key: bytes  # of the pickles
    train: Tuple[Part, ...]
    test: Tuple[Part, ...]

    @property
    def parts(self) -> Tuple[Part, ...]:
        """The files of training images, then those of test images."""
        return self.train + self.test


CIFAR10 = Cifar(
    'cifar10',
    1,
    ('cifar-10-batches-bin', 'cifar-10-batches-py'),
    ('cifar-10-binary.tar.gz', 'cifar-10-python.tar.gz'),
    b'labels',
    train=(
        Part('data_batch_1', 10000, 'aadd24acce27caa71bf4b10992e9e7b2d74c2540', 'c99cafc152244af753f735de768cd75f'),
        Part('data_batch_2', 10000, 'c0ba65cce70568cd57b4e03e9ac8d2a5367c1795', 'd4bba439e000b95fd0a9bffe97cbabec'),
        Part('data_batch_3', 10000, '1dd00a74ab1d17a6e7d73e185b69dbf31242f295', '54ebc095f3ab1f0389bbae665268c751'),
        Part('data_batch_4', 10000, 'aab85764eb3584312d3c7f65fd2fd016e36a258e', '634d18415352ddfa80567beed471001a'),
        Part('data_batch_5', 10000, '26e2849e66a845b7f1e4614ae70f4889ae604628', '482c414d41f54cd18b22e5b47cb7c3cb'),
    ),
    test=(Part('test_batch', 10000, '67eb016db431130d61cd03c7ad570b013799c88c', '40351d587109b95175f43aff81a1287e'),),
)

CIFAR100 = Cifar(
    'cifar100',
    2,
    ('cifar-100-binary', 'cifar-100-python'),
    ('cifar-100-binary.tar.gz', 'cifar-100-python.tar.gz'),
    b'fine_labels',
    train=(Part('train', 50000, 'e207cd2e05b73b1393c74c7f5e7bea451d63e08e', '16019d7e3df5f24257cddd939b257f8d'),),
    test=(Part('test', 10000, '8fb6623e830365ff53cf14adec797474f5478006', 'f0ef6b0ae62326f3e7ffdfab6717acfc'),),
)


class Source(NamedTuple):
    """A place that holds files of one layout."""

    where: str  # for messages
    python: bool  # pickles, not binary files
    present: Tuple[str, ...]  # names of the files there, whole or not
    read: Callable[[str], bytes]  # from the name of a file to its contents


def read_cifar(cifar: Cifar, path: str) -> Split:
    """Read ``cifar`` (CIFAR10 or CIFAR100) from ``path``: a folder with one of the layouts, the folder around it, or an
    archive.

    Returns (train images, train labels, test images, test labels): uint8 (N, 3, 32, 32) and int32 (N,), for CIFAR-100
    the fine labels. Raises DataError where there are no such files, one is missing, or one differs from the official
    file.
    """
    if not os.path.exists(path):
        raise DataError(f'{path}: no such folder or file; --data-dir is the folder that holds {_wanted(cifar)}')
    sources = find_sources(cifar, path)
    if not sources:
        raise DataError(f'{path}: no {cifar.name} files here; expected one of {_wanted(cifar)}')
    # Where several layouts are there, the one that lacks the fewest files is read.
    source = min(sources, key=lambda candidate: len(missing(cifar, candidate)))
    if missing(cifar, source):
        raise DataError(
            f'{source.where}: {cifar.name} is incomplete, {", ".join(missing(cifar, source))} missing; get the rest, '
            'or the whole archive, '
            f'from {HOME}cifar.html'
        )
    return read_source(cifar, source)


def read_source(cifar: Cifar, source: Source) -> Split:
    """As ``read_cifar``, from a source that lacks no file."""
    return _read_parts(cifar, source, cifar.train) + _read_parts(cifar, source, cifar.test)


def find_sources(cifar: Cifar, path: str) -> List[Source]:
    """Every Source in, or directly below, the folder ``path``; or the one that the archive ``path`` is. Raises
    DataError for a damaged archive.
    """
    if not os.path.isdir(path):
        return [_archive(cifar, path)]
    found = []
    for python in (False, True):
        folders = [_folder(cifar, folder, python) for folder in (path, os.path.join(path, cifar.folder_names[python]))]
        found += [folder for folder in folders if folder.present]
    archives = [os.path.join(path, name) for name in cifar.archive_names]
    # It takes seconds to read an archive, so it is read only where no folder is whole.
    if all(missing(cifar, folder) for folder in found):
        found += [_archive(cifar, archive) for archive in archives if os.path.isfile(archive)]
    return found


def missing(cifar: Cifar, source: Source) -> List[str]:
    """The names of the files that ``source`` lacks."""
    return [name for name in (file_name(part, source.python) for part in cifar.parts) if name not in source.present]


def check_sum(
    where: str, data: bytes, algorithm: str, expected: str, remedy: str = 'delete it and get it again'
) -> None:
    """Raise DataError, which names ``where`` and the ``remedy``, unless ``data`` has the sum ``expected`` by the
    ``algorithm`` of hashlib.
    """
    found = hashlib.new(algorithm, data).hexdigest()
    if found != expected:
        raise DataError(
            f'{where}: not the official file: its {algorithm} sum is {found}, expected {expected} (it has '
            f'{len(data):,} bytes); {remedy}'
        )


def file_name(part: Part, python: bool) -> str:
    """The name of ``part`` in the Python or the binary version."""
    return part.name if python else part.name + '.bin'


def _read_parts(cifar, source, parts):
    images, labels = zip(*(_read_part(cifar, source, part) for part in parts))
    return np.concatenate(images), np.concatenate(labels).astype(np.int32)


def _read_part(cifar, source, part):
    """uint8 (N, 3, 32, 32) and labels (N,)"""
    name = file_name(part, source.python)
    data = source.read(name)
    where = os.path.join(source.where, name)
    if source.python:
        # Only the official pickle is read, though the reader runs nothing.
        check_sum(where, data, 'md5', part.md5)
        pixels, labels = read_batch(data, cifar.labels_key)
        return pixels.reshape(-1, 3, 32, 32), labels
    check_sum(where, data, 'sha1', part.sha1)
    records = np.frombuffer(data, np.uint8).reshape(part.records, cifar.label_bytes + PIXELS)
    return records[:, cifar.label_bytes :].reshape(-1, 3, 32, 32), records[:, cifar.label_bytes - 1]


def _folder(cifar, folder, python):
    names = [file_name(part, python) for part in cifar.parts]
    present = tuple(name for name in names if os.path.isfile(os.path.join(folder, name)))

    def read(name):
        return read_bytes(os.path.join(folder, name), _size_limit(cifar))

    return Source(folder, python, present, read)


def _archive(cifar, path):
    """The Source of an archive. All its files are read at once, since a .tar.gz can only be read from the front."""
    names = {file_name(part, python): python for part in cifar.parts for python in (False, True)}
    contents = read_members(
        path,
        lambda member: os.path.basename(member) if os.path.basename(member) in names else None,
        MAX_ARCHIVE,
        _size_limit(cifar),
        'a damaged or unfinished archive: delete it and get it again',
    )
    python = not any(name.endswith('.bin') for name in contents)
    return Source(path, python, tuple(name for name in contents if names[name] == python), contents.__getitem__)


def _size_limit(cifar):
    """More than the largest official file has, so that a forged archive cannot fill the memory."""
    return 2 * max(part.records for part in cifar.parts) * PIXELS


def _wanted(cifar):
    return ', '.join(cifar.folder_names + cifar.archive_names)
