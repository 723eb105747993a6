"""Parameters as the sweep handles them: NDArrays, NumPy arrays, and stand-ins for numbers that are not known.

A stand-in repeats one number over its whole shape and takes no memory (``np.broadcast_to``): strides of 0 mark the axes
along which the true numbers differ in an unknown way.
"""

from typing import Dict, Optional, Sequence, Tuple, Union

import numpy as np

from runtime import mx

Array = Union[np.ndarray, 'mx.nd.NDArray']
# Parameters or auxiliary states by name.
Params = Dict[str, 'mx.nd.NDArray']


def stand_in(shape: Tuple[int, ...], number: float = 1.0) -> np.ndarray:
    """A stand-in of ``shape`` for numbers of which only the sign, or that they are zero, is known."""
    return np.broadcast_to(np.float32(number), shape)


def to_numpy(array: Array) -> np.ndarray:
    """The array for NumPy; a NumPy array as it is."""
    return array.asnumpy() if isinstance(array, mx.nd.NDArray) else array


def distinct(array: np.ndarray) -> np.ndarray:
    """A NumPy array with each axis along which it repeats itself cut to length 1. It broadcasts to the whole."""
    return array[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in array.strides)]


def repeats(array: np.ndarray, axis: int) -> bool:
    """Whether a NumPy array repeats itself along another axis than ``axis``: its numbers there are not truly equal."""
    return any(
        stride == 0 and length > 1 and place != axis
        for place, (stride, length) in enumerate(zip(array.strides, array.shape))
    )


def cut(array: Array, masks: Sequence[Optional[np.ndarray]]) -> Array:
    """``array`` with only the entries that the masks, one for each axis or None, leave."""
    for axis, mask in enumerate(masks):
        if mask is None:
            continue
        if isinstance(array, mx.nd.NDArray):
            array = mx.nd.take(array, mx.nd.array(np.flatnonzero(mask), dtype='int32'), axis=axis)
        else:
            shape = list(array.shape)
            shape[axis] = int(np.count_nonzero(mask))
            numbers = distinct(array)
            numbers = np.compress(mask, numbers, axis=axis) if len(mask) == numbers.shape[axis] else numbers
            array = np.broadcast_to(numbers, shape)
    return array


def times(array: Array, numbers: np.ndarray, shape: Tuple[int, ...]) -> Array:
    """``array`` times ``numbers`` in ``shape``, computed in single precision at least; of the kind of ``array``."""
    precision = np.promote_types(array.dtype, np.float32)
    numbers = numbers.reshape(shape).astype(precision)
    if isinstance(array, mx.nd.NDArray):
        return like(array.asnumpy() * numbers, array)
    return np.broadcast_to((distinct(array) * numbers).astype(array.dtype), array.shape)


def like(numbers: np.ndarray, array: Array) -> Array:
    """``numbers`` in the type and of the kind of ``array``."""
    if isinstance(array, mx.nd.NDArray):
        return mx.nd.array(numbers, dtype=array.dtype)
    return np.asarray(numbers, array.dtype)
