"""Archives and tables that unpack to far more than they are, or lie about what is in them: bounded by their size."""

import contextlib
import gzip
import io
import struct
import tarfile
import time
import tracemalloc
import zlib

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from formats.matlab_file import read_table
from formats.recipe_file import expanded
from formats.tar_files import read_members
from runtime.errors import DataError, UserError

MB = 1 << 20


def refused(read, reason, error=DataError):
    tracemalloc.start()
    start = time.process_time()
    try:
        with pytest.raises(error, match=reason):
            read()
        assert tracemalloc.get_traced_memory()[1] < 24 * MB
    finally:
        tracemalloc.stop()
    assert time.process_time() - start < 2


def tar_of(sizes):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w') as archive:
        for name, size in sizes.items():
            info = tarfile.TarInfo(name)
            info.size = size
            archive.addfile(info, io.BytesIO(bytes(size)))
    return out.getvalue()


def with_size(archive, size):
    """The archive whose first header says ``size``, in base 256, which may be negative."""
    header = bytearray(archive)
    header[124:136] = size.to_bytes(12, 'big', signed=True) if size < 0 else (1 << 95 | size).to_bytes(12, 'big')
    header[148:156] = b' ' * 8
    header[148:156] = b'%06o\0 ' % sum(header[:512])
    return bytes(header)


def test_members_of_both_kinds_of_archive(tmp_path):
    data = tar_of({'kit/a': 5, 'kit/b': 7, 'other': 9})
    for name, contents in (('x.tar', data), ('x.tar.gz', gzip.compress(data))):
        path = tmp_path / name
        path.write_bytes(contents)
        found = read_members(str(path), lambda name: name[4:] if name.startswith('kit/') else None, MB, 100, 'again')
        assert found == {'a': bytes(5), 'b': bytes(7)}


@pytest.mark.parametrize(
    ('contents', 'reason'),
    [
        (gzip.compress(tar_of({'zeros': 8 * MB})), 'more than 4,194,304 bytes once unpacked'),
        (tar_of({'a': 5000}), 'a has 5,000 bytes, more than 1,000'),
        (with_size(tar_of({'b': 5, 'a': 5}), -1024), 'again'),
        (with_size(tar_of({'b': 5}), 1 << 60), 'again'),
        (gzip.compress(tar_of({'a': 5}))[:-20], 'again'),
        (b'\x1f\x8b' + bytes(100), 'again'),
        (b'noise' * 1000, 'again'),
    ],
    ids=range(7),
)
def test_archives_that_lie(tmp_path, contents, reason):
    path = tmp_path / 'x.tar.gz'
    path.write_bytes(contents)
    wanted = {'a': 'a', 'b': 'b'}.get
    refused(lambda: read_members(str(path), wanted, 4 * MB, 1000, 'fetch it again'), f'x.tar.gz: .*{reason}')


def matlab(**variables):
    out = io.BytesIO()
    savemat(out, variables, do_compression=True)
    return out.getvalue()


def structure(sides, fields=1):
    """The bytes of a MATLAB file with one structure without contents that claims such sides."""

    def element(kind, data):
        return struct.pack('<II', kind, len(data)) + data + bytes(-len(data) % 8)

    body = element(6, struct.pack('<II', 2, 0)) + element(5, struct.pack(f'<{len(sides)}i', *sides)) + element(1, b's')
    body += struct.pack('<HHi', 5, 4, 32)[:8] + element(1, b''.join(b'f%d'.ljust(32, b'\0') % n for n in range(fields)))
    return bytes(124) + b'\0\1IM' + element(14, body)


def table(random, dtype, rows, **options):
    """The bytes of a MATLAB file with a table of numbers and texts between other variables, as SciPy writes it."""
    cells = np.zeros((rows, 1), [('number', object), ('children', object), ('text', object)])
    for row in range(rows):
        text = ''.join(random.choice(list('abcé中')) for _ in range(random.randint(1, 30)))
        cells[row, 0] = np.array([[random.randint(0, 100)]]).astype(dtype), np.arange(row), text
    out = io.BytesIO()
    savemat(out, {'first': np.arange(9), 'table': cells, 'last': 'text'}, **options)
    return out.getvalue()


@pytest.mark.parametrize('packed', [False, True])
@pytest.mark.parametrize('dtype', ['uint8', 'int8', 'uint16', 'int16', 'int32', 'int64', 'float32', 'float64'])
def test_tables_of_matlab_are_read_as_scipy_reads_them(dtype, packed):
    data = table(np.random.RandomState(0), dtype, 7, do_compression=packed)
    expected = loadmat(io.BytesIO(data))['table'][:, 0]
    found = read_table(data, 'x.mat', 'table', ('text', 'number'))
    assert found == [{'number': row['number'].item(), 'text': row['text'].item()} for row in expected]


DAMAGED = table(np.random.RandomState(0), 'uint8', 3, do_compression=False)


def test_damaged_tables_of_matlab_end_in_one_error_or_are_read():
    """Every byte of a small file takes three other values, and the file is cut off behind every byte."""
    refused_files = 0
    for place in range(len(DAMAGED)):
        changed = (
            DAMAGED[:place] + bytes([(DAMAGED[place] + by) % 256]) + DAMAGED[place + 1 :] for by in (1, 128, 255)
        )
        for data in (DAMAGED[:place], *changed):
            with contextlib.suppress(DataError):
                read_table(data, 'x.mat', 'table', ('text', 'number'))
                continue
            refused_files += 1
    assert refused_files > len(DAMAGED)


@pytest.mark.parametrize(
    ('data', 'reason'),
    [
        (matlab(zeros=np.zeros(9 * MB // 8)), 'more than 8,388,608 bytes unpacked'),
        (structure((50_000, 50_000)), 'an array of 2,500,000,000 structures of 1 fields'),
        (structure((-1, 1)), 'an array of -1 structures'),
        (structure((1000, 1), fields=100), 'claims to be larger than its contents'),
        (bytes(124) + b'\0\1IM' + struct.pack('<II', 15, 9) + zlib.compress(b'')[:8] + b'x', 'x.mat cannot be read'),
        (matlab(numbers=np.arange(500))[:-30], 'x.mat cannot be read'),
        (matlab(s=np.arange(5)), 'no array of structures'),
        (matlab(s={'f0': {'a': 1}}), 'an array of class 2 where a number or text must be'),
        (matlab(s={'f1': 3}), 'no field f0'),
        (matlab(t={'f0': 3}), 'it has no s'),
        (b'', 'not a MATLAB file'),
    ],
    ids=range(11),
)
def test_matlab_files_that_lie(data, reason):
    refused(lambda: read_table(data, 'x.mat', 's', ('f0',)), reason)


def test_recipes_that_name_each_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'a').write_text('--lr 0.1 # comment\n\n@b')
    (tmp_path / 'b').write_text('--gamma 1')
    assert expanded(['--quiet', '@a']) == ['--quiet', '--lr', '0.1', '--gamma', '1']
    (tmp_path / 'b').write_text('@a')
    refused(lambda: expanded(['@a']), 'name each other too often', UserError)
    (tmp_path / 'c').write_text('@d ' * 1000)
    (tmp_path / 'd').write_text('x ' * 1000)
    refused(lambda: expanded(['@c']), 'more than 10000 words', UserError)
