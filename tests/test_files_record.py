"""RecordIO files: what MXNet writes and reads is what we write and read, and damage costs the record it touches, never
the process.
"""

import multiprocessing
import os
import pickle
import struct

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from formats.record_file import RecordFile, RecordWriter
from formats.record_format import MAGIC, framed, packed
from runtime import mx
from runtime.errors import DataError

PIECES = st.lists(
    st.one_of(st.just(MAGIC), st.binary(min_size=1, max_size=9), st.just(MAGIC + b'\0')), min_size=1, max_size=8
).map(b''.join)
LABELS = st.one_of(
    st.integers(0, 999),
    st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=4),
    st.just([struct.unpack('<f', MAGIC)[0]]),
)
RECORDS = st.lists(st.tuples(LABELS, PIECES), min_size=1, max_size=8)


@pytest.fixture
def names(tmp_path):
    return str(tmp_path / 'a.rec'), str(tmp_path / 'a.idx')


@pytest.fixture(scope='module')
def scratch(tmp_path_factory):
    folder = tmp_path_factory.mktemp('records')
    return str(folder / 'a.rec'), str(folder / 'a.idx')


def write(names, records):
    """What RecordWriter would write, without waiting for the disk; returns where each record begins and the last one
    ends.
    """
    bounds = [0]
    with open(names[0], 'wb') as rec, open(names[1], 'w', encoding='ascii') as idx:
        for key, (label, image) in enumerate(records):
            idx.write(f'{key}\t{bounds[-1]}\n')
            bounds.append(bounds[-1] + rec.write(framed(packed(key, label, image))))
    return bounds


def damage(path, place, new):
    with open(path, 'r+b') as out:
        out.seek(place)
        out.write(new)


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


@settings(max_examples=60)
@given(records=RECORDS)
def test_writes_the_bytes_of_mxnet_and_reads_them_back(scratch, records):
    write_with_mxnet(scratch, records)
    expected = [contents(path) for path in scratch]
    with RecordWriter(*scratch) as out:
        for key, (label, image) in enumerate(records):
            out.write(key, label, image)
    assert [contents(path) for path in scratch] == expected
    with RecordFile(*scratch) as file, RecordFile(scratch[0]) as scanned:
        assert len(file) == len(scanned) == len(records)
        for key, (label, image) in enumerate(records):
            check_record(file.read(key), key, label, image)
            assert scanned.read(key).image == image


@settings(max_examples=150)
@given(records=RECORDS, data=st.data())
def test_damage_costs_the_records_it_touches(scratch, records, data):
    bounds = write(scratch, records)
    place = data.draw(st.integers(0, bounds[-1] - 1))
    new = data.draw(st.binary(min_size=1, max_size=6))
    damage(scratch[0], place, new)
    with RecordFile(*scratch) as file:
        assert len(file.labels()) == len(records)
        for key, (label, image) in enumerate(records):
            if bounds[key + 1] <= place or bounds[key] >= place + len(new):
                check_record(file.read(key), key, label, image)
            else:
                message = complaint(file, key)
                assert message is None or f'{scratch[0]}: record {key} at byte {bounds[key]} ' in message


@settings(max_examples=150)
@given(records=RECORDS, data=st.data())
def test_without_an_index_damage_costs_one_record(scratch, records, data):
    records = [(label, bytes([65 + number]) + image) for number, (label, image) in enumerate(records)]
    bounds = write(scratch, records)
    hit = data.draw(st.integers(0, len(records) - 1))
    place = data.draw(st.integers(bounds[hit], bounds[hit + 1] - 1))
    damage(scratch[0], place, data.draw(st.binary(min_size=1, max_size=8))[: bounds[hit + 1] - place])
    # A length that ends where another record ends swallows that record, and nobody could know.
    length = struct.unpack_from('<I', contents(scratch[0]), bounds[hit] + 4)[0] & (1 << 29) - 1
    assume(bounds[hit] + 8 + length + -length % 4 not in bounds[hit + 2 :])
    with RecordFile(scratch[0]) as file:
        readable = [file.read(position) for position in range(len(file)) if complaint(file, position) is None]
    found = {record.image: record.label for record in readable}
    for key, (label, image) in enumerate(records):
        if key != hit:
            np.testing.assert_array_equal(found[image], np.atleast_1d(np.asarray(label, np.float32)))


@settings(max_examples=80)
@given(records=RECORDS, data=st.data())
def test_a_truncated_file_keeps_its_head(scratch, records, data):
    bounds = write(scratch, records)
    size = data.draw(st.integers(0, bounds[-1]))
    os.truncate(scratch[0], size)
    with RecordFile(*scratch) as file:
        for key, (label, image) in enumerate(records):
            if bounds[key + 1] <= size:
                check_record(file.read(key), key, label, image)
            else:
                assert f'record {key} at byte {bounds[key]} ' in complaint(file, key)


