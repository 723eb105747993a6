"""Photographs that can be told apart, made up: record files and folders of small JPEGs, whole and damaged, for tests of
the ImageNet pipeline.
"""

import os
import signal
import time

import cv2
import numpy as np

from formats.record_file import RecordWriter

COLOURS = ((200, 60, 60), (60, 200, 60), (60, 60, 200))


def picture(number, height=50, width=40, classes=3):
    """Blurred noise, uint8 (height, width, 3) BGR, tinted by the class ``number % classes``."""
    generator = np.random.default_rng(number)
    noise = cv2.GaussianBlur(generator.integers(0, 256, (height, width, 3), np.uint8), (0, 0), 1.5)
    return cv2.addWeighted(noise, 0.7, np.full_like(noise, COLOURS[number % classes]), 0.3, 0)


def jpeg(number, quality=90, **size):
    """The bytes of ``picture`` as a JPEG."""
    return cv2.imencode('.jpg', picture(number, **size), [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def save_records(path, images, labels=None):
    """Write ``images``, a list of bytes, as PATH.rec and PATH.idx, labelled 0, 1, 2, 0, … or by ``labels``; returns the
    name of the .rec.
    """
    labels = [number % 3 for number in range(len(images))] if labels is None else labels
    with RecordWriter(f'{path}.rec', f'{path}.idx') as out:
        for key, (image, label) in enumerate(zip(images, labels)):
            out.write(key, label, image)
    return f'{path}.rec'


def save_folders(folder, images, classes=('ant', 'bee', 'cat')):
    """Write ``images``, a list of bytes, into a folder for each of ``classes``, in turn."""
    for number, image in enumerate(images):
        place = os.path.join(str(folder), classes[number % len(classes)])
        os.makedirs(place, exist_ok=True)
        with open(os.path.join(place, f'{number:03d}.JPEG'), 'wb') as out:
            out.write(image)


def overwrite(path, offset, data):
    """Write ``data`` into a file at ``offset``."""
    with open(path, 'r+b') as file:
        file.seek(offset)
        file.write(data)


def offsets(rec):
    """Where each record of a .rec begins, by its .idx."""
    with open(rec[:-4] + '.idx') as lines:
        return [int(line.split('\t')[1]) for line in lines]


class Poisoned:
    """A source whose image number 5 ends the process that reads it, or lets it hang, by ``act``."""

    def __init__(self, source, act):
        self._source, self._act = source, act

    def __len__(self):
        return len(self._source)

    def read(self, position):
        if position == 5 and self._act == 'die':
            os.kill(os.getpid(), signal.SIGFPE)
        if position == 5 and self._act == 'hang':
            time.sleep(1000)
        return self._source.read(position)

    def name(self, position):
        return self._source.name(position)
