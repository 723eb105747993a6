"""RecordIO files: what MXNet writes and reads is what we write and read, and damage costs the record it touches, never the process."""
import os
import pickle
import struct

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from runtime import mx
from runtime.errors import DataError
from runtime.record_file import RecordFile, RecordWriter
from runtime.record_format import MAGIC

PIECES = st.lists(st.one_of(st.just(MAGIC), st.binary(min_size=1, max_size=9), st.just(MAGIC + b'\0')), min_size=1, max_size=8).map(b''.join)
LABELS = st.one_of(st.integers(0, 999), st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=4), st.just([struct.unpack('<f', MAGIC)[0]]))
RECORDS = st.lists(st.tuples(LABELS, PIECES), min_size=1, max_size=8)


@pytest.fixture
def names(tmp_path):
    return str(tmp_path / 'a.rec'), str(tmp_path / 'a.idx')


@pytest.fixture(scope='module')
def scratch(tmp_path_factory):
    folder = tmp_path_factory.mktemp('records')
    return str(folder / 'a.rec'), str(folder / 'a.idx')


def write(names, records):
    with RecordWriter(*names) as out:
        for key, (label, image) in enumerate(records):
            out.write(key, label, image)


def write_with_mxnet(names, records):
    out = mx.recordio.MXIndexedRecordIO(names[1], names[0], 'w')
    for key, (label, image) in enumerate(records):
        out.write_idx(key, mx.recordio.pack(mx.recordio.IRHeader(0, label, key, 0), image))
    out.close()


def contents(path):
    with open(path, 'rb') as data:
        return data.read()


def complaint(file, position):
    """What the reader says against a record, None if it reads it."""
    try:
        file.read(position)
    except DataError as error:
        return str(error)
    return None


def check_record(record, key, label, image):
    assert record.key == key
    assert record.label.dtype == np.float32
    np.testing.assert_array_equal(record.label, np.atleast_1d(np.asarray(label, np.float32)))
    assert record.image == image


@settings(max_examples=100, deadline=None)
@given(records=RECORDS)
def test_writes_the_bytes_of_mxnet_and_reads_them_back(scratch, records):
    write_with_mxnet(scratch, records)
    expected = [contents(path) for path in scratch]
    write(scratch, records)
    assert [contents(path) for path in scratch] == expected
    with RecordFile(*scratch) as file:
        assert len(file) == len(records)
        for key, (label, image) in enumerate(records):
            check_record(file.read(key), key, label, image)
    with RecordFile(scratch[0]) as file:
        assert len(file) == len(records)
        for key, (_, image) in enumerate(records):
            assert file.read(key).image == image


@settings(max_examples=200, deadline=None)
@given(records=RECORDS, data=st.data())
def test_damage_costs_the_records_it_touches(scratch, records, data):
    write(scratch, records)
    good = bytearray(contents(scratch[0]))
    bounds = [int(line.split()[1]) for line in contents(scratch[1]).splitlines()] + [len(good)]
    place = data.draw(st.integers(0, len(good) - 1))
    new = data.draw(st.binary(min_size=1, max_size=6))
    good[place:place + len(new)] = new
    with open(scratch[0], 'wb') as out:
        out.write(good)
    with RecordFile(*scratch) as file:
        labels = file.labels()
        assert len(labels) == len(records)
        for key, (label, image) in enumerate(records):
            if bounds[key + 1] <= place or bounds[key] >= place + len(new):
                check_record(file.read(key), key, label, image)
            else:
                message = complaint(file, key)
                assert message is None or f'{scratch[0]}: record {key} at byte {bounds[key]} ' in message


@settings(max_examples=200, deadline=None)
@given(records=RECORDS, data=st.data())
def test_without_an_index_damage_costs_one_record(scratch, records, data):
    records = [(label, bytes([65 + number]) + image) for number, (label, image) in enumerate(records)]
    write(scratch, records)
    good = bytearray(contents(scratch[0]))
    bounds = [int(line.split()[1]) for line in contents(scratch[1]).splitlines()] + [len(good)]
    hit = data.draw(st.integers(0, len(records) - 1))
    place = data.draw(st.integers(bounds[hit], bounds[hit + 1] - 1))
    new = data.draw(st.binary(min_size=1, max_size=8))[:bounds[hit + 1] - place]
    good[place:place + len(new)] = new
    # A length that ends where another record ends swallows that record, and nobody could know.
    word = struct.unpack_from('<I', good, bounds[hit] + 4)[0] & (1 << 29) - 1
    assume(bounds[hit] + 8 + word + -word % 4 not in bounds[hit + 2:])
    with open(scratch[0], 'wb') as out:
        out.write(good)
    with RecordFile(scratch[0]) as file:
        found = {}
        for position in range(len(file)):
            if complaint(file, position) is None:
                record = file.read(position)
                found[record.image] = record
        for key, (label, image) in enumerate(records):
            if key != hit:
                np.testing.assert_array_equal(found[image].label, np.atleast_1d(np.asarray(label, np.float32)))


@settings(max_examples=100, deadline=None)
@given(records=RECORDS, data=st.data())
def test_a_truncated_file_keeps_its_head(scratch, records, data):
    write(scratch, records)
    bounds = [int(line.split()[1]) for line in contents(scratch[1]).splitlines()] + [os.path.getsize(scratch[0])]
    size = data.draw(st.integers(0, bounds[-1]))
    os.truncate(scratch[0], size)
    with RecordFile(*scratch) as file:
        for key, (label, image) in enumerate(records):
            if bounds[key + 1] <= size:
                check_record(file.read(key), key, label, image)
            else:
                with pytest.raises(DataError, match=f'record {key} at byte {bounds[key]}'):
                    file.read(key)


def test_forked_and_pickled(names):
    write(names, [(3, b'abc')])
    file = RecordFile(*names)
    file.read(0)
    check_record(pickle.loads(pickle.dumps(file)).read(0), 0, 3, b'abc')
