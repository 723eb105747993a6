"""Our augmentation beside MXNet's own iterator, each of whose random decisions is read off its result: the same crops,
colours, noise, mirroring, centres.
"""

import cv2
import numpy as np
import pytest
from helpers.jpegs import picture, save_records

from runtime import mx
from train.data import image_augment
from train.data.image_augment import (
    COMPONENTS,
    CentreView,
    ImageAugmentation,
    RandomView,
    change_brightness,
    change_contrast,
    change_saturation,
    draw,
    random_box,
)

SIDE = 64
NOTHING = ImageAugmentation(
    area=(1.0, 1.0), aspect=(1.0, 1.0), brightness=0, contrast=0, saturation=0, pca_noise=0, mirror=False
)
RAW = {'mean': 0.0, 'std': 1.0}
CROPS = {
    'random_resized_crop': True,
    'min_random_area': 0.08,
    'max_random_area': 1.0,
    'min_aspect_ratio': 3 / 4,
    'max_aspect_ratio': 4 / 3,
}


def png(image):
    """Without loss, so that pixels can be compared."""
    return cv2.imencode('.png', image)[1].tobytes()


def stock(path, images, side=SIDE, **options):
    """What ImageRecordIter makes of ``images``, a list of bytes: float32 (N, 3, side, side), RGB, in order."""
    rec = save_records(path, images)
    iterator = mx.io.ImageRecordIter(
        path_imgrec=rec,
        data_shape=(3, side, side),
        batch_size=1,
        preprocess_threads=1,
        inter_method=2,
        verbose=False,
        **options,
    )
    return np.concatenate([batch.data[0].asnumpy() for batch in iterator])


def ours(view, image, draws=None):
    out = np.full((3, SIDE, SIDE), np.nan, np.float32)
    view(image, draws, out)
    return out


def as_bgr(image):
    """(3, height, width) RGB as float to (height, width, 3) BGR as bytes."""
    return np.ascontiguousarray(image.transpose(1, 2, 0)[..., ::-1]).astype(np.uint8)


def ramp(height, width):
    """An image whose red says the column and whose green the row, so that a crop tells where it came from."""
    row, column = np.mgrid[:height, :width]
    return np.stack([np.full((height, width), 77), row, column], axis=-1).astype(np.uint8)


def boxes(crops):
    """(height, width, top, left) of the crops of a ramp, (N, 3, side, side), by the slope of its colours."""
    place = np.arange(SIDE)[8:-8]
    found = []
    for red, green, _ in crops:
        (columns, left), (rows, top) = (
            np.polyfit(place, values[8:-8], 1) for values in (red.mean(axis=0), green.mean(axis=1))
        )
        found.append((rows * SIDE, columns * SIDE, top + (rows - 1) / -2, left + (columns - 1) / -2))
    return np.array(found)


def distance(one, other):
    """The greatest distance of two empirical distributions (Kolmogorov and Smirnov's)."""
    values = np.concatenate([one, other])
    return max(abs((one[:, None] <= values).mean(axis=0) - (other[:, None] <= values).mean(axis=0)))


@pytest.mark.parametrize(('area', 'aspect'), [((0.08, 1.0), (3 / 4, 4 / 3)), ((0.2, 0.3), (1.0, 2.5))])
def test_random_crops_are_distributed_as_those_of_mxnet(tmp_path, area, aspect):
    """Both through the same pixels. 1000 and 1000 draws of one distribution are more than 0.09 apart once in a thousand
    times.
    """
    image = png(ramp(150, 200))
    options = dict(zip(('min_random_area', 'max_random_area', 'min_aspect_ratio', 'max_aspect_ratio'), area + aspect))
    theirs = boxes(stock(tmp_path / 'ramp', [image] * 1000, random_resized_crop=True, **options))
    view = RandomView((3, SIDE, SIDE), NOTHING._replace(area=area, aspect=aspect), **RAW)
    mine = boxes([ours(view, image, row) for row in draw(np.random.default_rng(0), 1000)])
    for measure in (
        lambda box: box[:, 0] * box[:, 1],
        lambda box: box[:, 0] / box[:, 1],
        lambda box: box[:, 2] / (151 - box[:, 0]),
        lambda box: box[:, 3] / (201 - box[:, 1]),
    ):
        assert distance(measure(theirs), measure(mine)) < 0.09


@pytest.mark.parametrize('size', [(40, 400), (400, 40), (70, 300)])
def test_where_no_crop_fits_the_centre_is_taken(tmp_path, size):
    image = png(picture(1, *size))
    options = {**CROPS, 'min_random_area': 0.9, 'min_aspect_ratio': 1.0, 'max_aspect_ratio': 1.0}
    view = RandomView((3, SIDE, SIDE), NOTHING._replace(area=(0.9, 1.0)), **RAW)
    assert (
        np.abs(
            stock(tmp_path / 'long', [image], **options)[0] - ours(view, image, draw(np.random.default_rng(0), 1)[0])
        ).max()
        <= 1
    )


@pytest.mark.parametrize('size', [(150, 100), (100, 150), (64, 64), (65, 90), (30, 40), (101, 67)])
def test_the_view_for_validation(tmp_path, size):
    image = png(picture(2, *size))
    expected = stock(tmp_path / 'image', [image], resize=73)[0]
    assert np.abs(expected - ours(CentreView((3, SIDE, SIDE), 73, **RAW), image)).max() <= 1


