"""Normalisation, shifts and mirroring, against a loop over single images."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import DataError
from train.data.augment import (
    CIFAR_AUGMENTATION,
    DIGITS_AUGMENTATION,
    RGB_MEAN,
    RGB_STD,
    Augmentation,
    Draws,
    Preprocessor,
)


def naive(image, row, column, mirrored, mean, std, augmentation):
    """One image (C, H, W), the way the recipe is usually told: normalise, mirror, pad, crop."""
    channels, height, width = image.shape
    padded = np.empty((channels, height + 2 * augmentation.shift, width + 2 * augmentation.shift), np.float32)
    for channel in range(channels):
        border = mean[channel] if augmentation.border is None else augmentation.border
        plane = image[channel].astype(np.float64)
        if mirrored:
            plane = np.fliplr(plane)
        plane = np.pad(plane, augmentation.shift, constant_values=border)
        padded[channel] = (plane - mean[channel]) / std[channel]
    return padded[:, row : row + height, column : column + width]


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 7),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    shift=st.integers(0, 4),
    border=st.sampled_from([None, 0.0, 255.0]),
)
def test_a_batch_equals_its_images_one_by_one(data, seed, count, height, width, shift, border):
    rng = np.random.default_rng(seed)
    augmentation = Augmentation(shift, True, border)
    images = rng.integers(0, 256, (count, 3, height, width), np.uint8)
    place = st.lists(st.integers(0, 2 * shift), min_size=count, max_size=count).map(np.array)
    draws = Draws(
        data.draw(place), data.draw(place), np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    )
    expected = np.stack(
        [
            naive(image, row, column, mirrored, RGB_MEAN, RGB_STD, augmentation)
            for image, row, column, mirrored in zip(images, *draws)
        ]
    )
    preprocessor = Preprocessor((3, height, width), augmentation=augmentation)
    # Twice: the canvas of the first batch must not show in the second.
    preprocessor.augmented(255 - images, draws)
    result = preprocessor.augmented(images, draws)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_what_is_moved_in_is_the_mean_pixel_for_photographs_and_black_for_digits():
    corner = Draws(np.array([0]), np.array([0]), np.array([False]))
    white = np.full((1, 3, 32, 32), 255, np.uint8)
    photograph = Preprocessor((3, 32, 32), augmentation=CIFAR_AUGMENTATION).augmented(white.copy(), corner)
    assert (photograph[:, :, :4] == 0).all()
    assert (photograph[:, :, :, :4] == 0).all()
    assert (photograph[:, :, 4:, 4:] > 1).all()
    preprocessor = Preprocessor((3, 32, 32), augmentation=DIGITS_AUGMENTATION)
    digit = preprocessor.augmented(white.copy(), corner)
    np.testing.assert_array_equal(digit[:, :, :2], preprocessor.plain(np.zeros((1, 3, 2, 32), np.uint8)))


def test_every_shift_and_both_sides_are_equally_likely():
    draws = Preprocessor((3, 32, 32), augmentation=CIFAR_AUGMENTATION).draw(np.random.default_rng(0), 81000)
    for places in (draws.rows, draws.columns):
        np.testing.assert_allclose(np.bincount(places, minlength=9), 9000, rtol=0.05)
    assert np.bincount(draws.rows * 9 + draws.columns, minlength=81).min() > 800
    assert abs(draws.mirrored.mean() - 0.5) < 0.01
    assert abs(np.corrcoef(draws.mirrored, draws.rows)[0, 1]) < 0.02


def test_digits_are_never_mirrored():
    draws = Preprocessor((3, 32, 32), augmentation=DIGITS_AUGMENTATION).draw(np.random.default_rng(0), 1000)
    assert not draws.mirrored.any()
    assert draws.rows.max() == 4


def test_plain_images_are_only_normalised():
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 8, 6), np.uint8)
    kept = images.copy()
    result = Preprocessor((3, 8, 6)).plain(images)
    np.testing.assert_allclose(
        result, (images - np.reshape(RGB_MEAN, (3, 1, 1))) / np.reshape(RGB_STD, (3, 1, 1)), atol=1e-6
    )
    np.testing.assert_array_equal(images, kept)


@pytest.mark.parametrize(
    ('mean', 'std', 'names'),
    [
        ((1.0, 2.0), (1.0,), 'mean'),
        ((0.0,), (1.0, 2.0), 'rgb-std: give one number'),
        ((0.0,), (0.0,), 'standard deviation'),
        ((float('nan'),), (1.0,), 'mean'),
    ],
)
def test_constants_that_cannot_be_are_refused(mean, std, names):
    with pytest.raises(DataError, match=names):
        Preprocessor((3, 4, 4), mean, std)


def test_one_constant_serves_all_channels():
    assert (
        Preprocessor((5, 2, 2), (10,), (2,)).plain(np.full((1, 5, 2, 2), 20, np.uint8)).tolist()
        == np.full((1, 5, 2, 2), 5.0).tolist()
    )
