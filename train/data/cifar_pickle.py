"""The pickles of CIFAR's Python version, read without running anything that a pickle names.

They were written by Python 2: a dictionary with lists of labels and one NumPy array, which a pickle rebuilds by calling
three names in ``numpy``. Here those names mean stand-ins that only keep what they are given, and no other name means
anything.
"""

import io
import pickle

import numpy as np

from runtime.errors import DataError


def read_batch(data, labels_key):
    """The pixels, uint8 (N, 3072), and the labels, int32 (N,), of a pickled batch. Raises ``DataError`` when it is
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
    """Takes the place of an array that a pickle rebuilds."""

    def __init__(self, *_):
        self._state = None

    def __setstate__(self, state):
        self._state = state

    def pixels(self):
        _, shape, dtype, fortran_order, content = self._state
        if dtype.name != b'u1' or len(shape) != 2:
            raise DataError(f'not a CIFAR batch: its pixels are {dtype.name!r} of shape {shape}')
        return np.frombuffer(content, np.uint8).reshape(shape, order='F' if fortran_order else 'C')


class _DtypeStandIn:
    def __init__(self, name, *_):
        self.name = name

    def __setstate__(self, state):
        """Byte order and alignment: nothing for bytes."""


class _StandInUnpickler(pickle.Unpickler):
    _KNOWN = {
        ('numpy.core.multiarray', '_reconstruct'): _ArrayStandIn,
        ('numpy', 'ndarray'): _ArrayStandIn,
        ('numpy', 'dtype'): _DtypeStandIn,
    }

    def find_class(self, module, name):
        if (module, name) not in self._KNOWN:
            raise DataError(f'not a CIFAR batch: it names {module}.{name}')
        return self._KNOWN[module, name]
