"""CIFAR in all its layouts: read alike, and refused by name when anything is wrong."""

import hashlib
import inspect
import os
import pickle

import numpy as np
import pytest
from helpers.cifar_fakes import archive_bytes, expected_arrays, fake_cifar, python2_pickle, write_folder

from runtime import mx
from runtime.errors import DataError
from train.data import cifar as cifar_module
from train.data.cifar import CIFAR10, CIFAR100, read_cifar
from train.data.cifar_cache import cache_folder
from train.data.cifar_pickle import read_batch


def lay_out(where, layout, cifar, binary, python):
    """Write the layout and return what --data-dir may be for it."""
    files = python if 'python' in layout else binary
    version = int('python' in layout)
    if 'archive' in layout:
        archive = (
            write_folder(where, {cifar.archive_names[version]: archive_bytes(cifar.folder_names[version], files)})
            / cifar.archive_names[version]
        )
        return [where, archive]
    return [where, write_folder(where / cifar.folder_names[version], files)]


@pytest.mark.parametrize('like', [CIFAR10, CIFAR100], ids=lambda cifar: cifar.name)
@pytest.mark.parametrize('layout', ['binary folder', 'python folder', 'binary archive', 'python archive'])
def test_every_layout_gives_the_same_images(tmp_path, like, layout):
    cifar, binary, python = fake_cifar(like)
    expected = expected_arrays(cifar, binary)
    for path in lay_out(tmp_path / 'data', layout, cifar, binary, python):
        arrays = read_cifar(cifar, str(path))
        assert [array.dtype for array in arrays] == [np.uint8, np.int32] * 2
        for array, twin in zip(arrays, expected):
            np.testing.assert_array_equal(array, twin)


def test_sums_and_names_are_those_that_mxnet_knows():
    vision = mx.gluon.data.vision
    for cifar, source in ((CIFAR10, inspect.getsource(vision.CIFAR10)), (CIFAR100, inspect.getsource(vision.CIFAR100))):
        for part in cifar.parts:
            assert f"('{part.name}.bin', '{part.sha1}')" in source
        assert cifar.archive_names[0] in source


@pytest.mark.parametrize('layout', ['binary folder', 'python folder', 'binary archive', 'python archive'])
def test_a_missing_file_is_named(tmp_path, layout):
    cifar, binary, python = fake_cifar()
    binary.pop('data_batch_3.bin')
    python.pop('data_batch_3')
    for path in lay_out(tmp_path / 'data', layout, cifar, binary, python):
        with pytest.raises(DataError, match=r'incomplete, data_batch_3(\.bin)? missing; get the rest'):
            read_cifar(cifar, str(path))


@pytest.mark.parametrize('layout', ['binary folder', 'python folder', 'binary archive', 'python archive'])
@pytest.mark.parametrize(
    'damage',
    [
        lambda data: data[:-1],
        lambda data: data[:900] + bytes([data[900] ^ 1]) + data[901:],
        lambda data: b'',
        lambda data: data + b'.',
    ],
    ids=['truncated', 'flipped', 'empty', 'longer'],
)
def test_a_file_that_is_not_the_official_one_is_named_with_both_sums(tmp_path, layout, damage):
    cifar, binary, python = fake_cifar()
    binary['test_batch.bin'], python['test_batch'] = damage(binary['test_batch.bin']), damage(python['test_batch'])
    wrong, algorithm, expected = (
        (python['test_batch'], 'md5', cifar.test[0].md5)
        if 'python' in layout
        else (binary['test_batch.bin'], 'sha1', cifar.test[0].sha1)
    )
    for path in lay_out(tmp_path / 'data', layout, cifar, binary, python):
        with pytest.raises(DataError, match='test_batch') as error:
            read_cifar(cifar, str(path))
        assert expected in str(error.value)
        assert hashlib.new(algorithm, wrong).hexdigest() in str(error.value)
        assert 'get it again' in str(error.value)


def test_no_pickle_is_opened_before_its_sum_is_right(tmp_path, monkeypatch):
    cifar, _, python = fake_cifar()
    python['data_batch_1'] += b' '
    monkeypatch.setattr(cifar_module, 'read_batch', lambda *_: pytest.fail('an unofficial pickle was read'))
    with pytest.raises(DataError, match='md5'):
        read_cifar(cifar, str(write_folder(tmp_path, python)))


@pytest.mark.parametrize('cut', [0, 10, 300, -3000])
def test_a_damaged_archive_is_named(tmp_path, cut):
    cifar, binary, _ = fake_cifar()
    path = tmp_path / 'cifar-10-binary.tar.gz'
    path.write_bytes(archive_bytes('cifar-10-batches-bin', binary)[:cut])
    with pytest.raises(DataError, match=r'cifar-10-binary\.tar\.gz'):
        read_cifar(cifar, str(tmp_path))


