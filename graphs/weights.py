"""The numbers in the parameters, as the liveness analysis reads them: sums, equal entries, non-zero entries."""

from typing import Dict, Tuple

import numpy as np

from .graph import Output
from .values import Array, distinct, repeats, to_numpy

UNKNOWN = np.nan


class Weights:
    """The numbers in the parameters, as the sweeps look at them: a mapping from names to arrays of ``values``."""

    BLOCK = 1 << 22

    def __init__(self, arrays: Dict[str, Array]) -> None:
        self.arrays = arrays
        self._nonzero: Dict[Tuple[str, int], np.ndarray] = {}

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def vector(self, source: Output) -> np.ndarray:
        """All entries as a vector of float64."""
        return self._array(source).astype(np.float64).ravel()

    def along(self, source: Output, axis: int) -> np.ndarray:
        """The number at each position of ``axis``, NaN where the entries there are not all the same."""
        array = self._array(source)
        rows = np.moveaxis(distinct(array).astype(np.float64), axis, 0)
        rows = rows.reshape(rows.shape[0], -1)
        same = (rows == rows[:, :1]).all(axis=1)
        if repeats(array, axis):
            same &= rows[:, 0] == 0
        return np.broadcast_to(np.where(same, rows[:, 0], UNKNOWN), (array.shape[axis],))

    def number(self, source: Output) -> float:
        """The one number that all entries are, NaN where they are not all the same."""
        found = self.along(source, 0)
        return found[0] if len(found) == 1 or (found == 0).all() else UNKNOWN

    def sums(self, source: Output, axis: int) -> np.ndarray:
        """The kernel of each pair (output, input) summed, float64; inputs lie along ``axis``."""
        rows = np.moveaxis(self._array(source).astype(np.float64), axis, 1)
        return rows.reshape(*rows.shape[:2], -1).sum(axis=2)

    def nonzero(self, source: Output, axis: int) -> np.ndarray:
        """Whether any weight of each pair (output, input) is not zero; inputs lie along ``axis``.

        Weights are read in blocks, since a copy of the largest would double the memory.
        """
        array, key = self.arrays[source.node.name], (source.node.name, axis)
        if key not in self._nonzero:
            pairs = (array.shape[0], array.shape[axis])
            array = distinct(array) if isinstance(array, np.ndarray) else array
            rows = max(1, self.BLOCK // max(1, int(np.prod(array.shape[1:]))))
            parts = [
                np.moveaxis(to_numpy(array[start : start + rows]) != 0, axis, 1)
                for start in range(0, array.shape[0], rows)
            ]
            found = np.concatenate([part.reshape(*part.shape[:2], -1).any(axis=2) for part in parts])
            self._nonzero[key] = np.broadcast_to(found, pairs)
        return self._nonzero[key]

    def _array(self, source):
        return to_numpy(self.arrays[source.node.name])
