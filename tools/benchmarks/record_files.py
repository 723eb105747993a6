"""How fast record files are made and read back, compared with decoding alone."""

import argparse
import contextlib
import os
import resource
import tempfile
import time
from typing import Callable, Dict, List

import numpy as np

from formats.record_file import RecordFile
from runtime.packages import cv2
from tools.records.labels import label_images
from tools.records.sources import find_images
from tools.records.verifying import faults
from tools.records.writing import make_plan, write_set

from .report import TableRow
from .synthetic_jpegs import write_jpegs

DECODED = 2000  # images that decoding is measured on, at most
USERS = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN


def measure(args: argparse.Namespace) -> List[TableRow]:
    """A row for each step, on ``args.images`` synthetic JPEGs in ``args.folder``, which is kept, or in a temporary
    folder.
    """
    with contextlib.ExitStack() as stack:
        folder = args.folder or stack.enter_context(tempfile.TemporaryDirectory(prefix='records-'))
        sets = stack.enter_context(
            tempfile.TemporaryDirectory(
                prefix='sets-', dir=args.folder and os.path.dirname(os.path.abspath(args.folder))
            )
        )
        write_jpegs(folder, args.images, args.jobs)
        images = find_images(folder)[: args.images]
        classes, labels = label_images(images)
        original, resized = os.path.join(sets, 'original'), os.path.join(sets, 'resized')
        megabytes = sum(os.path.getsize(image.path) for image in images) / 1e6
        steps: Dict[str, Callable[[], object]] = {
            'make, original bytes': lambda: write_set(original, make_plan(classes, images, labels, seed=0), args.jobs),
            'make, --resize 256': lambda: write_set(
                resized, make_plan(classes, images, labels, short_side=256, seed=0), args.jobs
            ),
            'verify': lambda: list(faults(original, args.jobs)),
            'read records': lambda: _read(original),
            'labels of records': lambda: RecordFile(f'{original}.rec', f'{original}.idx').labels(),
        }
        rows = [_row(name, step, len(images), megabytes) for name, step in steps.items()]
        few = images[:DECODED]
        data = [image.read() for image in few]
        return [*rows, _row('decode with OpenCV', lambda: _decode(data), len(few), sum(map(len, data)) / 1e6)]


def _row(name, step, images, megabytes):
    wall, processor = time.perf_counter(), _processor_time()
    step()
    wall, processor = time.perf_counter() - wall, _processor_time() - processor
    peak = max(usage.ru_maxrss for usage in map(resource.getrusage, USERS))
    return {
        'step': name,
        'images': images,
        'images/s': images / wall,
        'images/s/core': images / processor,
        'MB/s': megabytes / wall,
        'KB an image': 1e3 * megabytes / images,
        'peak MiB of a process so far': round(peak / 1024),
    }


def _processor_time():
    """Seconds that this process and the workers that have ended have computed."""
    return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, USERS))


def _read(prefix):
    with RecordFile(f'{prefix}.rec', f'{prefix}.idx') as records:
        for position in range(len(records)):
            records.read(position)


def _decode(data):
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    for one in data:
        cv2.imdecode(np.frombuffer(one, np.uint8), cv2.IMREAD_COLOR)
    cv2.setNumThreads(threads)
