"""Sets of record files that tests make with tools/make_record.py, and what is in them."""

import json

import cv2
import numpy as np

from formats.record_file import RecordFile
from tools import make_record


def make(*args):
    """Run the tool in this process, with one worker."""
    assert make_record.main([str(arg) for arg in (*args, '--jobs', 1)]) == 0


def records_of(prefix):
    """{name: Record} of a set, the names from its list."""
    with open(f'{prefix}.lst', encoding='utf-8') as lines:
        rows = [line.rstrip('\n').split('\t') for line in lines]
    with RecordFile(f'{prefix}.rec', f'{prefix}.idx') as file:
        records = [file.read(position) for position in range(len(file))]
    assert [int(key) for key, _, _ in rows] == [record.key for record in records]
    assert [[float(label)] for _, label, _ in rows] == [record.label.tolist() for record in records]
    return {name: record for (_, _, name), record in zip(rows, records)}


def manifest_of(prefix):
    with open(f'{prefix}.json', encoding='utf-8') as source:
        return json.load(source)


def decoded(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
