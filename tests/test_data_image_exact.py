"""--exact-pipeline 1 beside MXNet's own iterator, whose random decisions are foretold (``helpers.stock_draws``): every
pixel of every image is the same, before and after normalisation.
"""

import glob
import os

import cv2
import numpy as np
import pytest
from helpers import stock_draws
from helpers.image_batches import SHAPE as SMALL
from helpers.image_batches import contents, open_images
from helpers.jpegs import jpeg, picture, save_records
from PIL import Image

from runtime import mx
from train.data.image_augment import CentreView, ImageAugmentation, RandomView, draw
from train.data.image_exact import ExactCentreView, ExactRandomView, resize_cubic

PHOTOGRAPHS = sorted(glob.glob(os.path.join(os.path.dirname(__file__), '../../shared/data/imagenet-sample/*.JPEG')))
SHAPE = (3, 48, 52)  # 156 values a row: OpenCV computes four of them otherwise than the rest
CROPS = {
    'random_resized_crop': True,
    'min_random_area': 0.08,
    'max_random_area': 1.0,
    'min_aspect_ratio': 3 / 4,
    'max_aspect_ratio': 4 / 3,
}
CROP_ONLY = ImageAugmentation(brightness=0, contrast=0, saturation=0, pca_noise=0, mirror=False)
SEED = 5
RAW = {'mean': 0.0, 'std': 1.0}
MEAN, STD = (123.68, 116.28, 103.53), (58.395, 57.12, 57.375)
NORMALISED = {
    f'{name}_{channel}': value for name, s in (('mean', MEAN), ('std', STD)) for channel, value in zip('rgb', s)
}


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """Files of several kinds, most of them larger than twice what the network sees."""
    path = tmp_path_factory.mktemp('images') / 'image'
    kinds = [
        ('jpg', {'quality': 90, 'subsampling': 2}),
        ('jpg', {'quality': 75, 'subsampling': 0}),
        ('jpg', {'quality': 90, 'subsampling': 1}),
        ('jpg', {'quality': 90, 'progressive': True}),
        ('jpg', {'mode': 'L'}),
        ('png', {}),
    ]
    found = []
    for number in range(24):
        ending, options = kinds[number % len(kinds)]
        size = [(211, 260), (160, 131), (60, 70), (333, 180)][number // len(kinds)]
        image = Image.fromarray(picture(number, *size)[..., ::-1]).convert(options.get('mode', 'RGB'))
        file = path.with_suffix(f'.{ending}')
        image.save(str(file), **{name: value for name, value in options.items() if name != 'mode'})
        found.append(file.read_bytes())
    return found


def stock(folder, images, shape=SHAPE, **options):
    """What ImageRecordIter makes of ``images``, a list of bytes: float32 (N, *shape), RGB, in order."""
    iterator = mx.io.ImageRecordIter(
        path_imgrec=save_records(folder / 'images', images),
        data_shape=shape,
        batch_size=len(images),
        preprocess_threads=1,
        inter_method=2,
        verbose=False,
        seed_aug=SEED,
        **options,
    )
    return next(iterator).data[0].asnumpy()


def ours(view, image, draws=None, shape=SHAPE):
    out = np.full(shape, np.nan, np.float32)
    view(image, draws, out)
    return out


def pixels(image):
    return cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)


def different(theirs, images, augmentation, kind=ExactRandomView, shape=SHAPE, **normalisation):
    """How many values of ``theirs`` our views get wrong, by the same decisions."""
    view = kind(shape, augmentation, **normalisation)
    results = []
    for number, image in enumerate(images):
        draws = stock_draws.row(SEED, number, *pixels(image).shape[:2], augmentation)
        results.append(ours(view, image, draws, shape))
    return (np.array(results) != theirs).sum()


PARTS = {
    'crop': (CROP_ONLY, {}),
    'mirror': (CROP_ONLY._replace(mirror=True), {'rand_mirror': True}),
    'noise': (CROP_ONLY._replace(pca_noise=0.3), {'pca_noise': 0.3}),
    'colours': (
        CROP_ONLY._replace(brightness=0.5, contrast=0.4, saturation=0.3),
        {'brightness': 0.5, 'contrast': 0.4, 'saturation': 0.3},
    ),
}
RECIPE = {'brightness': 0.4, 'contrast': 0.4, 'saturation': 0.4, 'pca_noise': 0.1, 'rand_mirror': True}


@pytest.mark.parametrize('part', PARTS)
def test_each_step_is_that_of_mxnet(images, tmp_path, part):
    augmentation, options = PARTS[part]
    assert different(stock(tmp_path, images, **CROPS, **options), images, augmentation, **RAW) == 0


