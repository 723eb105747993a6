"""JPEGs that are about as large as ImageNet's and take as long to decode, in folders or a record file, for measurements
without ImageNet.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from formats.record_file import RecordWriter
from runtime import usable_cores
from runtime.packages import cv2
from tools.records.progress import Progress
from tools.records.workers import in_order

CLASSES = 100
SIDES = 300, 500  # pixels, both sides
CANVAS = 1024
QUALITY = 90
STRETCH = 200


def write_jpegs(folder: str, count: int, jobs: int) -> None:
    """Write JPEGs 0 … count - 1 into ``folder`` by ``jobs`` processes; those that exist stay. The same number is the
    same image everywhere.
    """
    stretches = [(folder, begin, min(begin + STRETCH, count)) for begin in range(0, count, STRETCH)]
    for number in range(min(CLASSES, count)):
        os.makedirs(os.path.join(folder, _class(number)), exist_ok=True)
    with Progress(count) as progress:
        for written in in_order(_write_stretch, stretches, jobs):
            progress.add(written)


def write_records(folder: str, count: int) -> str:
    """A record file of JPEGs 0 … count - 1 in ``folder``, made unless it exists; returns its path."""
    path = os.path.join(folder, f'synthetic-{count}.rec')
    index = f'{os.path.splitext(path)[0]}.idx'
    if not (os.path.exists(path) and os.path.exists(index)):
        canvas = _canvas()
        # Threads are enough, since OpenCV does not hold Python's lock while it encodes. One stretch at a time is held
        # in memory.
        with RecordWriter(path, index) as out, ThreadPoolExecutor(usable_cores()) as threads, Progress(
            count
        ) as progress:
            for begin in range(0, count, STRETCH):
                numbers = range(begin, min(begin + STRETCH, count))
                for number, data in zip(numbers, threads.map(lambda number: _jpeg(canvas, number), numbers)):
                    out.write(number, number % CLASSES, data)
                progress.add(len(numbers))
    return path


def _write_stretch(stretch):
    folder, begin, end = stretch
    canvas = _canvas()
    for number in range(begin, end):
        path = os.path.join(folder, _class(number % CLASSES), f'{number:07d}.JPEG')
        if not os.path.exists(path):
            with open(f'{path}.part', 'wb') as out:
                out.write(_jpeg(canvas, number))
            os.replace(f'{path}.part', path)  # a file of this name is complete
    return end - begin


def _jpeg(canvas, number):
    """The bytes of JPEG ``number``, a piece of the canvas."""
    random = np.random.RandomState(number)
    height, width = random.randint(SIDES[0], SIDES[1] + 1, 2)
    top, left = random.randint(0, CANVAS - SIDES[1], 2)
    pixels = np.roll(canvas[top : top + height, left : left + width], random.randint(3), axis=2)
    return cv2.imencode('.jpg', pixels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


def _canvas():
    """Noise that has the same power in every octave, as photographs have: uint8 (CANVAS, CANVAS, 3)."""
    random = np.random.RandomState(0)
    total = np.zeros((CANVAS, CANVAS, 3), np.float32)
    for size in (4, 8, 16, 32, 64, 128, 256, 512, 1024):
        total += cv2.resize(
            random.normal(size=(size, size, 3)).astype(np.float32), (CANVAS, CANVAS), interpolation=cv2.INTER_CUBIC
        )
    return np.clip(128 + 18 * total, 0, 255).astype(np.uint8)


def _class(number):
    return f'n{number:08d}'
