"""Which label each image has: classes are numbered in the order of their names, and the official development kit tells
the class of validation images.
"""

import io
import json
import os
import re
import tarfile
from collections import Counter
from typing import Iterable, List, NamedTuple, Optional, Tuple

import numpy as np

from runtime.errors import DataError

from .sources import Image

TRUTH = 'ILSVRC2012_validation_ground_truth.txt'
META = 'meta.mat'
# The kit numbers the synsets that are classes from 1 to this; higher numbers are their ancestors.
DEVKIT_CLASSES = 1000
NUMBERED = re.compile(r'_(\d{8})\.\w+$')


class Devkit(NamedTuple):
    """The classes (wnids, sorted) and the label of validation image 1, 2, …"""

    classes: List[str]
    labels: np.ndarray


def label_images(
    images: List[Image], devkit: Optional[str] = None, classes_path: Optional[str] = None
) -> Tuple[List[str], np.ndarray]:
    """The names of all classes, by label, and the label of each image, int64.

    Images in classes need nothing else; ``classes_path`` or ``devkit`` fix the numbers where classes may be missing.
    Images without classes are those of the validation set, whose labels ``devkit`` (a folder or ``.tar.gz``) tells.
    Raises DataError.
    """
    kit = read_devkit(devkit) if devkit else None
    if not images[0].class_name:
        if kit is None:
            raise DataError(
                f'{images[0].path}: the images stand in no class folders: give --devkit, which tells the labels of the '
                'validation set'
            )
        return kit.classes, np.array([_validation_label(image, kit) for image in images], np.int64)
    present = {image.class_name for image in images}
    classes = kit.classes if kit else read_classes(classes_path, present) if classes_path else sorted(present)
    unknown = sorted(present.difference(classes))
    if unknown:
        raise DataError(f'{unknown[0]} is none of the {len(classes)} classes of {devkit or classes_path}')
    numbers = {name: label for label, name in enumerate(classes)}
    return classes, np.array([numbers[image.class_name] for image in images], np.int64)


def read_classes(path: str, present: Iterable[str] = ()) -> List[str]:
    """The classes that a manifest (``PREFIX.json``) or a text file, one a line, lists by label.

    A line is the name of a class, which may hold spaces; where the first words of the lines name the classes that are
    ``present`` and the lines do not, they do: ``n01440764 tench, Tinca tinca``. Raises DataError, OSError.
    """
    with open(path, encoding='utf-8', errors='replace') as source:
        text = source.read()
    if path.endswith('.json'):
        try:
            classes = list(json.loads(text)['classes'])
        except (ValueError, KeyError, TypeError):
            raise DataError(f'{path}: not a manifest of tools/make_record.py') from None
    else:
        classes = [line.strip() for line in text.splitlines() if line.strip()]
        first_words = [line.split()[0] for line in classes]
        if not set(present) <= set(classes) and set(present) <= set(first_words):
            classes = first_words
    if not classes or not all(isinstance(name, str) for name in classes):
        raise DataError(f'{path}: not a list of classes')
    twice = next((name for name, count in Counter(classes).items() if count > 1), None)
    if twice is not None:
        raise DataError(f'{path} lists the class {twice!r} twice')
    return classes


def read_devkit(path: str) -> Devkit:
    """The Devkit out of ILSVRC2012_devkit_t12, as ``.tar.gz`` or unpacked. Raises DataError."""
    meta, truth = _devkit_file(path, META), _devkit_file(path, TRUTH)
    wnids = _wnids(meta, path)
    try:
        numbers = np.array(truth.split(), np.int64)
    except (ValueError, OverflowError):
        numbers = np.zeros(1, np.int64)
    if not len(numbers) or numbers.min() < 1 or numbers.max() > DEVKIT_CLASSES:
        raise DataError(f'{path}: {TRUTH} is not numbers from 1 to {DEVKIT_CLASSES}')
    classes = sorted(wnids.values())
    label_of = {name: label for label, name in enumerate(classes)}
    return Devkit(classes, np.array([label_of[wnids[number]] for number in numbers], np.int64))


def _wnids(meta, path):
    """The wnid of each of the kit's numbers 1 … 1000."""
    from scipy.io import loadmat

    try:
        synsets = loadmat(io.BytesIO(meta), squeeze_me=True)['synsets']
        numbers, wnids = (
            [entry.item() if isinstance(entry, np.ndarray) else entry for entry in synsets[field]]
            for field in ('ILSVRC2012_ID', 'WNID')
        )
        found = {int(number): str(wnid) for number, wnid in zip(numbers, wnids) if int(number) <= DEVKIT_CLASSES}
    except Exception as error:  # A damaged file can fail in any way there is.
        raise DataError(f'{path}: {META} cannot be read ({type(error).__name__}: {error})') from None
    if sorted(found) != list(range(1, DEVKIT_CLASSES + 1)) or len(set(found.values())) < DEVKIT_CLASSES:
        raise DataError(f'{path}: {META} does not name {DEVKIT_CLASSES} classes')
    return found


def _devkit_file(path, name):
    """The bytes of ``data/name`` in the kit."""
    if os.path.isdir(path):
        for folder in (path, *sorted(entry.path for entry in os.scandir(path) if entry.is_dir())):
            for found in (os.path.join(folder, 'data', name), os.path.join(folder, name)):
                if os.path.isfile(found):
                    with open(found, 'rb') as source:
                        return source.read()
    elif os.path.exists(path):
        try:
            with tarfile.open(path) as archive:
                for member in archive:
                    if member.isreg() and member.name.endswith(f'data/{name}'):
                        return archive.extractfile(member).read()
        except (tarfile.TarError, EOFError, OSError, ValueError) as error:
            raise DataError(f'{path}: not the development kit, or damaged ({error})') from None
    else:
        raise DataError(f'{path}: there is no such development kit')
    raise DataError(
        f'{path}: data/{name} is not in it; give ILSVRC2012_devkit_t12.tar.gz, or the folder that it unpacks to'
    )


def _validation_label(image, kit):
    numbered = NUMBERED.search(image.name)
    number = int(numbered.group(1)) if numbered else 0
    if not 1 <= number <= len(kit.labels):
        raise DataError(
            f'{image.name} is not named like a validation image, ILSVRC2012_val_00000001.JPEG … {len(kit.labels):08d}'
        )
    return kit.labels[number - 1]
