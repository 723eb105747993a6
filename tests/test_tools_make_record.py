"""Record files out of folders and tar files: what goes in comes out, in MXNet's reader too, and a killed run goes on to
the same bytes.
"""

import io
import os

import cv2
import numpy as np
import pytest
from helpers.image_fakes import (
    WNIDS,
    class_folders,
    devkit_files,
    encoded,
    odd_images,
    picture,
    tar_of,
    tar_of_tars,
    validation_images,
    write_files,
)
from helpers.record_sets import decoded, make, manifest_of, records_of
from helpers.tiny_runs import contents, open_bytes, refused
from PIL import Image

from formats.record_file import RecordFile
from runtime import mx
from tools import make_record

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SAMPLE = os.path.join(ROOT, os.pardir, 'shared', 'data', 'imagenet-sample')


@pytest.fixture(scope='module')
def images():
    return class_folders()


@pytest.fixture
def train(images, tmp_path):
    return write_files(tmp_path / 'train', images)


@pytest.fixture
def prefix(tmp_path):
    return str(tmp_path / 'out' / 'set')


@pytest.fixture(scope='module')
def kit():
    """The class numbers of six validation images, the kit's files, and the wnid of each number."""
    numbers = [490, 1, 1000, 361, 1, 77]
    return (numbers, *devkit_files(numbers))


def set_of(folder, name='set'):
    """The files of a set, by ending."""
    return {path.split('.', 1)[1]: data for path, data in contents(folder).items() if path.startswith(f'{name}.')}


def test_original_bytes_go_through(train, images, prefix):
    make(train, prefix)
    records = records_of(prefix)
    assert {name: record.image for name, record in records.items()} == images
    assert {name: WNIDS[int(record.label[0])] for name, record in records.items()} == {
        name: name.split('/')[0] for name in images
    }
    assert list(records) != sorted(records)  # shuffled
    manifest = manifest_of(prefix)
    assert manifest['classes'] == list(WNIDS)
    assert manifest['records_per_class'] == [4, 4, 4]
    assert sorted(os.listdir(os.path.dirname(prefix))) == ['set.idx', 'set.json', 'set.lst', 'set.rec']


def test_the_seed_decides_the_order(train, prefix):
    orders = []
    for seed, more in ((0, ()), (0, ()), (1, ()), (1, ('--shuffle', 0))):
        make(train, prefix, '--force', '--seed', seed, *more)
        orders.append(list(records_of(prefix)))
    assert orders[0] == orders[1] != orders[2] != orders[3] == sorted(orders[0])


def test_the_bytes_are_those_of_mxnets_writer(train, images, prefix, tmp_path):
    make(train, prefix, '--shuffle', 0)
    out = mx.recordio.MXIndexedRecordIO(str(tmp_path / 'mx.idx'), str(tmp_path / 'mx.rec'), 'w')
    for key, name in enumerate(sorted(images)):
        out.write_idx(
            key, mx.recordio.pack(mx.recordio.IRHeader(0, WNIDS.index(name.split('/')[0]), key, 0), images[name])
        )
    out.close()
    made = contents(os.path.dirname(prefix))
    assert made['set.rec'] == (tmp_path / 'mx.rec').read_bytes()
    assert made['set.idx'] == (tmp_path / 'mx.idx').read_bytes()


def test_tar_files_give_the_bytes_that_folders_give(train, images, prefix, tmp_path):
    make(train, prefix)
    expected = set_of(os.path.dirname(prefix))
    for number, archive in enumerate(
        (tar_of_tars(images), tar_of({f'./train/{name}': data for name, data in images.items()}))
    ):
        (tmp_path / 'images.tar').write_bytes(archive)
        make(tmp_path / 'images.tar', tmp_path / f'tar{number}' / 'set')
        assert set_of(tmp_path / f'tar{number}') == expected