def test_the_recipe_is_that_of_mxnet_with_normalisation(images, tmp_path):
    theirs = stock(tmp_path, images, **CROPS, **RECIPE, **NORMALISED)
    assert different(theirs, images, ImageAugmentation()) == 0


def test_without_the_option_pixels_differ(images, tmp_path):
    """Decoding at half the size is what the option turns off; the foretold decisions are the same."""
    theirs = stock(tmp_path, images, **CROPS)
    assert different(theirs, images, CROP_ONLY, RandomView, **RAW) > theirs.size / 10


@pytest.mark.skipif(not PHOTOGRAPHS, reason='the photographs in ../shared are not here')
def test_photographs_by_the_whole_recipe(tmp_path):
    images = []
    for path in PHOTOGRAPHS[:12]:
        with open(path, 'rb') as file:
            images.append(file.read())
    shape = (3, 224, 224)
    theirs = stock(tmp_path, images, shape, **CROPS, **RECIPE, **NORMALISED)
    assert different(theirs, images, ImageAugmentation(), shape=shape) == 0


def test_validation_is_that_of_mxnet(images, tmp_path):
    theirs = stock(tmp_path, images, resize=59, **NORMALISED)
    view = ExactCentreView(SHAPE, 59)
    for result, image in zip(theirs, images):
        np.testing.assert_array_equal(ours(view, image), result)


@pytest.mark.parametrize(
    ('old', 'new'),
    [((61, 47), (30, 1)), ((61, 47), (64, 64)), ((61, 47), (7, 200)), ((9001, 9), (20000, 3)), ((9001, 9), (20000, 5))],
)
def test_cubic_interpolation_is_that_of_mxnet(old, new):
    """By mx.image.imresize, on noise, whose pixels overshoot the most. In the long columns are values between two
    levels, which are rounded otherwise at the end of a row.
    """
    image = np.random.default_rng(0).integers(0, 256, (*old, 3), np.uint8)
    expected = mx.image.imresize(mx.nd.array(image, dtype='uint8'), new[1], new[0], 2).asnumpy()
    np.testing.assert_array_equal(resize_cubic(image, *new), expected)


@pytest.mark.parametrize('size', [(400, 60), (60, 400), (30, 300), (20, 21), (48, 300)])
def test_where_no_crop_fits_the_shorter_side_is_scaled(size):
    """As the authors' fork does; stock MXNet cannot be asked for it, but its functions can: mx.image.imresize, then the
    middle.
    """
    image = picture(1, *size)
    draws = draw(np.random.default_rng(0), 1)[0]
    rows, columns = size
    _, height, width = SHAPE
    if rows < columns:
        scaled = int(np.float32(columns) / np.float32(rows) * np.float32(width)), height
    else:
        scaled = width, int(np.float32(rows) / np.float32(columns) * np.float32(height))
    expected = mx.image.imresize(mx.nd.array(image, dtype='uint8'), *scaled, 1).asnumpy()
    top, left = (expected.shape[0] - height) // 2, (expected.shape[1] - width) // 2
    expected = expected[top : top + height, left : left + width, ::-1].transpose(2, 0, 1)
    never = CROP_ONLY._replace(area=(2.0, 2.0))  # of the image: does not fit in
    file = cv2.imencode('.png', image)[1].tobytes()
    np.testing.assert_array_equal(ours(ExactRandomView(SHAPE, never, **RAW), file, draws), expected)
    assert (ours(RandomView(SHAPE, never, **RAW), file, draws) != expected).any()


@pytest.mark.parametrize('exact', [0, 1])
def test_the_option_chooses_the_views(tmp_path, exact):
    """Batches of the pipeline hold what the views make of each image."""
    images = [jpeg(number, height=170, width=150) for number in range(6)]
    rec = save_records(tmp_path / 'train', images)
    opened = open_images('--data-train', rec, '--data-val', rec, '--exact-pipeline', exact, batch_size=6)
    try:
        batch, (positions, draws) = opened.train.next(), opened.train.decisions(0)
        views = (ExactRandomView, ExactCentreView) if exact else (RandomView, CentreView)
        random_view, centre_view = views[0](SMALL), views[1](SMALL, 37)
        for found, position, row in zip(contents(batch)[0], positions, draws):
            np.testing.assert_array_equal(found, ours(random_view, images[position], row, SMALL))
        for found, image in zip(contents(opened.validation.next())[0], images):
            np.testing.assert_array_equal(found, ours(centre_view, image, None, SMALL))
    finally:
        opened.pool.close()