def test_normalisation_by_channel(tmp_path):
    """A blue of mean 100 must not be taken for a red of mean 120."""
    image = png(picture(0, SIDE, SIDE))
    mean, std = (123.68, 116.28, 103.53), (58.395, 57.12, 57.375)
    options = {
        f'{name}_{channel}': value
        for name, values in (('mean', mean), ('std', std))
        for channel, value in zip('rgb', values)
    }
    np.testing.assert_allclose(
        ours(CentreView((3, SIDE, SIDE), SIDE), image),
        stock(tmp_path / 'image', [image], **options)[0],
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize(
    ('name', 'change'),
    [('brightness', change_brightness), ('contrast', change_contrast), ('saturation', change_saturation)],
)
def test_a_change_of_colour(tmp_path, name, change):
    """MXNet draws the strength; the one that comes nearest must give its very pixels, here and there rounded to the
    other side.
    """
    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    magnitudes = []
    for result in map(as_bgr, stock(tmp_path / 'noise', [png(image)] * 4, **{name: 0.4})):

        def difference(strength, result=result):
            return cv2.absdiff(change(image, strength), result).mean()

        strength = min(np.linspace(0.6, 1.4, 161), key=difference)
        strength = min(np.linspace(strength - 0.005, strength + 0.005, 201), key=difference)
        apart = cv2.absdiff(change(image, strength), result)
        assert apart.max() <= 1
        assert apart.mean() < 0.05
        magnitudes.append(strength)
    assert max(magnitudes) - min(magnitudes) > 0.05


def test_noise_on_colours(tmp_path):
    """Its covariance is that of the principal components, and rounding takes half a level away."""
    flat = png(np.full((SIDE, SIDE, 3), 128, np.uint8))
    theirs = stock(tmp_path / 'flat', [flat] * 800, pca_noise=0.1)[:, :, 0, 0] - 128
    view = RandomView((3, SIDE, SIDE), NOTHING._replace(pca_noise=0.1), **RAW)
    mine = np.array([ours(view, flat, row)[:, 0, 0] for row in draw(np.random.default_rng(0), 800)]) - 128
    for shifts in (theirs, mine):
        assert (shifts == shifts.round()).all()
        np.testing.assert_allclose(np.cov(shifts.T), 0.01 * COMPONENTS @ COMPONENTS.T, rtol=0.2)
        np.testing.assert_allclose(shifts.mean(axis=0), -0.5, atol=0.4)


def test_mirroring(tmp_path):
    image = picture(3, SIDE, SIDE)
    view = RandomView((3, SIDE, SIDE), NOTHING._replace(mirror=True), **RAW)
    mine = [ours(view, png(image), row) for row in draw(np.random.default_rng(0), 40)]
    for results in (stock(tmp_path / 'image', [png(image)] * 40, rand_mirror=True), mine):
        mirrored = [(as_bgr(result) == image[:, ::-1]).all() for result in results]
        assert [(as_bgr(result) == image).all() for result in results] == [not turned for turned in mirrored]
        assert 8 < sum(mirrored) < 32


def test_the_whole_recipe_has_the_mean_and_spread_of_mxnets(tmp_path):
    """All of it together, over many draws: per pixel and channel the same average, to four times its standard error."""
    image = png(picture(0, 90, 120))
    recipe = {'brightness': 0.4, 'contrast': 0.4, 'saturation': 0.4, 'pca_noise': 0.1, 'rand_mirror': True}
    theirs = stock(tmp_path / 'image', [image] * 600, **CROPS, **recipe)
    view = RandomView((3, SIDE, SIDE), **RAW)
    mine = np.array([ours(view, image, row) for row in draw(np.random.default_rng(1), 600)])
    for measure in (lambda images: images.mean(axis=(2, 3)), lambda images: images.std(axis=(2, 3))):
        one, other = measure(theirs), measure(mine)
        error = np.sqrt((one.var(axis=0) + other.var(axis=0)) / 600)
        assert (np.abs(one.mean(axis=0) - other.mean(axis=0)) < 4 * error).all()


def test_mxnet_spoils_crops_of_images_that_have_the_size_already(tmp_path):
    """Why ImageRecordIter is not used: it resizes such a crop into its own source. Ours is what OpenCV makes of some
    crop.
    """
    image = picture(4, SIDE, SIDE)
    half = {
        'random_resized_crop': True,
        'min_random_area': 0.25,
        'max_random_area': 0.25,
        'min_aspect_ratio': 1.0,
        'max_aspect_ratio': 1.0,
    }

    def nearest(result, source):
        crops = (source[top : top + 32, left : left + 32] for top in range(33) for left in range(33))
        return min(
            cv2.absdiff(cv2.resize(crop, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC), result).max() for crop in crops
        )

    spoilt = [nearest(as_bgr(result), image) for result in stock(tmp_path / 'same', [png(image)] * 4, **half)]
    assert max(spoilt) > 20
    view = RandomView((3, SIDE, SIDE), NOTHING._replace(area=(0.25, 0.25)), **RAW)
    assert all(nearest(as_bgr(ours(view, png(image), row)), image) == 0 for row in draw(np.random.default_rng(0), 4))


def test_a_box_lies_inside_the_image():
    for row in draw(np.random.default_rng(0), 500).tolist():
        box = random_box(37, 91, row, ImageAugmentation())
        if box:
            top, left, height, width = box
            assert 0 <= top <= top + height <= 37
            assert 0 <= left <= left + width <= 91
            assert height * width > 0.05 * 37 * 91


def test_draws_have_a_fixed_width():
    assert draw(np.random.default_rng(0), 5).shape == (5, image_augment.DRAWS)
