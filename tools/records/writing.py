"""Write a set of record files from a list of images: ``PREFIX.rec``, ``.idx`` and ``.lst`` for MXNet, and then
``PREFIX.json``, the manifest.
"""

import contextlib
import glob
import hashlib
import itertools
import json
import logging
import os
from typing import Any, Dict, List, Optional

import numpy as np
import PIL

from formats.record_format import framed, packed
from runtime.errors import DataError, UserError
from runtime.files import write_text

from .images import Undecodable, prepared
from .manifest import Plan, describe, set_paths, sums
from .partial import Part, Partial, numbered, partial_paths
from .progress import Progress
from .sources import Image
from .workers import in_order

PART = 128  # images


def make_plan(
    classes: List[str],
    images: List[Image],
    labels: np.ndarray,
    short_side: Optional[int] = None,
    quality: int = 95,
    seed: Optional[int] = None,
) -> Plan:
    """The Plan for ``images`` and their ``labels``, int64 (N,): in the given order, or shuffled by ``seed``."""
    if seed is not None:
        # RandomState never changes between versions of NumPy, so that a set can be made again.
        order = np.random.RandomState(seed).permutation(len(images))
        images, labels = [images[position] for position in order], labels[order]
    return Plan(classes, images, labels, short_side, quality, seed)


def refuse_finished(prefix: str) -> None:
    """Raise UserError where ``prefix`` has files that are not those of an unfinished run."""
    found = [path for path in set_paths(prefix) if os.path.exists(path)]
    if found and not os.path.exists(partial_paths(prefix)[1]):
        raise UserError(f'{found[-1]} is already there: give another PREFIX, or --force to replace the set')


def write_set(prefix: str, plan: Plan, jobs: int = 1, max_bad: float = 0.001, force: bool = False) -> Dict[str, Any]:
    """Write the set of ``plan`` with ``jobs`` processes, continuing an unfinished run, and return the manifest.

    The bytes do not depend on ``jobs`` and interruptions. Raises UserError where files of these names exist (``force``
    replaces them), DataError where more than the share ``max_bad`` of all images cannot be decoded; the records written
    so far then stay, for a run that allows more.
    """
    if not force:
        refuse_finished(prefix)
    total = len(plan.images)
    with Partial(prefix, _task(plan), force) as partial:
        done = sum(len(part.sizes) for part in partial.parts)
        if done:
            logging.info('%s: going on after %d of %d images', prefix, done, total)
        for begin, part in numbered(partial.parts):
            _log_odd(plan, begin, part)
        bad = sum(part.left_out for part in partial.parts)
        _require_good(prefix, bad, total, max_bad)
        with Progress(total, done) as progress:
            for part, records in in_order(_make_part, _tasks(plan, done), jobs):
                partial.add(part, records)
                _log_odd(plan, progress.done, part)
                progress.add(len(part.sizes))
                bad += part.left_out
                _require_good(prefix, bad, total, max_bad)
        return _finish(prefix, plan, partial)


def _task(plan):
    """What the bytes of a set depend on, to be compared with those of another run."""
    names = hashlib.sha256()
    for image, label in zip(plan.images, plan.labels):
        names.update(f'{label}\t{image.name}\n'.encode())
    return {
        'images': names.hexdigest(),
        '--resize': plan.short_side,
        '--quality': plan.quality,
        'Pillow': PIL.__version__,
    }


def _tasks(plan, done):
    for begin in range(done, len(plan.images), PART):
        end = begin + PART
        yield begin, plan.images[begin:end], plan.labels[begin:end].tolist(), plan.short_side, plan.quality


def _make_part(task):
    """The Part and the bytes of the records for a stretch of images; runs in a worker."""
    begin, images, labels, short_side, quality = task
    records, odd = [], {}
    for position, (image, label) in enumerate(zip(images, labels)):
        try:
            data, oddity = prepared(image.read(), short_side, quality)
            records.append(framed(packed(begin + position, label, data)))
        except Undecodable as error:
            records.append(b'')
            oddity = str(error)
        if oddity:
            odd[position] = oddity
    return Part([len(record) for record in records], odd), b''.join(records)


def _log_odd(plan, begin, part):
    for position, why in part.odd.items():
        name = plan.images[begin + position].name
        if part.sizes[position]:
            logging.info('%s: %s, encoded again as a JPEG in RGB', name, why)
        else:
            logging.warning('%s: left out, it cannot be decoded: %s', name, why)


def _require_good(prefix, bad, total, max_bad):
    if bad > max_bad * total:
        raise DataError(
            f'{bad} of {total} images cannot be decoded, which is more than --max-bad {max_bad:g} allows; the log '
            'names them: replace them, remove '
            f'{partial_paths(prefix)[1]} and start again, or repeat this with a larger --max-bad to go on'
        )


def _finish(prefix, plan, partial):
    _sweep(prefix)
    _, idx, lst, manifest = set_paths(prefix)
    with contextlib.suppress(FileNotFoundError):
        os.remove(manifest)  # from here on, and until it is written, the set counts as unfinished
    partial.name_records()
    sizes = list(itertools.chain.from_iterable(part.sizes for part in partial.parts))
    numbers = [number for number, size in enumerate(sizes) if size]
    offsets = itertools.accumulate([0] + [sizes[number] for number in numbers])
    write_text(idx, ''.join(f'{number}\t{offset}\n' for number, offset in zip(numbers, offsets)))
    write_text(lst, ''.join(f'{number}\t{plan.labels[number]:f}\t{plan.images[number].name}\n' for number in numbers))
    logging.info('%s: adding up checksums', prefix)
    contents = {**describe(plan, partial.parts, numbers), 'files': sums(prefix)}
    write_text(manifest, json.dumps(contents, indent=1) + '\n')
    partial.forget()
    return contents


def _sweep(prefix):
    """Remove the scratch files of killed runs; the lock of ``Partial`` keeps other processes from writing this set."""
    folder, name = os.path.split(os.path.abspath(prefix))
    for path in set_paths(name):
        for scratch in glob.glob(os.path.join(glob.escape(folder), f'.{glob.escape(path)}.*')):
            os.remove(scratch)
