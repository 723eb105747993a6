"""The views of ``image_augment`` as the authors' iterator computes them, to the last bit: ``--exact-pipeline 1``.

JPEGs are always decoded at full size. Everything is computed as in MXNet 1.9.1's ``ImageRecordIter`` and the OpenCV 3.4
in it: in float32, in the same order; newer versions of OpenCV round some pixels to the other side. Where no random crop
fits in, the image is scaled as in the authors' fork of MXNet, which stock MXNet does not do.
(tests/test_data_image_exact.py compares with MXNet.)
"""

from typing import Optional, Sequence, Tuple

import numpy as np

from runtime.packages import cv2

from .augment import RGB_MEAN, RGB_STD, PerChannel
from .image_augment import (
    EIGENVALUES,
    EIGENVECTORS,
    CentreView,
    ImageAugmentation,
    RandomView,
    centre,
    random_box,
)

NUMBER = np.float32
ONE = 1 << 11  # 1 in OpenCV's fixed-point numbers, in which the weights of neighbours are given
SHARPNESS = NUMBER(-0.75)  # of the cubic interpolation
AT_ONCE = 8  # values of a row that OpenCV computes at once, in float32; the rest of the row in whole numbers
GREY = np.array([4899, 9617, 1868])  # the weights of red, green and blue; 2^14 together
EIGHT_BITS = np.arange(256, dtype=NUMBER)


class ExactRandomView(RandomView):
    """Training images, augmented."""

    reductions: Tuple[int, ...] = ()

    def __init__(
        self,
        image_shape: Sequence[int],
        augmentation: Optional[ImageAugmentation] = None,
        mean: PerChannel = RGB_MEAN,
        std: PerChannel = RGB_STD,
    ) -> None:
        super().__init__(image_shape, augmentation, mean, std)
        self._normalised = normalised(mean, std)

    def _box(self, height, width, draws):
        return random_box(height, width, draws, self._augmentation, NUMBER)

    def _resized(self, image, box):
        if box is None:
            return centre_of_shorter_side(image, self._height, self._width)
        top, left, height, width = box
        return resize_cubic(image[top : top + height, left : left + width], self._height, self._width)

    def _strength(self, limit, draw):
        return NUMBER(1 + float(NUMBER(draw) * NUMBER(2 * limit) - NUMBER(limit)))

    def _changes(self):
        return change_brightness, change_contrast, change_saturation

    def _table(self, normals):
        strengths = NUMBER(self._augmentation.pca_noise) * np.array(normals, NUMBER)
        first, second, third = (EIGENVECTORS.astype(NUMBER) * EIGENVALUES.astype(NUMBER) * strengths).T
        levels = EIGHT_BITS + (first + second + third)[:, None]
        return np.take_along_axis(self._normalised, levels.clip(0, 255).astype(int), axis=1)


class ExactCentreView(CentreView):
    """Images to validate with."""

    def __init__(
        self, image_shape: Sequence[int], resize: int, mean: PerChannel = RGB_MEAN, std: PerChannel = RGB_STD
    ) -> None:
        super().__init__(image_shape, resize, mean, std)
        self._table = normalised(mean, std)

    def _resized(self, image, height, width):
        return resize_cubic(image, height, width)


