"""Where images come from: record files or folders. A source has a length, and for each position the bytes of an image,
its class, and a name for the log.
"""

import logging
import os
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np

from formats.record_file import RecordFile
from runtime.errors import DataError
from runtime.reading import MB, read_bytes, read_json

from .fingerprint import fingerprint
from .image_augment import CentreView, RandomView
from .image_folders import ENDINGS, NO_CLASS, OUTSIDE, list_images, log_left_out

# What a record can hold, and far more than the names of all classes.
MAX_IMAGE_FILE, MAX_MANIFEST_BYTES = 512 * MB, 512 * MB


class RecordSource:
    """The images of ``rec``, whose index is ``idx``, or the file of the same name that ends in .idx; where there is
    none, the file is searched for records. Raises DataError where there are no records, OSError where a file cannot be
    opened.
    """

    def __init__(self, rec: str, idx: Optional[str] = None) -> None:
        beside = os.path.splitext(rec)[0] + '.idx'
        self._file = RecordFile(rec, idx or (beside if os.path.exists(beside) else None))
        if not len(self._file):
            raise DataError(f'{rec}: holds no records')
        self.classes: List[str] = _classes_of_manifest(os.path.splitext(rec)[0] + '.json')

    def __len__(self) -> int:
        return len(self._file)

    def fingerprint(self) -> Dict[str, Any]:
        """What identifies the data set. The sum is over the index and the size of the file: to read all images would
        take minutes.
        """
        return fingerprint(len(self), self._file.layout())

    def read(self, position: int) -> Tuple[bytes, float]:
        """(bytes of the image file, label). Raises DataError where the record is damaged, or its label is not one
        number.
        """
        record = self._file.read(position)
        if len(record.label) != 1:
            raise DataError(f'{self.name(position)}: its label has {len(record.label)} numbers, not one')
        return record.image, float(record.label[0])

    def name(self, position: int) -> str:
        """The name of an image in the log: the file and the record's key."""
        return f'{self._file.path}: record {self._file.keys[position]}'


def _classes_of_manifest(path: str) -> List[str]:
    """The names of the classes, in the order of their labels, by the manifest that tools/make_record.py writes beside
    its records; [] where there is none.
    """
    if not os.path.exists(path):
        return []
    manifest = read_json(path, MAX_MANIFEST_BYTES)
    classes = manifest.get('classes') if isinstance(manifest, dict) else None
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise DataError(f'{path}: not a manifest of tools/make_record.py; remove it, or make the records again')
    return classes


class FolderSource:
    """The images of ``folder``, which holds a folder for each class; the classes are numbered in the order of their
    names, or as ``classes`` lists them, where some may have no folder.

    Raises DataError where there are no such images, or a folder is none of ``classes``.
    """

    def __init__(self, folder: str, classes: Sequence[str] = ()) -> None:
        if not os.path.isdir(folder):
            raise DataError(
                f'{folder}: no such folder; --data-dir wants a folder with train/ and val/ in it, which hold a folder '
                'of images for each class, or with train.rec and val.rec'
            )
        self._folder = folder
        images, left_out = list_images(folder)
        left_out[OUTSIDE] += len(images.pop(NO_CLASS))
        log_left_out(folder, +left_out)
        if not images:
            raise DataError(
                f'{folder}: there are no class folders in it; sort the images into one folder a class, or make record '
                'files (tools/make_record.py)'
            )
        self.classes: List[str] = list(classes) or list(images)
        unknown = sorted(set(images).difference(self.classes))
        if unknown:
            raise DataError(
                f'{folder} has a folder {unknown[0]!r}, which is none of the {len(self.classes)} classes '
                f'({named(self.classes)})'
            )
        found = [images.get(name, []) for name in self.classes]
        # Arrays, not lists: processes share them, and a million strings would take each of them 100 MB.
        self._labels = np.repeat(np.arange(len(found)), [len(files) for files in found])
        self._names = np.array([os.fsencode(name) for files in found for name in files])
        if not len(self._names):
            raise DataError(f'{folder}: no images ({", ".join(ENDINGS)}) in its class folders')
        empty = [name for name, files in zip(self.classes, found) if not files]
        if empty:
            logging.warning(
                '%s: %d of the %d classes have no image here: %s', folder, len(empty), len(found), named(empty)
            )

    def __len__(self) -> int:
        return len(self._names)

    def fingerprint(self) -> Dict[str, Any]:
        """What identifies the data set. The sum is over the names and classes of the images: to read all of them would
        take minutes.
        """
        return fingerprint(len(self), [self._names, self._labels])

    def read(self, position: int) -> Tuple[bytes, float]:
        """(bytes of the image file, label). Raises DataError where the file cannot be read."""
        try:
            return read_bytes(self.name(position), MAX_IMAGE_FILE), float(self._labels[position])
        except OSError as error:
            raise DataError(f'{self.name(position)}: {error.strerror}') from None

    def name(self, position: int) -> str:
        """The name of an image in the log: its path."""
        return os.path.join(self._folder, self.classes[self._labels[position]], os.fsdecode(self._names[position]))


Source = Union[FolderSource, RecordSource]


def named(classes: Sequence[str]) -> str:
    """Names of classes for a line of text: the first ones, where they are many."""
    return ', '.join(classes[:6]) + (', ...' if len(classes) > 6 else '')


class ImageReader:
    """Reads the images of a source by a view of ``image_augment``, and checks that each class is one of
    ``num_classes``.
    """

    def __init__(self, source: Source, view: Union[CentreView, RandomView], num_classes: int) -> None:
        self.source, self._view, self._num_classes = source, view, num_classes

    def read_into(self, out: np.ndarray, position: int, draws: np.ndarray) -> float:
        """Write the image at ``position`` to ``out``, float32 (3, height, width), augmented by the row ``draws``;
        return its class. Raises DataError, naming the image, where it is damaged.
        """
        data, label = self.source.read(position)
        if not (label.is_integer() and 0 <= label < self._num_classes):
            raise DataError(
                f'{self.source.name(position)}: its label is {label:g}, which is none of the {self._num_classes} '
                'classes'
            )
        try:
            self._view(data, draws, out)
        except DataError as error:
            raise DataError(f'{self.source.name(position)} {error}') from None
        return label
