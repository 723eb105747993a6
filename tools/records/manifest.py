"""``PREFIX.json``: what is in a set of record files, what was done to images, and the sums by which damage is found."""

import os
import platform
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import PIL

from formats.json_shape import misfit
from runtime.errors import DataError
from runtime.files import sha256
from runtime.reading import MB, read_json

from .partial import Part, numbered
from .sources import Image

ENDINGS = ('rec', 'idx', 'lst')
# It lists every image that was encoded again: of a set of PNGs, all.
MAX_BYTES = 512 * MB
MANIFEST = {
    'records': int,
    'classes': [str],
    'records_per_class': [int],
    'files': {ending: {'bytes': int, 'sha256': str} for ending in ENDINGS},
}


class Plan(NamedTuple):
    """What goes into a set: the names of its classes by label, the images in the order of the records, their labels,
    int64 (N,), and what is done to the images.
    """

    classes: List[str]
    images: List[Image]
    labels: np.ndarray
    short_side: Optional[int]
    quality: int
    seed: Optional[int]


def set_paths(prefix: str) -> Tuple[str, ...]:
    """The files of a finished set: records, index, list, manifest."""
    return tuple(f'{prefix}.{ending}' for ending in (*ENDINGS, 'json'))


def describe(plan: Plan, parts: Sequence[Part], numbers: Sequence[int]) -> Dict[str, Any]:
    """The manifest, as plain values, of a set whose records are ``numbers`` of the images of ``plan``; without the sums
    of its files.
    """
    odd: Dict[str, List[Dict[str, Any]]] = {'encoded_again': [], 'left_out': []}
    for begin, part in numbered(parts):
        for position, why in part.odd.items():
            image = plan.images[begin + position]
            odd['encoded_again' if part.sizes[position] else 'left_out'].append(
                {'number': begin + position, 'name': image.name, 'why': why}
            )
    counts = (
        np.bincount(plan.labels[numbers], minlength=len(plan.classes)) if numbers else np.zeros(len(plan.classes), int)
    )
    return {
        'records': len(numbers),
        'classes': list(plan.classes),
        'records_per_class': counts.tolist(),
        'options': {'resize': plan.short_side, 'quality': plan.quality, 'shuffled_by_seed': plan.seed},
        **odd,
        'versions': {'python': platform.python_version(), 'numpy': np.__version__, 'pillow': PIL.__version__},
    }


def sums(prefix: str) -> Dict[str, Dict[str, Any]]:
    """The size in bytes and the SHA-256 sum of each file of a set, by its ending."""
    return {
        ending: {'bytes': os.path.getsize(f'{prefix}.{ending}'), 'sha256': sha256(f'{prefix}.{ending}')}
        for ending in ENDINGS
    }


def read_manifest(prefix: str) -> Dict[str, Any]:
    """The manifest of a set. Raises DataError where it is missing or no manifest."""
    path = f'{prefix}.json'
    manifest = read_json(path, MAX_BYTES, missing='the set was never finished, or was not made by tools/make_record.py')
    reason = misfit(manifest, MANIFEST)
    if reason:
        raise DataError(f'{path}: not a manifest of tools/make_record.py ({reason})')
    return manifest