def test_mxnets_iterator_reads_it_pixel_for_pixel(train, images, prefix):
    make(train, prefix, '--shuffle', 0)
    iterator = mx.io.ImageRecordIter(
        path_imgrec=f'{prefix}.rec',
        path_imgidx=f'{prefix}.idx',
        data_shape=(3, 32, 32),
        batch_size=1,
        preprocess_threads=1,
        rand_crop=False,
        verbose=False,
    )
    found = [(batch.data[0].asnumpy()[0].transpose(1, 2, 0), batch.label[0].asnumpy()[0]) for batch in iterator]
    assert len(found) == len(images)
    for (pixels, label), name in zip(found, sorted(images)):
        expected = decoded(images[name])[..., ::-1]
        top, left = ((size - 32) // 2 for size in expected.shape[:2])
        np.testing.assert_array_equal(pixels, expected[top : top + 32, left : left + 32])
        assert WNIDS[int(label)] == name.split('/')[0]


def test_odd_images(prefix, tmp_path, capfd):
    odd = odd_images()
    files = {f'{WNIDS[0]}/{kind}.JPEG': data for kind, data in odd.items()}
    make(write_files(tmp_path / 'odd', files), prefix, '--max-bad', 0.4)
    records = {name.split('/')[1][: -len('.JPEG')]: record.image for name, record in records_of(prefix).items()}
    assert sorted(records) == ['cmyk', 'grey', 'png']
    assert records['grey'] == odd['grey']
    for kind in ('cmyk', 'png'):
        with Image.open(io.BytesIO(records[kind])) as image:
            assert (image.format, image.mode) == ('JPEG', 'RGB')
        assert np.abs(decoded(records[kind]).astype(int) - decoded(odd[kind])).mean() < 3
    log = capfd.readouterr().err.splitlines()
    manifest = manifest_of(prefix)
    assert {os.path.basename(entry['name']): entry['why'] for entry in manifest['encoded_again']} == {
        'cmyk.JPEG': 'CMYK JPEG',
        'png.JPEG': 'RGB PNG',
    }
    assert {os.path.basename(entry['name']) for entry in manifest['left_out']} == {'truncated.JPEG', 'text.JPEG'}
    for kind, words in (
        ('cmyk', 'encoded again'),
        ('png', 'encoded again'),
        ('truncated', 'left out'),
        ('text', 'left out'),
    ):
        assert any(f'{kind}.JPEG' in line and words in line for line in log)
    numbers = [entry['number'] for entry in manifest['left_out']]
    with RecordFile(f'{prefix}.rec', f'{prefix}.idx') as file:
        assert sorted([*file.keys, *numbers]) == list(range(5))


def test_too_many_undecodable_images_end_the_run_until_allowed_or_mended(train, images, prefix, capfd, tmp_path):
    bad = {f'{WNIDS[0]}/{kind}.JPEG': odd_images()[kind] for kind in ('truncated', 'text')}
    write_files(tmp_path / 'train', bad)
    line = refused(capfd, tmp_path, train, prefix, '--jobs', 1, script=make_record, is_unchanged=False)
    assert '2 of 14 images cannot be decoded, which is more than --max-bad 0.001 allows' in line
    assert f'remove {prefix}.partial.jsonl and start again' in line
    assert sorted(os.listdir(os.path.dirname(prefix))) == ['set.partial.jsonl', 'set.partial.rec']
    make(train, prefix, '--max-bad', 0.15)
    assert {name: record.image for name, record in records_of(prefix).items()} == images
    refused(capfd, tmp_path, train, f'{prefix}2', '--jobs', 1, script=make_record, is_unchanged=False)
    mended = dict.fromkeys(bad, images[f'{WNIDS[0]}/{WNIDS[0]}_0.JPEG'])
    write_files(tmp_path / 'train', mended)
    os.remove(f'{prefix}2.partial.jsonl')
    make(train, f'{prefix}2')
    assert {name: record.image for name, record in records_of(f'{prefix}2').items()} == {**images, **mended}


@pytest.mark.parametrize('size', [(300, 200), (200, 300), (90, 60)])
def test_resized_to_a_shorter_side(prefix, tmp_path, size):
    pixels = picture(*size)
    write_files(
        tmp_path / 'train',
        {
            f'{WNIDS[0]}/a.JPEG': encoded(pixels, quality=98),
            f'{WNIDS[0]}/grey.JPEG': encoded(pixels, mode='L', quality=98),
        },
    )
    make(tmp_path / 'train', prefix, '--resize', 128, '--quality', 97)
    records = records_of(prefix)
    found = decoded(records[f'{WNIDS[0]}/a.JPEG'].image)
    assert found.shape == tuple(128 * side // min(size) for side in size) + (3,)
    expected = cv2.resize(
        pixels[..., ::-1], found.shape[1::-1], interpolation=cv2.INTER_AREA if min(size) > 128 else cv2.INTER_CUBIC
    )
    assert np.abs(found.astype(int) - expected).mean() < 3  # other filters, and a JPEG in between
    with Image.open(io.BytesIO(records[f'{WNIDS[0]}/grey.JPEG'].image)) as grey:
        assert grey.mode == 'L'
        assert min(grey.size) == 128


def test_resized_images_stand_upright_and_fitting_ones_stay(prefix, tmp_path):
    """MXNet's and OpenCV's decoders obey EXIF; what is encoded again has none, and must look the same."""
    files = {
        f'{WNIDS[0]}/turned.JPEG': encoded(picture(60, 90), orientation=6, quality=98),
        f'{WNIDS[0]}/fits.JPEG': encoded(picture(48, 90)),
    }
    make(write_files(tmp_path / 'train', files), prefix, '--resize', 48)
    records = records_of(prefix)
    assert records[f'{WNIDS[0]}/fits.JPEG'].image == files[f'{WNIDS[0]}/fits.JPEG']
    expected = cv2.resize(decoded(files[f'{WNIDS[0]}/turned.JPEG']), (48, 72), interpolation=cv2.INTER_AREA)
    found = decoded(records[f'{WNIDS[0]}/turned.JPEG'].image)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < 3


@pytest.mark.parametrize('form', ['folder', 'inner folder', 'tar.gz'])
def test_validation_labels_come_from_the_development_kit(kit, prefix, tmp_path, form):
    numbers, files, wnids = kit
    (tmp_path / 'val.tar').write_bytes(tar_of(validation_images(len(numbers))))
    if form == 'tar.gz':
        (tmp_path / 'kit.tar.gz').write_bytes(tar_of(files, 'w:gz'))
        path = tmp_path / 'kit.tar.gz'
    else:
        path = write_files(tmp_path / 'kit', files) + ('/ILSVRC2012_devkit_t12' if form == 'inner folder' else '')
    make(tmp_path / 'val.tar', prefix, '--devkit', path)
    classes = sorted(wnids[number] for number in range(1, 1001))
    assert manifest_of(prefix)['classes'] == classes
    records = records_of(prefix)
    assert list(records) == [f'ILSVRC2012_val_{number:08d}.JPEG' for number in range(1, 7)]
    assert [classes[int(record.label[0])] for record in records.values()] == [wnids[number] for number in numbers]


def test_validation_folders_take_their_numbers_from_the_training_set(train, images, prefix, tmp_path):
    make(train, prefix)
    few = {name: data for name, data in images.items() if not name.startswith(WNIDS[0])}
    (tmp_path / 'classes.txt').write_text(''.join(f'{name} some words\n' for name in WNIDS))
    val = write_files(tmp_path / 'val', few)
    for number, classes in enumerate((f'{prefix}.json', tmp_path / 'classes.txt')):
        make(val, f'{prefix}{number}', '--classes', classes)
        records = records_of(f'{prefix}{number}')
        assert list(records) == sorted(few)
        assert {record.label[0] for record in records.values()} == {1, 2}


@pytest.mark.skipif(not os.path.isdir(SAMPLE), reason='the sample of ImageNet is not here')
def test_a_sample_of_imagenet_goes_through_tar_and_records(prefix, tmp_path):
    sources = {
        f'{name.split("_")[0]}/{name}': os.path.join(SAMPLE, name)
        for name in sorted(os.listdir(SAMPLE))
        if name.endswith('.JPEG')
    }
    assert len(sources) == 126
    images = {name: open_bytes(path) for name, path in sources.items()}
    (tmp_path / 'train.tar').write_bytes(tar_of_tars(images))
    make(tmp_path / 'train.tar', prefix)
    assert not manifest_of(prefix)['encoded_again']
    records = records_of(prefix)
    assert sorted(records) == sorted(sources)
    for name, record in records.items():
        np.testing.assert_array_equal(decoded(record.image), cv2.imread(sources[name]))
    assert make_record.main(['--verify', prefix, '--jobs', '1']) == 0
