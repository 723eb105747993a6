"""What the authors' pipeline does to an image, exactly as MXNet's ``ImageRecordIter``: random crops, colours and
mirroring; the centre for validation.

That includes what looks odd: grey is weighed as if blue were red, and the noise on colours is rounded down.
(tests/test_data_image_stock.py compares with MXNet's iterator.) Only ``draw`` draws random numbers, for many images at
once; what is done to one image follows from its row of them.
"""

import itertools
import math
from typing import Any, Callable, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from runtime.errors import DataError
from runtime.packages import cv2

from .augment import RGB_MEAN, RGB_STD, PerChannel
from .image_decode import decode, inspect

ATTEMPTS = 10
# A row of draws: areas, aspects and swaps of each attempt, the place of the crop, mirror, magnitudes and order of the
# colours, all uniform in [0, 1); then the normal ones, for the noise on colours.
AREA, ASPECT, SWAP, TOP, LEFT = 0, ATTEMPTS, 2 * ATTEMPTS, 3 * ATTEMPTS, 3 * ATTEMPTS + 1
MIRROR, COLOURS, ORDER, NOISE = LEFT + 1, LEFT + 2, LEFT + 5, LEFT + 6
DRAWS = NOISE + 3
# The principal components of ImageNet's colours (Krizhevsky et al. 2012), each times its eigenvalue; rows are red,
# green, blue.
EIGENVECTORS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
EIGENVALUES = np.array([55.46, 4.794, 1.148])
COMPONENTS = EIGENVECTORS * EIGENVALUES
ORDERS = tuple(itertools.permutations(range(3)))


class ImageAugmentation(NamedTuple):
    """What may happen to a training image; the default is the authors' recipe."""

    area: Tuple[float, float] = (0.08, 1.0)  # of the crop, relative to the image
    aspect: Tuple[float, float] = (3 / 4, 4 / 3)  # of the crop; it is turned half of the time
    brightness: float = 0.4  # the image is multiplied by a number from 1 - 0.4 to 1 + 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    pca_noise: float = 0.1  # standard deviation along the principal components
    mirror: bool = True


def draw(generator: np.random.Generator, count: int) -> np.ndarray:
    """Random rows for ``count`` images, float64 (count, DRAWS), from a ``numpy.random.Generator``."""
    return np.concatenate([generator.random((count, NOISE)), generator.standard_normal((count, DRAWS - NOISE))], axis=1)


