"""Two trained networks side by side: tensor by tensor, and in what they compute."""

from typing import NamedTuple, Optional

import numpy as np

from graphs.heads import example_images, relative_difference
from runtime.errors import CheckpointError, UserError

SAME_SHAPE, OTHER_SHAPE, ONLY_A, ONLY_B = 'compared', 'other shape', 'only in A', 'only in B'


class TensorDifference(NamedTuple):
    """One tensor in both networks: ``status`` says whether it could be compared at all, ``relative`` is max |Δ| over
    the largest value of the two.
    """

    name: str
    status: str
    shape_a: Optional[tuple] = None
    shape_b: Optional[tuple] = None
    max_abs: float = float('inf')
    relative: float = float('inf')


class OutputDifference(NamedTuple):
    """Logits of both networks on the same images; ``relative`` is max |Δ| over the largest logit of A, or over 1 if
    that is less.
    """

    images: int
    max_abs: float
    relative: float
    top1_agreement: float


def compare_tensors(a, b):
    """The TensorDifferences of two dicts name → NumPy array, the worst first."""
    return sorted(
        (_difference(name, a.get(name), b.get(name)) for name in a.keys() | b.keys()),
        key=lambda row: (-row.relative, row.status, row.name),
    )


def compare_outputs(a, b, image_shape, count, seed):
    """The OutputDifference of two Models on ``count`` images of noise; the same seed gives the same images.

    Raises UserError where one of them cannot compute, or their numbers of classes differ.
    """
    images = example_images(image_shape, count, seed)
    logits_a, logits_b = a.logits(images), b.logits(images)
    if logits_a.shape != logits_b.shape:
        raise UserError(f'A gives logits of shape {logits_a.shape}, B of {logits_b.shape}')
    agree = logits_a.argmax(1) == logits_b.argmax(1)
    return OutputDifference(
        count, _max_gap(logits_a, logits_b), relative_difference(logits_b, logits_a), float(agree.mean())
    )


def comparable_params(a, b):
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
    gap = _max_gap(a, b)
    scale = max((float(np.abs(values[np.isfinite(values)]).max(initial=0)) for values in (a, b)), default=0)
    return TensorDifference(name, SAME_SHAPE, a.shape, b.shape, gap, gap / scale if scale else gap)


def _max_gap(a, b):
    """max |a - b| in double precision; NaN beside NaN and infinity beside the same infinity are equal, beside anything
    else infinitely far.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid='ignore'):
        gap = np.abs(a - b)
    return float(np.where(same, 0, np.where(np.isnan(gap), np.inf, gap)).max(initial=0))
