"""Record files of made-up photographs, as many as are wanted: the sizes, bytes and detail of ImageNet's, for measuring without ImageNet."""
import os
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import tqdm

from runtime import usable_cores
from runtime.record_file import RecordWriter

CLASSES = 1000
SIDES = 300, 500  # pixels, each side uniform between
QUALITY = 90
FIELDS, FIELD_SIDE = 8, 1024
AT_ONCE = 256


def synthetic_records(count, folder, seed=0):
    """Write ``count`` JPEGs of about 110 KB to a .rec in ``folder`` unless it is there already; returns its path. The same seed gives the same bytes."""
    path = os.path.join(folder, f'synthetic-{count}-seed{seed}.rec')
    index = path[:-4] + '.idx'
    if os.path.exists(path) and os.path.exists(index):
        return path
    fields = photo_like_fields(seed)
    with RecordWriter(path, index) as out, ThreadPoolExecutor(usable_cores()) as threads, tqdm.tqdm(total=count, unit='image', disable=None) as bar:
        for first in range(0, count, AT_ONCE):
            numbers = range(first, min(first + AT_ONCE, count))
            for number, image in zip(numbers, threads.map(lambda number: photo_like(fields, seed, number), numbers)):
                out.write(number, number % CLASSES, image)
            bar.update(len(numbers))
    return path


def photo_like_fields(seed):
    """Noise (FIELDS, side, side) float32 of mean 0 and deviation 1, whose amplitude falls with the frequency as it does in photographs."""
    generator = np.random.default_rng([seed, 0])
    frequency = np.hypot(np.fft.fftfreq(FIELD_SIDE)[:, None], np.fft.rfftfreq(FIELD_SIDE)[None])
    frequency[0, 0] = np.inf
    fields = np.stack([np.fft.irfft2(np.fft.rfft2(generator.standard_normal((FIELD_SIDE, FIELD_SIDE))) / frequency) for _ in range(FIELDS)])
    return (fields / fields.std(axis=(1, 2), keepdims=True)).astype(np.float32)


def photo_like(fields, seed, number):
    """The bytes of JPEG ``number``: a piece of a field for what is light and dark, and weaker ones for the colours."""
    generator = np.random.default_rng([seed, 1, 1 + number])
    height, width = generator.integers(SIDES[0], SIDES[1] + 1, 2)
    light, blue, red = (_piece(fields, generator, height, width) for _ in range(3))
    light = generator.uniform(90, 150) + generator.uniform(45, 75) * light
    planes = [cv2.addWeighted(light, 1, colour, weight, 0, dtype=cv2.CV_8U) for colour, weight in ((blue, 20), (blue, 0), (red, 20))]
    return cv2.imencode('.jpg', cv2.merge(planes), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


def _piece(fields, generator, height, width):
    top, left = generator.integers(0, FIELD_SIDE - height), generator.integers(0, FIELD_SIDE - width)
    return np.ascontiguousarray(fields[generator.integers(FIELDS), top:top + height, left:left + width])
