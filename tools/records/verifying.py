"""Verify a finished set by reading it back: sums, framing, every image, labels and counts."""

import functools
import os
from typing import Iterator

import numpy as np

from formats.record_file import RecordFile
from runtime.errors import DataError
from runtime.files import sha256
from runtime.reading import MB, read_text

from .images import Undecodable, require_readable
from .manifest import ENDINGS, read_manifest, set_paths
from .progress import Progress
from .workers import in_order

STRETCH = 128  # records
MAX_LIST = 512 * MB


def faults(prefix: str, jobs: int = 1) -> Iterator[str]:
    """Yield each fault of the set of ``prefix`` as a line, reading all of it with ``jobs`` processes. Raises DataError
    where it has no manifest, UserError where a process is killed.
    """
    manifest = read_manifest(prefix)
    missing = [path for path in set_paths(prefix) if not os.path.exists(path)]
    yield from (f'{path}: there is no such file' for path in missing)
    if not missing:
        yield from _faults_of_files(prefix, manifest)
        yield from _faults_of_records(prefix, manifest, jobs)


def _faults_of_files(prefix, manifest):
    for ending in ENDINGS:
        path, expected = f'{prefix}.{ending}', manifest['files'][ending]
        if os.path.getsize(path) != expected['bytes']:
            yield f'{path}: has {os.path.getsize(path)} bytes, {expected["bytes"]} were written'
        elif sha256(path) != expected['sha256']:
            yield f'{path}: is not what was written, its SHA-256 sum has changed'


def _faults_of_records(prefix, manifest, jobs):
    try:
        records = RecordFile(f'{prefix}.rec', f'{prefix}.idx')
        listed = _read_list(f'{prefix}.lst')
    except DataError as error:
        yield str(error)
        return
    if len(records) != manifest['records']:
        yield f'{prefix}.idx: lists {len(records)} records, {manifest["records"]} were written'
    if not np.array_equal(records.keys, list(listed)):
        yield f'{prefix}.lst: does not list the records that {prefix}.idx lists'
    counts = [0] * len(manifest['classes'])
    with Progress(len(records)) as progress:
        for labels, found in in_order(_read_stretch, _stretches(prefix, len(records)), jobs):
            for key, label in labels.items():
                if label != listed.get(key, (label,))[0]:
                    yield f'{prefix}.rec: record {key} has label {label:g}, {prefix}.lst says {listed[key][0]:g}'
                if label in range(len(counts)):
                    counts[int(label)] += 1
            yield from (f'{message} ({listed[key][1]})' if key in listed else message for key, message in found.items())
            progress.add(len(labels) + len(found))
    for name, count, expected in zip(manifest['classes'], counts, manifest['records_per_class']):
        if count != expected:
            yield f'{prefix}.rec: class {name} has {count} readable records, {expected} were written'


def _stretches(prefix, count):
    return ((prefix, begin, min(begin + STRETCH, count)) for begin in range(0, count, STRETCH))


def _read_stretch(stretch):
    """By key, the label of each readable record and what is wrong with the others; runs in a worker."""
    prefix, begin, end = stretch
    records = _records(prefix)
    labels, found = {}, {}
    for position in range(begin, end):
        key = int(records.keys[position])
        try:
            record = records.read(position)
            require_readable(record.image)
            if len(record.label) != 1:
                raise DataError(f'{prefix}.rec: record {key} has {len(record.label)} labels in place of one')
            labels[key] = float(record.label[0])
        except DataError as error:
            found[key] = str(error)
        except Undecodable as error:
            found[key] = f'{prefix}.rec: record {key} cannot be decoded: {error}'
    return labels, found


@functools.lru_cache(maxsize=1)
def _records(prefix):
    """The set that a worker reads, opened once."""
    return RecordFile(f'{prefix}.rec', f'{prefix}.idx')


def _read_list(path):
    """By key, the label and the name of each image of an ``.lst`` file. Raises DataError."""
    listed = {}
    for number, line in enumerate(read_text(path, MAX_LIST).rstrip('\n').split('\n'), 1):
        try:
            key, label, name = line.split('\t')
            listed[int(key)] = float(label), name
        except ValueError:
            raise DataError(f'{path}: line {number} is not a number, a label and a name, separated by tabs') from None
    return listed
