"""Proof that a converted network computes what MXNet computes, on noise in several batch sizes."""

from typing import Callable, List

import numpy as np

from graphs.comparison import TOLERANCE, Difference, compare_outputs, noise
from graphs.folding import require_deterministic
from graphs.graph import Graph, Shape, only_input
from graphs.losses import logits
from graphs.predictor import Predictor
from graphs.proof import require_equal

BATCH_SIZES = (1, 4)
# As many images where a network fixes its batch.
FEWEST_IMAGES = 4


def prove_conversion(
    converted: Callable[[np.ndarray], List[np.ndarray]], original: Predictor, image_shape: Shape, what: str
) -> Difference:
    """The ``Difference`` between the outputs of a converted network and the original on noise.

    ``converted`` is a function from images (N, channels, height, width) to the outputs, one array for each. Raises
    ProofError, which begins with ``what`` was converted, where they differ by more than rounding.
    """
    require_deterministic(logits(Graph.from_symbol(original.symbol)))
    pairs = [(original(images), converted(images)) for images in batches_of_noise(original, image_shape)]
    expected, found = ([np.concatenate(parts) for parts in zip(*outputs)] for outputs in zip(*pairs))
    difference = compare_outputs(expected, found, original.outputs)
    require_equal(difference, TOLERANCE, f'{what} and MXNet differ')
    return difference


def batches_of_noise(network: Predictor, image_shape: Shape) -> List[np.ndarray]:
    """Different images of noise in ``BATCH_SIZES``, or in batches of the size that the network fixes."""
    shapes = {only_input(network.inputs): (1, *image_shape)}
    fixed = network.fixed_batch(shapes)
    sizes = (fixed,) * -(-FEWEST_IMAGES // fixed) if fixed else BATCH_SIZES
    (images,) = noise(sum(sizes), shapes).values()
    return np.split(images, np.cumsum(sizes)[:-1])
