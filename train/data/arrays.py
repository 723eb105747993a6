"""Data sets in arrays, and the label of the blank images that fill up a batch."""

from dataclasses import dataclass
from typing import Sequence, Tuple, Union

import numpy as np

# A label that no class has, for blank images that fill up a batch: code that counts them by mistake gets a worse score,
# never a better one.
NO_CLASS = -1
# Training images uint8 (N, C, H, W) and labels int32 (N,), then those to test with.
Split = Tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


class Recycled:
    """``count`` images, which are those of ``pool`` (K, C, H, W) again and again: a data set of any size in little
    memory.
    """

    def __init__(self, pool: np.ndarray, count: int) -> None:
        self.pool = pool
        self.shape: Tuple[int, ...] = (count, *pool.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Union[int, Sequence[int], np.ndarray]) -> np.ndarray:
        return self.pool[np.asarray(index) % len(self.pool)]


Images = Union[np.ndarray, Recycled]


@dataclass(frozen=True)
class Dataset:
    """Images as uint8 (N, C, H, W), indexed by integer arrays, and labels as int32 (N,) in 0..num_classes-1."""

    name: str
    train_images: Images
    train_labels: np.ndarray
    test_images: Images
    test_labels: np.ndarray
    num_classes: int

    @property
    def image_shape(self) -> Tuple[int, ...]:
        """(channels, height, width)."""
        return tuple(self.train_images.shape[1:])
