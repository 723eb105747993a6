"""Scikit-learn's handwritten digits: 1,797 real images that come with the package, so that a first run needs no
download.
"""

import numpy as np

from runtime.errors import MissingDependencyError

from .arrays import Split


def load_digits_split(height: int, width: int) -> Split:
    """The digits as images of (3, height, width), in a fixed split of 1,437 for training and 360 for testing.

    Returns (train images, train labels, test images, test labels); images are uint8 (N, 3, height, width), white (255)
    on black (0); labels are int32 (N,). Raises MissingDependencyError without scikit-learn.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingDependencyError(
            'the digits come with scikit-learn, which is not installed: pip install scikit-learn'
        ) from error
    digits = load_digits()
    images = np.stack([_enlarged(image, height, width) for image in digits.images])
    images = np.repeat(images[:, None], 3, axis=1)
    labels = digits.target.astype(np.int32)
    test = _every_fifth_of_each_class(labels)
    return images[~test], labels[~test], images[test], labels[test]


def _every_fifth_of_each_class(labels):
    """A mask over ``labels``. No random numbers: the split must be the same on every machine and for every training
    seed.
    """
    mask = np.zeros(len(labels), bool)
    mask[np.argsort(labels, kind='stable')[::5]] = True
    return mask


def _enlarged(image, height, width):
    """``image`` is (8, 8) with values 0..16; returns uint8 (height, width), 0..255."""
    from PIL import Image

    grey = Image.fromarray(np.rint(image * (255 / 16)).astype(np.uint8))
    return np.asarray(grey.resize((width, height), Image.BILINEAR))
