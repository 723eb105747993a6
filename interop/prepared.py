"""What every conversion begins and ends with: parameters in single precision, λ out of the way, and the proof that
nothing changed.
"""

from graphs.factors import absorb_factors, cancel_repetitions
from graphs.folding import evaluate, fold_constants
from graphs.heads import example_images, relative_difference
from runtime import mx
from runtime.errors import ProofError

TOLERANCE = 1e-4
PROOF_BATCHES = (1, 4)


def single_precision(params):
    """A dict name → NDArray in float32."""
    # A forward pass under way may be moving weights to another memory layout; copied meanwhile, they are wrong.
    mx.nd.waitall()
    return {name: array.astype('float32', copy=False) for name, array in params.items()}


def without_factors(graph, params, data_shapes):
    """Compute what does not depend on the images, and put constant factors where stripping would put them; changes
    ``graph``, and returns the parameters (dict name → NDArray) that it then has.

    A weight keeps its name, so that tensors can be compared with anybody's.
    """
    params = {**params, **evaluate(fold_constants(graph, set(params)), params)}
    absorb_factors(graph, params, graph.shapes({**shapes_of(params), **data_shapes}))
    cancel_repetitions(graph, graph.shapes({**shapes_of(params), **data_shapes}))
    return params


def shapes_of(params):
    """The shape of each array, by name."""
    return {name: array.shape for name, array in params.items()}


def proven(converted, original, image_shape, what):
    """The largest relative difference between the logits of two networks, functions of images, on noise in two batch
    sizes.

    Raises ProofError, which begins with ``what`` was converted, where it is above TOLERANCE.
    """
    batches = [example_images(image_shape, batch) for batch in PROOF_BATCHES]
    difference = max(relative_difference(converted(images), original(images)) for images in batches)
    if not difference <= TOLERANCE:
        raise ProofError(
            f'{what} and MXNet differ by {difference:.2g} of the largest logit, more than {TOLERANCE:g}; nothing was '
            'written'
        )
    return difference