class RandomView:
    """Training images, augmented; ``image_shape`` is (3, height, width)."""

    # Where the crop is large enough, the network loses nothing by decoding at half the size, in half the time.
    reductions: Tuple[int, ...] = (4, 2)

    def __init__(
        self,
        image_shape: Sequence[int],
        augmentation: Optional[ImageAugmentation] = None,
        mean: PerChannel = RGB_MEAN,
        std: PerChannel = RGB_STD,
    ) -> None:
        _, self._height, self._width = image_shape
        self._augmentation = augmentation or ImageAugmentation()
        # Levels -255 … 510, normalised as the nearest one in 0 … 255: a shift of all levels is then a part of this.
        self._levels = _normalised(np.arange(-255, 511).clip(0, 255), mean, std)

    def __call__(self, data: bytes, draws: np.ndarray, out: np.ndarray) -> None:
        """Decode the image file ``data`` and write it, augmented by a row of ``draws`` and normalised, into ``out``,
        float32 (3, height, width), RGB. Raises DataError for a damaged image.
        """
        draws = draws.tolist()
        image = self._colours(self._crop(data, draws), draws)
        if self._augmentation.mirror and draws[MIRROR] < 0.5:
            image = cv2.flip(image, 1)
        _normalise(image, self._table(draws[NOISE:]), out)

    def _crop(self, data, draws):
        frame = inspect(data)
        if frame is None:
            image = decode(data)
            return self._resized(image, self._box(*image.shape[:2], draws))
        box = self._box(frame.height, frame.width, draws)
        if box is None:
            return self._resized(decode(data, frame), None)
        top, left, height, width = box
        fitting = (
            factor for factor in self.reductions if height >= factor * self._height and width >= factor * self._width
        )
        reduction = next(fitting, 1)
        image = decode(data, frame, top + height, reduction)
        return self._resized(image, tuple(side // reduction for side in box))

    def _box(self, height, width, draws):
        return random_box(height, width, draws, self._augmentation)

    def _resized(self, image, box):
        if box is None:
            return centre(_at_least(image, self._height, self._width), self._height, self._width)
        top, left, height, width = box
        return _resize(image[top : top + height, left : left + width], self._height, self._width)

    def _colours(self, image, draws):
        recipe = self._augmentation
        limits = recipe.brightness, recipe.contrast, recipe.saturation
        if not any(limits):
            return image
        for which in ORDERS[int(6 * draws[ORDER])]:
            image = self._changes()[which](image, self._strength(limits[which], draws[COLOURS + which]))
        return image

    def _strength(self, limit, draw):
        return 1 + limit * (2 * draw - 1)

    def _changes(self):
        return CHANGES

    def _table(self, normals):
        """What each of the 256 levels of red, green and blue becomes: three float32 (256,)."""
        shifts = np.floor(COMPONENTS @ normals * self._augmentation.pca_noise).clip(-255, 255).astype(int) + 255
        return [levels[shift : shift + 256] for levels, shift in zip(self._levels, shifts.tolist())]


class CentreView:
    """Images to validate with: the shorter side becomes ``resize`` pixels, and the centre of ``image_shape`` is cut
    out. Raises DataError where that is larger.
    """

    def __init__(
        self, image_shape: Sequence[int], resize: int, mean: PerChannel = RGB_MEAN, std: PerChannel = RGB_STD
    ) -> None:
        _, self._height, self._width = image_shape
        if resize < max(self._height, self._width):
            raise DataError(
                f'--resize {resize}: the centre of {self._height} x {self._width} pixels is larger than that'
            )
        self._resize = resize
        self._table = _normalised(np.arange(256), mean, std)

    def __call__(self, data: bytes, draws: Optional[np.ndarray], out: np.ndarray) -> None:
        """Decode the image file ``data`` and write its centre, normalised, into ``out``, float32 (3, height, width),
        RGB. ``draws`` is not used. Raises DataError for a damaged image.
        """
        inspect(data)
        image = decode(data)
        height, width = image.shape[:2]
        shorter = min(height, width)
        image = self._resized(image, self._resize * height // shorter, self._resize * width // shorter)
        _normalise(centre(image, self._height, self._width), self._table, out)

    def _resized(self, image, height, width):
        return _resize(image, height, width)


def random_box(
    height: int,
    width: int,
    draws: Sequence[float],
    augmentation: ImageAugmentation,
    number: Callable[[float], Any] = float,
) -> Optional[Tuple[int, int, int, int]]:
    """(top, left, height, width) in pixels of a crop of an image, by a row of ``draws``; None where no attempt fits
    into the image, and the centre is to be taken. ``number`` is the type that it is computed in, ``float`` or
    ``np.float32``.
    """
    least, most, flattest, steepest = map(number, augmentation.area + augmentation.aspect)
    for attempt in range(ATTEMPTS):
        area = number(height * width) * (least + (most - least) * number(draws[AREA + attempt]))
        aspect = flattest + (steepest - flattest) * number(draws[ASPECT + attempt])
        rows, columns = (int(number(math.sqrt(square)) + 0.5) for square in (area / aspect, area * aspect))
        if draws[SWAP + attempt] > 0.5:
            rows, columns = columns, rows
        if 0 < rows <= height and 0 < columns <= width:
            return int(draws[TOP] * (height - rows + 1)), int(draws[LEFT] * (width - columns + 1)), rows, columns
    return None


def change_brightness(image: np.ndarray, strength: float) -> np.ndarray:
    """Each level of ``image``, uint8 (rows, columns, 3), times ``strength``."""
    return cv2.convertScaleAbs(image, alpha=strength)


def change_contrast(image: np.ndarray, strength: float) -> np.ndarray:
    """Move each level away from (``strength`` > 1) or towards (< 1) the mean grey of the image."""
    grey = cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0]
    return cv2.addWeighted(image, strength, image, 0, (1 - strength) * grey)


def change_saturation(image: np.ndarray, strength: float) -> np.ndarray:
    """Move each level away from (``strength`` > 1) or towards (< 1) the grey of its pixel."""
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2BGR)
    return cv2.addWeighted(image, strength, grey, 1 - strength, 0)


CHANGES = change_brightness, change_contrast, change_saturation


def _resize(image, height, width):
    if image.shape[:2] == (height, width):
        return image
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)


def _at_least(image, height, width):
    """``image``, enlarged where it is smaller than what is to be cut out of it."""
    if image.shape[0] < height:
        image = _resize(image, height, int(height / image.shape[0] * image.shape[1]))
    if image.shape[1] < width:
        image = _resize(image, int(width / image.shape[1] * image.shape[0]), width)
    return image


def centre(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The middle of ``image``, (height, width, 3)."""
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def _normalise(image, table, out):
    """Look up each level of ``image``, uint8 (H, W, 3) BGR, in the ``table`` of 256 for each of red, green and blue,
    and write to ``out`` (3, H, W).
    """
    for plane, levels, target in zip(reversed(cv2.split(image)), table, out):
        cv2.LUT(plane, levels, target)


def _normalised(levels, mean, std):
    """``levels`` (N,) less the mean, over the deviation, of red, green and blue: float32 (3, N)."""
    for option, values in (('mean', mean), ('std', std)):
        if np.size(values) not in (1, 3):
            raise DataError(f'--rgb-{option}: give one number, or one for each of the 3 channels, not {list(values)}')
    mean, std = (np.array(values, float).reshape(-1, 1) * np.ones((3, 1)) for values in (mean, std))
    return ((levels - mean) / std).astype(np.float32)