def test_a_huge_file_in_an_archive_is_not_read_into_memory(tmp_path):
    cifar, binary, _ = fake_cifar()
    binary['data_batch_1.bin'] = bytes(20_000_000)
    path = tmp_path / 'cifar-10-binary.tar.gz'
    path.write_bytes(archive_bytes('x', binary))
    with pytest.raises(DataError, match=r'data_batch_1\.bin has 20,000,000 bytes, more than'):
        read_cifar(cifar, str(path))


def test_a_whole_layout_wins_over_half_a_one(tmp_path):
    cifar, binary, python = fake_cifar()
    write_folder(tmp_path / 'cifar-10-batches-bin', {'data_batch_1.bin': b'half'})
    write_folder(tmp_path, {'cifar-10-python.tar.gz': archive_bytes('cifar-10-batches-py', python)})
    np.testing.assert_array_equal(read_cifar(cifar, str(tmp_path))[0], expected_arrays(cifar, binary)[0])


def test_nothing_there_says_what_was_looked_for(tmp_path):
    with pytest.raises(
        DataError, match='cifar-10-batches-bin, cifar-10-batches-py, cifar-10-binary.tar.gz, cifar-10-python.tar.gz'
    ):
        read_cifar(CIFAR10, str(tmp_path))
    with pytest.raises(DataError, match='no such folder'):
        read_cifar(CIFAR10, str(tmp_path / 'nowhere'))
    stranger = tmp_path / 'notes.txt'
    stranger.write_text('no archive')
    with pytest.raises(DataError, match='notes.txt'):
        read_cifar(CIFAR10, str(stranger))


class Command:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize('protocol', [0, 2, 4])
def test_a_pickle_runs_nothing(tmp_path, protocol):
    victim = str(tmp_path / 'executed')
    with pytest.raises(DataError, match='it names'):
        read_batch(pickle.dumps({b'data': Command(victim)}, protocol), b'labels')
    assert not os.path.exists(victim)


@pytest.mark.parametrize(
    'name',
    [
        'builtins\neval',
        'numpy\nload',
        'numpy.core.multiarray\nfromstring',
        '_codecs\nencode',
        'numpy.core\nmultiarray._reconstruct',
    ],
)
def test_a_pickle_may_name_only_what_an_array_takes(name):
    with pytest.raises(DataError, match='it names'):
        read_batch(b'c' + name.encode() + b'\n.', b'labels')


@pytest.mark.parametrize('fortran_order', [False, True])
def test_a_pickle_gives_its_pixels_in_either_order(fortran_order):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3072), np.uint8)
    read, labels = read_batch(python2_pickle(pixels, [3, 1, 4, 1], b'fine_labels', fortran_order), b'fine_labels')
    np.testing.assert_array_equal(read, pixels)
    assert labels.tolist() == [3, 1, 4, 1]
    # An independent reader agrees that this is what Python 2 would have written.
    twin = pickle.loads(python2_pickle(pixels, [3], b'labels', fortran_order), encoding='bytes')
    np.testing.assert_array_equal(twin[b'data'], pixels)
    assert twin[b'labels'] == [3]


def test_a_pickle_of_something_else_is_refused():
    pixels, labels = np.zeros((2, 3072), np.uint8), [1, 2]
    good = python2_pickle(pixels, labels, b'labels')
    assert read_batch(good, b'labels')[1].tolist() == labels
    other_shape, other_type, other_key = (
        good.replace(*change)
        for change in ((b'J\x00\x0c\x00\x00', b'J\x00\x0d\x00\x00'), (b'U\x02u1', b'U\x02f4'), (b'labels', b'bagels'))
    )
    for bad in (
        other_shape,
        other_type,
        other_key,
        python2_pickle(pixels, [1], b'labels'),
        pickle.dumps([1, 2]),
        good[:-30],
        b'',
    ):
        assert bad != good
        with pytest.raises(DataError, match='not a CIFAR batch'):
            read_batch(bad, b'labels')


@pytest.mark.skipif(
    not os.path.exists(os.path.join(cache_folder(CIFAR10), 'test_batch.bin')), reason='CIFAR-10 is not in the cache'
)
def test_the_real_cifar10():
    train_images, train_labels, test_images, test_labels = read_cifar(CIFAR10, cache_folder(CIFAR10))
    assert (train_images.shape, test_images.shape) == ((50000, 3, 32, 32), (10000, 3, 32, 32))
    assert np.bincount(train_labels).tolist() == [5000] * 10
    assert np.bincount(test_labels).tolist() == [1000] * 10
    # The means that everybody's recipes hold: red 0.4914, green 0.4822, blue 0.4465.
    np.testing.assert_allclose(train_images.mean(axis=(0, 2, 3)) / 255, [0.4914, 0.4822, 0.4465], atol=1e-4)
