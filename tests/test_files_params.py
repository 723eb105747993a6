"""``.params`` files: the same as MXNet's own where they are sound, a CheckpointError where they are not."""

import functools
import io
import os
import resource
import struct

import numpy as np
import pytest
from helpers import refusals
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from formats.params_file import load_arrays, load_params, require_finite, save_arrays, save_params
from runtime import mx
from runtime.errors import CheckpointError

DTYPES = ['float32', 'float64', 'float16', 'uint8', 'int8', 'int32', 'int64', 'bool']
NAMES = st.text(st.characters(blacklist_characters='\0', blacklist_categories=('Cs',)), min_size=1, max_size=20)
ARRAYS = st.sampled_from(DTYPES).flatmap(
    lambda dtype: st_numpy.arrays(dtype, st_numpy.array_shapes(min_dims=1, max_dims=5, min_side=0, max_side=4))
)


def same(left, right):
    return (
        left.dtype == right.dtype
        and left.shape == right.shape
        and np.array_equal(left.asnumpy(), right.asnumpy(), equal_nan=left.dtype != np.bool_)
    )


@pytest.fixture
def seed_file(tmp_path):
    path = tmp_path / 'seed.params'
    save_params(
        path,
        {'conv_weight': mx.nd.ones((2, 3)), 'fc_bias': mx.nd.arange(4, dtype='float16')},
        {'bn_moving_mean': mx.nd.zeros((3,))},
    )
    return path


refused = functools.partial(refusals.refused, load_params)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(NAMES, ARRAYS, max_size=4))
def test_round_trip_is_mxnets_own(tmp_path_factory, arrays):
    folder = tmp_path_factory.mktemp('round')
    arrays = {name: mx.nd.array(values, dtype=values.dtype) for name, values in arrays.items()}
    save_arrays(folder / 'ours', arrays)
    mx.nd.save(str(folder / 'theirs'), {name: arrays[name] for name in sorted(arrays)})
    assert (folder / 'ours').read_bytes() == (folder / 'theirs').read_bytes()
    loaded, reference = load_arrays(folder / 'ours'), mx.nd.load(str(folder / 'ours'))
    assert list(loaded) == sorted(arrays)
    assert all(same(loaded[name], arrays[name]) and same(loaded[name], reference[name]) for name in arrays)


def test_order_of_the_dict_does_not_matter(tmp_path):
    one, two = mx.nd.ones((2,)), mx.nd.zeros((3,))
    save_params(tmp_path / 'a', {'one': one, 'two': two}, {})
    save_params(tmp_path / 'b', {'two': two, 'one': one}, {})
    assert (tmp_path / 'a').read_bytes() == (tmp_path / 'b').read_bytes()


def test_arg_and_aux_are_told_apart(seed_file):
    arg, aux = load_params(seed_file)
    assert sorted(arg) == ['conv_weight', 'fc_bias']
    assert sorted(aux) == ['bn_moving_mean']
    assert arg['fc_bias'].dtype == np.float16


@pytest.mark.parametrize(
    'header',
    [struct.pack('<IIqqiii', 0xF993FAC8, 2, 2, 3, 1, 0, 0), struct.pack('<IIIiii', 2, 2, 3, 1, 0, 0)],
    ids=['v1', 'before 0.9'],
)
def test_older_files_load_as_in_mxnet(tmp_path, header):
    values = np.arange(6, dtype='float32')
    name = b'arg:w'
    path = tmp_path / 'old.params'
    path.write_bytes(
        struct.pack('<QQQ', 0x112, 0, 1) + header + values.tobytes() + struct.pack('<QQ', 1, len(name)) + name
    )
    loaded, reference = load_arrays(path)['arg:w'], mx.nd.load(str(path))['arg:w']
    assert same(loaded, reference)
    assert loaded.shape == (2, 3)


def test_cut_off_anywhere(seed_file, tmp_path):
    data = seed_file.read_bytes()
    for length in range(len(data)):
        refused(tmp_path / 'cut.params', data[:length])