@settings(max_examples=60)
@given(
    junk=st.lists(st.one_of(st.just(MAGIC), st.binary(max_size=9), st.just(MAGIC + b'\x04\0\0\0')), max_size=12).map(
        b''.join
    )
)
def test_anything_can_be_scanned(scratch, junk):
    with open(scratch[0], 'wb') as out:
        out.write(junk)
    with RecordFile(scratch[0]) as file:
        assert all(complaint(file, position) or file.read(position).image for position in range(len(file)))
        assert len(file.labels()) == len(file)


@pytest.mark.parametrize(
    ('place', 'new', 'reason'),
    [
        (0, b'\0\0\0\0', 'begins with 00000000 in place of the magic number 0a23d7ce'),
        (
            4,
            struct.pack('<I', 1 << 28),
            'says that it has 268435456 bytes, which is beyond the start of the next record',
        ),
        (4, struct.pack('<I', 28), 'says that it has 28 bytes, after which no other record begins'),
        (7, b'\x40', 'has a part of kind 2 where 0 or 1 must stand'),
        (8, struct.pack('<I', 7), 'says that its label has 7 numbers, which its 48 bytes cannot hold'),
        (8, struct.pack('<I', 6), 'holds no image'),
    ],
)
def test_damage_is_named(names, place, new, reason):
    bounds = write(names, [(0, b'first'), (1, b'x' * 24), (2, b'last')])
    damage(names[0], bounds[1] + place, new)
    with RecordFile(*names) as file, pytest.raises(DataError) as error:
        file.read(1)
    assert str(error.value) == f'{names[0]}: record 1 at byte {bounds[1]} {reason}'


def test_labels_are_read_without_the_images(names):
    bounds = write(names, [(5, b'a'), (7, b'b' * 5000), ([1, 2], b'c'), (8, MAGIC), (9, b'e')])
    damage(names[0], bounds[4], b'\0')
    with RecordFile(*names) as file:
        np.testing.assert_array_equal(file.labels(), np.float32([[5], [7], [np.nan], [8], [np.nan]]))
    write(names, [([1, 2], b'a'), ([3, 4], b'b'), (5, b'c')])
    with RecordFile(*names) as file:
        np.testing.assert_array_equal(file.labels(), np.float32([[1, 2], [3, 4], [np.nan, np.nan]]))


@pytest.mark.parametrize(
    ('text', 'line'),
    [('0\t0\n1\n', 2), ('a\t0\n', 1), ('0\t0\n1\t-8\n', 2), ('0\t0\n\n1\t8\n', 2), ('0 0\n', 1), ('0\t1.5\n', 1)],
)
def test_what_is_no_index_is_refused(names, text, line):
    write(names, [(0, b'a')])
    with open(names[1], 'w', encoding='ascii') as out:
        out.write(text)
    with pytest.raises(DataError, match=f'a.idx: line {line} is not a key and an offset'):
        RecordFile(*names)


def test_an_index_may_choose_records(names):
    bounds = write(names, [(0, b'a' * 70000), (1, b'b'), (2, MAGIC * (1 << 18))])
    with open(names[1], 'w', encoding='ascii') as out:
        out.write(f'2\t{bounds[2]}\n0\t0\n')
    with RecordFile(*names) as file:
        assert [record.key for record in map(file.read, range(2))] == [2, 0]
        assert file.read(0).image == MAGIC * (1 << 18)
        assert file.read(1).image == b'a' * 70000


def test_a_missing_file_is_named(names):
    with pytest.raises(DataError, match='a.rec: no such file'):
        RecordFile(*names)


def test_an_interrupted_writer_leaves_what_was_there(names):
    write(names, [(0, b'old')])
    before = [contents(path) for path in names]
    with pytest.raises(struct.error), RecordWriter(*names) as out:
        list(map(out.write, (0, -1), (1, 1), (b'new', b'no key is negative')))
    assert [contents(path) for path in names] == before
    assert sorted(os.listdir(os.path.dirname(names[0]))) == ['a.idx', 'a.rec']


def read_in_child(file):
    return os.getpid(), file.read(1)


def test_reads_in_forked_and_spawned_processes(names):
    write(names, [(3, b'abc'), (4, b'de')])
    file = RecordFile(*names)
    check_record(file.read(0), 0, 3, b'abc')
    check_record(pickle.loads(pickle.dumps(file)).read(1), 1, 4, b'de')
    with multiprocessing.get_context('fork').Pool(1) as pool:
        child, record = pool.apply(read_in_child, (file,))
    assert child != os.getpid()
    check_record(record, 1, 4, b'de')
