"""What a network computes before its softmax, and how to tell whether two networks compute the same."""

import numpy as np

from runtime.errors import GraphError

from .graph import Graph, data_shape_of
from .losses import logits


def logits_graph(symbol):
    """The graph that ends in the logits, and the node that the symbol itself ends in (its softmax, where it has one).

    A label, which only the loss reads, is gone with it. Raises GraphError for a network of several outputs.
    """
    graph = Graph.from_symbol(symbol)
    if len(graph.heads) != 1:
        raise GraphError(
            f'the network has {len(graph.heads)} outputs ({", ".join(head.node.name for head in graph.heads)}); one is '
            'expected'
        )
    return logits(graph), graph.heads[0].node


def input_name(graph, known):
    """The name of the one variable that is not among the names in ``known``: the images. GraphError where there are
    none or several.
    """
    found = [node.name for node in graph.variables() if node.name not in known]
    if len(found) != 1:
        raise GraphError(
            f'exactly one input is expected, the images; without parameters are: {", ".join(found) or "none"}'
        )
    return found[0]


def image_shape_of(symbol, image_shape=None):
    """(channels, height, width) as given, or as the symbol itself says. GraphError where neither does."""
    shape = tuple(image_shape) if image_shape else data_shape_of(symbol)
    if not shape:
        raise GraphError('this symbol does not say which images it takes; give their shape, channels,height,width')
    return shape


def example_images(image_shape, count, seed=0, dtype='float32'):
    """Images of noise (count, C, H, W), the same for the same seed: what conversions are tried on where there are no
    real ones.
    """
    return np.random.RandomState(seed).standard_normal((count, *image_shape)).astype(dtype)


def relative_difference(found, expected):
    """max |Δ| over the largest |expected|, which is taken as at least 1. Infinite where a value is not finite in one of
    the two only.
    """
    if found.shape != expected.shape:
        return float('inf')
    gap = np.where(found == expected, 0, np.abs(found.astype('float64') - expected))
    return float(np.nan_to_num(gap.max(initial=0), nan=np.inf) / max(1.0, np.abs(expected).max(initial=0)))