def test_every_byte_blown_up(seed_file, tmp_path):
    """Whatever eight bytes are set to ones, the file is refused or still says what it holds; memory stays within the
    file's size.
    """
    data = seed_file.read_bytes()
    path = tmp_path / 'blown.params'
    for place in range(len(data)):
        path.write_bytes(data[:place] + b'\xff' * 8 + data[place + 8 :])
        try:
            arg, aux = load_params(path)
        except CheckpointError:
            continue
        assert sum(array.size * array.dtype().itemsize for array in [*arg.values(), *aux.values()]) <= len(data)


def patched(data, place, layout, *numbers):
    out = bytearray(data)
    struct.pack_into(layout, out, place, *numbers)
    return bytes(out)


@pytest.mark.parametrize(
    ('place', 'layout', 'numbers', 'reason'),
    [
        (0, '<Q', (0x113,), 'magic'),
        (16, '<Q', (2**31,), 'claims to hold'),
        (24, '<I', (0xF993FACF,), 'unknown version|dimensions'),
        (28, '<i', (1,), 'sparse'),
        (32, '<i', (0,), 'no shape'),
        (32, '<i', (2**30,), 'dimensions'),
        (36, '<qq', (2**62, 4), 'impossible shape'),
        (36, '<qq', (-1, -6), 'impossible shape'),
        (36, '<qq', (2**20, 2**10), 'ends inside'),
        (36, '<qq', (0, 2**40), 'impossible shape'),
        (52, '<i', (77,), 'device'),
        (60, '<i', (12,), 'dtype'),
    ],
    ids=str,
)
def test_lies_in_the_header(seed_file, tmp_path, place, layout, numbers, reason):
    refused(tmp_path / 'lie.params', patched(seed_file.read_bytes(), place, layout, *numbers), reason)


def test_lies_in_the_names(tmp_path):
    def with_names(*names, count=2):
        out = io.BytesIO()
        array = struct.pack('<IiIqiiif', 0xF993FAC9, 0, 1, 1, 1, 0, 0, 1.0)
        out.write(struct.pack('<QQQ', 0x112, 0, 2) + array * 2 + struct.pack('<Q', count))
        for name in names:
            out.write(struct.pack('<Q', len(name)) + name)
        return out.getvalue()

    path = tmp_path / 'names.params'
    path.write_bytes(with_names(b'arg:a', b'aux:b'))
    load_params(path)
    refused(path, with_names(b'arg:a', b'arg:a'), 'occurs twice')
    refused(path, with_names(b'arg:a', b'aux:a'), 'both an argument and')
    refused(path, with_names(b'arg:a', b'b'), 'does not begin with')
    refused(path, with_names(b'arg:a', b'\xff\xfe'), 'not text')
    refused(path, with_names(b'arg:a', b''), '0 bytes long')
    refused(path, with_names(count=0), '2 arrays but 0 names')
    refused(path, with_names(b'arg:a', b'arg:b') + b'\0', 'left over')
    refused(path, with_names(b'arg:a', b'arg:b')[:-5] + b'junk', 'ends inside')
    refused(path, b'', 'ends inside the header')


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    for path in (tmp_path / 'pipe', tmp_path, '/dev/zero'):
        with pytest.raises(CheckpointError, match='not a regular file'):
            load_arrays(path)
    with pytest.raises(CheckpointError, match='no such file'):
        load_arrays(tmp_path / 'nowhere')


def test_full_disk_leaves_what_was_there(tmp_path):
    path = tmp_path / 'net.params'
    save_params(path, {'w': mx.nd.ones((4,))}, {})
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match='.'):
            save_params(path, {'w': mx.nd.ones((4000,))}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ['net.params']


def test_dtypes_mxnet_lacks_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match='complex128'):
        save_arrays(tmp_path / 'x', {'w': np.zeros(2, complex)})
    assert not os.listdir(tmp_path)


def test_what_is_not_finite_is_named():
    values = np.ones((2, 3, 4), 'float32')
    params = {'count': mx.nd.ones((2,), dtype='int32'), 'w': mx.nd.array(values)}
    require_finite(params, 'x.params')
    values[1, 0, 2] = np.nan
    values[1, 2, 3] = np.inf
    with pytest.raises(CheckpointError, match=r'x.params: w\[1, 0, 2\] is nan'):
        require_finite({'w': mx.nd.array(values)}, 'x.params')