def resize_cubic(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """``image``, uint8 (rows, columns, 3), as uint8 (height, width, 3): what cv::resize makes by INTER_CUBIC."""
    if image.shape[:2] == (height, width):
        return image
    places, weights = _neighbours(image.shape[1], width)
    rows = sum(image[:, places[:, tap]] * weights[:, tap, None] for tap in range(4)).reshape(len(image), -1)
    places, weights = _neighbours(image.shape[0], height)
    whole = rows.shape[1] // AT_ONCE * AT_ONCE
    result = np.empty((height, rows.shape[1]), np.uint8)
    values, factors = rows[:, :whole].astype(NUMBER), weights.astype(NUMBER) / NUMBER(ONE * ONE)
    total = values[places[:, 0]] * factors[:, 0, None]
    for tap in range(1, 4):
        total += values[places[:, tap]] * factors[:, tap, None]
    result[:, :whole] = np.rint(total).clip(0, 255)
    rest = rows[:, whole:].astype(np.int64)
    total = sum(rest[places[:, tap]] * weights[:, tap, None] for tap in range(4))
    result[:, whole:] = ((total + ONE * ONE // 2) // (ONE * ONE)).clip(0, 255)
    return result.reshape(height, width, 3)


def _neighbours(old, new):
    """For each of ``new`` pixels along a side, where its four neighbours lie among ``old`` (new, 4), and their weights,
    int32 (new, 4), in units of 1 / ONE.
    """
    centres = ((np.arange(new) + 0.5) * (old / new) - 0.5).astype(NUMBER)
    left = np.floor(centres)
    right = centres - left
    one, a = NUMBER(1), SHARPNESS
    # In Horner's form, as it is rounded there.
    outer = ((a * (right + one) - 5 * a) * (right + one) + 8 * a) * (right + one) - 4 * a
    inner, next_inner = (((a + 2) * x - (a + 3)) * x * x + one for x in (right, one - right))
    weights = np.stack([outer, inner, next_inner, one - outer - inner - next_inner], axis=1)
    places = left.astype(int)[:, None] + np.arange(-1, 3)
    return places.clip(0, old - 1), np.rint(weights * NUMBER(ONE)).astype(np.int32)


def centre_of_shorter_side(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """What the authors' fork takes where no random crop fits in: the shorter side becomes that of the result, by
    bilinear interpolation, and the middle of the longer one is cut out.
    """
    rows, columns = image.shape[:2]
    longer = NUMBER(max(rows, columns)) / NUMBER(min(rows, columns))
    size = (height, int(longer * NUMBER(width))) if rows < columns else (int(longer * NUMBER(height)), width)
    return centre(_resize_linear(image, *size), height, width)


def _resize_linear(image, height, width):
    """cv::resize by INTER_LINEAR, which all versions of OpenCV compute alike, if it is not left to Intel's library."""
    if image.shape[:2] == (height, width):
        return image
    before = cv2.ipp.useIPP()
    cv2.ipp.setUseIPP(False)
    try:
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    finally:
        cv2.ipp.setUseIPP(before)


def change_brightness(image: np.ndarray, strength: np.float32) -> np.ndarray:
    """Each level of ``image``, uint8 (rows, columns, 3), times ``strength``."""
    return _scaled(image, strength, NUMBER(0))


def change_contrast(image: np.ndarray, strength: np.float32) -> np.ndarray:
    """Move each level away from (``strength`` > 1) or towards (< 1) the mean grey of the image."""
    grey = _grey(image)
    return _scaled(image, strength, (NUMBER(1) - strength) * NUMBER(grey.sum() * (1 / grey.size)))


def change_saturation(image: np.ndarray, strength: np.float32) -> np.ndarray:
    """Move each level away from (``strength`` > 1) or towards (< 1) the grey of its pixel."""
    mixed = image * strength + (_grey(image).astype(NUMBER) * (NUMBER(1) - strength))[..., None]
    return np.rint(mixed).clip(0, 255).astype(np.uint8)


def _scaled(image, strength, offset):
    """cv::Mat::convertTo: each level times ``strength``, plus ``offset``."""
    return cv2.LUT(image, np.rint(EIGHT_BITS * strength + offset).clip(0, 255).astype(np.uint8))


def _grey(image):
    """cv::cvtColor by COLOR_RGB2GRAY: whole numbers (rows, columns). Blue is weighed as red, as MXNet does."""
    return (image @ GREY + (1 << 13)) >> 14


def normalised(mean: PerChannel, std: PerChannel) -> np.ndarray:
    """The 256 levels less the mean, times one over the deviation, of red, green and blue: float32 (3, 256)."""
    means, deviations = (np.broadcast_to(np.asarray(values, NUMBER).reshape(-1, 1), (3, 1)) for values in (mean, std))
    return (EIGHT_BITS - means) * (NUMBER(1) / deviations)
