"""The pickles of CIFAR's Python version, read without running anything that a pickle names.

They were written by Python 2: a dictionary with lists of labels and one NumPy array, which a pickle rebuilds by calling
three names in ``numpy``. Here those names are classes that only keep what they are given, and any other name is an
error.
"""

import io
import pickle
from typing import Any, Tuple

import numpy as np

from runtime.errors import DataError


def read_batch(data: bytes, labels_key: bytes) -> Tuple[np.ndarray, np.ndarray]:
    """The pixels, uint8 (N, 3072), and the labels, int32 (N,), of a pickled batch. Raises DataError for
    anything else.
    """
    try:
        batch = _StandInUnpickler(io.BytesIO(data), encoding='bytes').load()
        pixels = batch[b'data'].pixels()
        labels = np.array(batch[labels_key], np.int32)
    except DataError:
        raise
    except Exception as error:  # A damaged pickle can fail in any way there is.
        raise DataError(f'not a CIFAR batch: {type(error).__name__}: {error}') from error
    if labels.shape != (len(pixels),):
        raise DataError(f'not a CIFAR batch: {len(pixels)} images but labels of shape {labels.shape}')
    return pixels, labels


class _ArrayStandIn:
    """Takes the place of an array that a pickle rebuilds: it keeps the array's state."""

    def __init__(self, *_: object) -> None:
        self._state: Any = None

    def __setstate__(self, state: Any) -> None:
        self._state = state

    def pixels(self) -> np.ndarray:
        """The array, uint8 of two dimensions. Raises DataError for any other, and other exceptions where the state is
        no array's.
        """
        _, shape, dtype, fortran_order, content = self._state
        if dtype.name != b'u1' or len(shape) != 2:
            raise DataError(f'not a CIFAR batch: its pixels are {dtype.name!r} of shape {shape}')
        return np.frombuffer(content, np.uint8).reshape(shape, order='F' if fortran_order else 'C')


class _DtypeStandIn:
    """Takes the place of a dtype: it keeps the name."""

    def __init__(self, name: bytes, *_: object) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        """Ignore byte order and alignment, which bytes do not have."""


class _StandInUnpickler(pickle.Unpickler):
    _KNOWN = {
        ('numpy.core.multiarray', '_reconstruct'): _ArrayStandIn,
        ('numpy', 'ndarray'): _ArrayStandIn,
        ('numpy', 'dtype'): _DtypeStandIn,
    }

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for ``module.name``. Raises DataError for any other name."""
        if (module, name) not in self._KNOWN:
            raise DataError(f'not a CIFAR batch: it names {module}.{name}')
        return self._KNOWN[module, name]
