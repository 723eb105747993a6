"""How far two networks are apart: their outputs on the same images, each measured by its own spread."""

from typing import Any, Dict, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from .graph import Shape
from .values import Params

# The relative difference that rounding explains, in single precision and with parameters in half precision: sums over
# fewer channels, or of scaled weights, round in other places.
TOLERANCE, HALF_TOLERANCE = 1e-4, 2e-2
# Where an output hardly depends on the images, single precision does not show differences of TOLERANCE of its spread.
# The spread then counts as this part of the largest distance of a number from the mean of all of them.
SMALLEST_SPREAD = 3e-2
# What rounding alone changes, in units in the last place of the largest number.
ROUNDING_STEPS = 4


class OutputDifference(NamedTuple):
    """How far two networks are apart in one output.

    ``largest`` is the largest |Δ| of a number, ``relative`` that as a part of the output's spread, ``agreement`` the
    part of the images for which both put the same class first; None for an output that is no vector of classes.
    """

    name: str
    largest: float
    relative: float
    agreement: Optional[float]


class Difference(NamedTuple):
    """How far two networks are apart on ``images`` images: the worst of their ``outputs``, each an
    ``OutputDifference``.
    """

    images: int
    largest: float
    relative: float
    agreement: Optional[float]
    outputs: Tuple[OutputDifference, ...]

    @property
    def worst(self) -> OutputDifference:
        """The output of the largest relative difference."""
        return max(self.outputs, key=lambda output: output.relative)

    def as_dict(self) -> Dict[str, Any]:
        """The difference for JSON: one object, and one for each output where there are several."""
        found = self._asdict()
        outputs = [output._asdict() for output in found.pop('outputs')]
        return {**found, 'outputs': outputs} if len(outputs) > 1 else found

    def is_within(self, tolerance: float) -> bool:
        """Whether every output differs by at most ``tolerance`` and puts the same class first for every image."""
        return self.relative <= tolerance and self.agreement in (None, 1)


def default_tolerance(arg_params: Params) -> float:
    """The relative difference that rounding explains, for a network of these parameters (name → NDArray)."""
    is_half = any(array.dtype == np.float16 for array in arg_params.values())
    return HALF_TOLERANCE if is_half else TOLERANCE


def noise(count: int, data_shapes: Mapping[str, Shape], seed: int = 0) -> Dict[str, np.ndarray]:
    """``count`` images of normal noise for each input, in the range of normalised data: a dict name → array.

    ``data_shapes`` maps names to shapes, the batch first. The same seed gives the same images.
    """
    random = np.random.RandomState(seed)
    return {name: random.normal(size=(count, *shape[1:])).astype(np.float32) for name, shape in data_shapes.items()}


def compare_outputs(
    expected: Sequence[np.ndarray],
    found: Sequence[np.ndarray],
    names: Optional[Sequence[str]] = None,
    tolerance: float = TOLERANCE,
) -> Difference:
    """The ``Difference`` of the outputs of two networks, each a list of arrays (images first), one for each output.

    Every output is measured by its own spread over the images, so that neither a large constant nor a larger output
    hides a difference. NaN, an infinity in one of the two only, other shapes and other numbers of outputs are
    infinitely far apart. Two classes that ``expected`` holds to be less than ``tolerance`` of the spread apart may
    change places: that is rounding.
    """
    names = names or [f'output {position}' for position in range(len(expected))]
    outputs = tuple(_difference(*pair, tolerance) for pair in zip(names, expected, found))
    if len(expected) != len(found):
        outputs += (OutputDifference('the number of outputs', np.inf, np.inf, None),)
    agreements = [output.agreement for output in outputs if output.agreement is not None]
    return Difference(
        len(expected[0]),
        max(output.largest for output in outputs),
        max(output.relative for output in outputs),
        min(agreements, default=None),
        outputs,
    )


def largest_difference(first: np.ndarray, second: np.ndarray) -> float:
    """max |Δ| in double precision; equal infinities are equal, and NaN is infinitely far from everything."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    with np.errstate(invalid='ignore'):
        gap = np.where(first == second, 0, np.abs(first - second))
    return float(np.where(np.isnan(gap), np.inf, gap).max(initial=0))


def spread(values: np.ndarray) -> float:
    """How much an output (images first) changes from image to image: the standard deviation of each number over the
    images, and of these the root mean square.

    It is never so small that rounding counts: see ``SMALLEST_SPREAD`` and ``ROUNDING_STEPS``. A constant that is added
    to all numbers makes it no larger. Infinities are left out.
    """
    finite = values[np.isfinite(values)].astype(np.float64)
    if not finite.size:
        return 0.0
    farthest = float(np.abs(finite - finite.mean()).max())
    return max(_deviation(values), SMALLEST_SPREAD * farthest, _rounding(values) / TOLERANCE)


def _rounding(values: np.ndarray) -> float:
    return float(ROUNDING_STEPS * np.spacing(np.abs(values[np.isfinite(values)]).max(initial=0).astype(np.float32)))


def _deviation(values: np.ndarray) -> float:
    """See ``spread``; of one image alone the standard deviation of its numbers."""
    values = np.where(np.isfinite(values), values, 0).astype(np.float64).reshape(len(values), -1)
    deviations = values - (values.mean(axis=0) if len(values) > 1 else values.mean())
    return float(np.sqrt((deviations**2).mean()))


def _difference(name: str, expected: np.ndarray, found: np.ndarray, tolerance: float) -> OutputDifference:
    if expected.shape != found.shape:
        return OutputDifference(f'{name} of shape {expected.shape} and {found.shape}', np.inf, np.inf, None)
    largest, scale = largest_difference(expected, found), spread(expected)
    relative = largest / scale if scale else largest
    return OutputDifference(name, largest, relative, _agreement(expected, found, tolerance))


def _agreement(expected: np.ndarray, found: np.ndarray, tolerance: float) -> Optional[float]:
    """The part of the images for which ``found`` puts a class first that ``expected`` puts first, or as good as
    first.
    """
    if expected.ndim != 2 or expected.shape[1] < 2:
        return None
    lost = expected.max(axis=1) - expected[np.arange(len(expected)), found.argmax(axis=1)]
    return float((lost <= max(tolerance * _deviation(expected), _rounding(expected))).mean())
