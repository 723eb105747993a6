"""Image files: broken ones are found, and partial decoding gives the same pixels as full decoding."""

import glob
import os

import cv2
import numpy as np
import pytest
from helpers.jpegs import jpeg, picture
from PIL import Image

from runtime.errors import DataError
from train.data.image_augment import CentreView, ImageAugmentation, RandomView, draw
from train.data.image_decode import decode, inspect

PHOTOGRAPHS = sorted(glob.glob(os.path.join(os.path.dirname(__file__), '../../shared/data/imagenet-sample/*.JPEG')))


def whole(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def by_pillow(path, number=0, size=(90, 60), mode='RGB', **options):
    """The bytes of a picture, saved by another library."""
    image = Image.fromarray(picture(number, *size)[..., ::-1]).convert(mode)
    image.save(str(path), **options)
    return path.read_bytes()


@pytest.mark.parametrize(
    'options',
    [
        {'subsampling': 0},
        {'subsampling': 1},
        {'subsampling': 2},
        {'subsampling': 2, 'optimize': True},
        {'restart_marker_blocks': 3},
        {'mode': 'L'},
    ],
)
def test_the_top_of_a_jpeg_is_that_of_the_whole(tmp_path, options):
    data = by_pillow(tmp_path / 'image.jpg', **options)
    frame, expected = inspect(data), whole(data)
    assert (frame.height, frame.width) == expected.shape[:2] == (90, 60)
    for bottom in range(1, 91):
        image = decode(data, frame, bottom)
        assert bottom <= len(image) <= min(90, bottom + frame.rows)
        np.testing.assert_array_equal(image[:bottom], expected[:bottom])


@pytest.mark.parametrize('bottom', [1, 40, 63, 64, 89, 90])
def test_half_the_size_is_what_opencv_makes_of_the_whole(bottom):
    data = jpeg(0, height=90, width=60)
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_REDUCED_COLOR_2)
    image = decode(data, inspect(data), bottom, reduction=2)
    np.testing.assert_array_equal(image[: bottom // 2], expected[: bottom // 2])


@pytest.mark.skipif(not PHOTOGRAPHS, reason='the photographs are not here')
def test_photographs_in_part():
    generator = np.random.default_rng(0)
    for path in PHOTOGRAPHS:
        with open(path, 'rb') as file:
            data = file.read()
        frame, expected = inspect(data), whole(data)
        if frame:
            bottom = int(generator.integers(1, frame.height + 1))
            np.testing.assert_array_equal(decode(data, frame, bottom)[:bottom], expected[:bottom])


@pytest.mark.parametrize(
    ('ending', 'options'),
    [('jpg', {'progressive': True}), ('jpg', {'mode': 'CMYK'}), ('png', {}), ('png', {'mode': 'L'}), ('bmp', {})],
)
def test_what_cannot_be_decoded_in_part(tmp_path, ending, options):
    """Progressive and PNG files are decoded whole; CMYK and grey images have three channels after that."""
    data = by_pillow(tmp_path / f'image.{ending}', **options)
    assert inspect(data) is None or options.get('mode') == 'CMYK'
    assert decode(data, inspect(data)).shape == (90, 60, 3)


def test_an_orientation_is_followed(tmp_path):
    """As MXNet's iterator does it; nothing may then be decoded in part, for what is the bottom is somewhere else."""
    exif = Image.Exif()
    exif[0x112] = 6
    data = by_pillow(tmp_path / 'image.jpg', exif=exif.tobytes(), quality=95)
    assert inspect(data) is None
    assert decode(data).shape == (60, 90, 3)


@pytest.mark.parametrize('size', [(300, 200), (64, 64), (20, 30), (64, 200), (1, 1)])
def test_any_size_of_image_fills_the_view(size):
    data = jpeg(0, height=size[0], width=size[1])
    for view in (RandomView((3, 64, 48)), CentreView((3, 64, 48), 70)):
        for row in draw(np.random.default_rng(0), 10):
            out = np.full((3, 64, 48), np.nan, np.float32)
            view(data, row, out)
            assert np.isfinite(out).all()


def test_a_crop_is_the_same_whether_decoded_in_part_or_whole(monkeypatch):
    data, view = jpeg(0, height=90, width=60), RandomView((3, 48, 48))
    rows = draw(np.random.default_rng(0), 30)

    def views():
        out = np.empty((len(rows), 3, 48, 48), np.float32)
        for row, image in zip(rows, out):
            view(data, row, image)
        return out

    in_part = views()
    monkeypatch.setattr('train.data.image_augment.inspect', lambda data: None)
    np.testing.assert_array_equal(in_part, views())


def test_large_crops_are_decoded_at_half_the_size():
    """Which is near what resizing the whole gives, of a picture that is smooth."""
    smooth = cv2.GaussianBlur(picture(0, 400, 400), (0, 0), 8)
    data = cv2.imencode('.jpg', smooth, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    plain = ImageAugmentation(
        area=(1.0, 1.0), aspect=(1.0, 1.0), brightness=0, contrast=0, saturation=0, pca_noise=0, mirror=False
    )
    out = np.empty((3, 100, 100), np.float32)
    RandomView((3, 100, 100), plain, 0.0, 1.0)(data, draw(np.random.default_rng(0), 1)[0], out)
    expected = cv2.resize(whole(data), (100, 100), interpolation=cv2.INTER_AREA)[..., ::-1].transpose(2, 0, 1)
    assert np.abs(out - expected).mean() < 1


@pytest.mark.parametrize(
    ('spoil', 'said'),
    [
        (lambda data: data[: len(data) // 2], 'is a JPEG that is cut off'),
        (lambda data: data[:-2], 'is a JPEG that is cut off'),
        (lambda data: data[: len(data) // 2] + bytes(len(data) // 2), 'is a JPEG that is cut off'),
        (lambda data: data[:30], 'is a JPEG that ends inside its header'),
        (lambda data: data[:2], 'is a JPEG that ends inside its header'),
        (lambda data: data[:2] + data[-2:], 'is a JPEG that ends inside its header'),
        (lambda data: data.replace(b'\xff\xc0', b'\xff\xe9', 1), 'is a JPEG without a size'),
        (lambda data: b'\xff\xd8' + bytes(range(256)) * 20, 'is a JPEG'),
        (lambda data: bytes(range(256)) * 20, 'is no image that OpenCV can read'),
        (lambda data: b'', 'is no image|cannot be decoded'),
        (lambda data: cv2.imencode('.png', whole(data))[1].tobytes()[:-500], 'is a PNG that is cut off'),
    ],
)
def test_broken_files_are_refused(spoil, said):
    data = spoil(jpeg(0, height=200, width=150))
    with pytest.raises(DataError, match=said):
        decode(data, inspect(data))


def test_any_damage_is_an_error_of_ours_or_an_image():
    """1,000 files with random bytes changed, cut or moved: never another exception, never no pixels."""
    generator, data = np.random.default_rng(0), jpeg(0)
    view = RandomView((3, 32, 32))
    refused = 0
    for row in draw(generator, 1000):
        spoilt = bytearray(data)
        for place in generator.integers(0, len(data) if generator.random() < 0.5 else 300, generator.integers(1, 20)):
            spoilt[place] = generator.integers(0, 256)
        out = np.full((3, 32, 32), np.nan, np.float32)
        try:
            view(bytes(spoilt), row, out)
            assert np.isfinite(out).all()
        except DataError:
            refused += 1
    assert 50 < refused < 950
