"""The label of each image: classes are numbered in the order of their names, and the official development kit has the
classes of validation images.
"""

import os
import re
from collections import Counter
from typing import Iterable, List, NamedTuple, Optional, Tuple

import numpy as np

from formats.json_shape import misfit
from formats.matlab_file import read_table
from formats.tar_files import read_members
from runtime.errors import DataError
from runtime.reading import MB, read_bytes, read_json, read_text

from .manifest import MAX_BYTES as MAX_MANIFEST
from .sources import Image

MAX_CLASS_LIST = 16 * MB
# The kit has 3 MB unpacked.
MAX_DEVKIT, MAX_DEVKIT_FILE = 64 * MB, 8 * MB
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
    Images without classes are those of the validation set, whose labels are in ``devkit`` (a folder or ``.tar.gz``).
    Raises DataError.
    """
    kit = read_devkit(devkit) if devkit else None
    if not images[0].class_name:
        if kit is None:
            raise DataError(
                f'{images[0].path}: the images are in no class folders: give --devkit, which has the labels of the '
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
    if path.endswith('.json'):
        manifest = read_json(path, MAX_MANIFEST)
        if misfit(manifest, {'classes': [str]}):
            raise DataError(f'{path}: not a manifest of tools/make_record.py')
        classes = manifest['classes']
    else:
        text = read_text(path, MAX_CLASS_LIST)
        classes = [line.strip() for line in text.splitlines() if line.strip()]
        first_words = [line.split()[0] for line in classes]
        if not set(present) <= set(classes) and set(present) <= set(first_words):
            classes = first_words
    if not classes:
        raise DataError(f'{path}: not a list of classes')
    twice = next((name for name, count in Counter(classes).items() if count > 1), None)
    if twice is not None:
        raise DataError(f'{path} lists the class {twice!r} twice')
    return classes


def read_devkit(path: str) -> Devkit:
    """The Devkit out of ILSVRC2012_devkit_t12, as ``.tar.gz`` or unpacked. Raises DataError."""
    files = _devkit_files(path)
    missing = next((name for name in (META, TRUTH) if name not in files), None)
    if missing:
        raise DataError(
            f'{path}: data/{missing} is not in it; give ILSVRC2012_devkit_t12.tar.gz, or the folder that it unpacks to'
        )
    wnids, truth = _wnids(files[META], path), files[TRUTH]
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
    rows = read_table(meta, f'{path}: {META}', 'synsets', ('ILSVRC2012_ID', 'WNID'))
    found = {
        row['ILSVRC2012_ID']: str(row['WNID']) for row in rows if row['ILSVRC2012_ID'] in range(1, DEVKIT_CLASSES + 1)
    }
    if sorted(found) != list(range(1, DEVKIT_CLASSES + 1)) or len(set(found.values())) < DEVKIT_CLASSES:
        raise DataError(f'{path}: {META} does not name {DEVKIT_CLASSES} classes')
    return found


def _devkit_files(path):
    """The bytes of ``data/meta.mat`` and of the ground truth in the kit, by name, where they are in it."""
    if not os.path.isdir(path):
        if not os.path.exists(path):
            raise DataError(f'{path}: there is no such development kit')
        return read_members(path, _devkit_name, MAX_DEVKIT, MAX_DEVKIT_FILE, 'not the development kit, or damaged')
    found = {}
    for folder in (path, *sorted(entry.path for entry in os.scandir(path) if entry.is_dir())):
        for name in (META, TRUTH):
            places = os.path.join(folder, 'data', name), os.path.join(folder, name)
            place = next(filter(os.path.isfile, places), None)
            if place and name not in found:
                found[name] = read_bytes(place, MAX_DEVKIT_FILE)
    return found


def _devkit_name(member):
    return next((name for name in (META, TRUTH) if member.endswith(f'data/{name}')), None)


def _validation_label(image, kit):
    numbered = NUMBERED.search(image.name)
    number = int(numbered.group(1)) if numbered else 0
    if not 1 <= number <= len(kit.labels):
        raise DataError(
            f'{image.name} is not named like a validation image, ILSVRC2012_val_00000001.JPEG … {len(kit.labels):08d}'
        )
    return kit.labels[number - 1]
