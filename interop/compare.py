"""Two trained networks side by side: tensor by tensor, and in what they compute."""

from typing import Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from graphs.comparison import Difference, compare_outputs, largest_difference, noise
from graphs.graph import Shape
from runtime.errors import CheckpointError

from .models import Model

Tensors = Dict[str, np.ndarray]

SAME_SHAPE, OTHER_SHAPE, ONLY_A, ONLY_B = 'compared', 'other shape', 'only in A', 'only in B'


class TensorDifference(NamedTuple):
    """One tensor in both networks: ``status`` says whether it could be compared at all, ``relative`` is max |Δ| over
    the largest value of the two. NaN beside NaN counts as equal.
    """

    name: str
    status: str
    shape_a: Optional[Shape] = None
    shape_b: Optional[Shape] = None
    max_abs: float = float('inf')
    relative: float = float('inf')


def compare_tensors(a: Tensors, b: Tensors) -> List[TensorDifference]:
    """The TensorDifferences of two dicts name → NumPy array, the worst first."""
    return sorted(
        (_difference(name, a.get(name), b.get(name)) for name in a.keys() | b.keys()),
        key=lambda row: (-row.relative, row.status, row.name),
    )


def compare_models(a: Model, b: Model, image_shape: Shape, count: int, seed: int, tolerance: float) -> Difference:
    """The ``Difference`` of two Models on ``count`` images of noise; the same seed gives the same images.

    Raises UserError where one of them cannot compute.
    """
    (images,) = noise(count, {'data': (1, *image_shape)}, seed).values()
    return compare_outputs(a.outputs(images), b.outputs(images), a.output_names, tolerance)


def comparable_params(a: Model, b: Model) -> Tuple[Tensors, Tensors, Optional[str]]:
    """``(params of A, params of B, note)`` of two Models. Where one alone has scaling factors, its λ is folded into the
    parameters beside it, if it can be.
    """
    if a.has_lambda == b.has_lambda:
        return a.params, b.params, None
    scaled, name = (a, 'A') if a.has_lambda else (b, 'B')
    try:
        folded = scaled.params_without_lambda()
    except CheckpointError as error:
        return a.params, b.params, f'only {name} has scaling factors, and they could not be folded: {error}'
    note = f'only {name} has scaling factors: they were folded into its parameters for the comparison of tensors'
    return (folded, b.params, note) if scaled is a else (a.params, folded, note)


def _difference(name, a, b):
    if a is None or b is None:
        return TensorDifference(
            name, ONLY_B if a is None else ONLY_A, None if a is None else a.shape, None if b is None else b.shape
        )
    if a.shape != b.shape:
        return TensorDifference(name, OTHER_SHAPE, a.shape, b.shape)
    both_nan = np.isnan(a) & np.isnan(b)
    gap = largest_difference(*(np.where(both_nan, 0, values) for values in (a, b)))
    scale = max((float(np.abs(values[np.isfinite(values)]).max(initial=0)) for values in (a, b)), default=0)
    return TensorDifference(name, SAME_SHAPE, a.shape, b.shape, gap, gap / scale if scale else gap)
