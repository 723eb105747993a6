"""Proof that two networks compute the same: both run on the same images, and their logits are compared number by
number.
"""

import contextlib
import os
from typing import NamedTuple

import numpy as np

from runtime import mx
from runtime.errors import ProofError

from .folding import widened
from .graph import Graph, Output
from .losses import logits
from .onednn_workaround import guard_sums
from .operator_table import PRODUCTS

CASTS = ('Cast', 'amp_cast')
BATCH = 2
SEED = 0


class Network(NamedTuple):
    """A symbol and its parameters (dicts name → NDArray)."""

    symbol: object
    arg_params: dict
    aux_params: dict


class Difference(NamedTuple):
    """How far two networks are apart on ``images`` images: the largest |Δ| of a logit, that as a part of the largest
    |logit|, and how often both put the same class first.
    """

    images: int
    largest: float
    relative: float
    agreement: float


def default_tolerance(arg_params):
    """The relative difference that rounding explains: sums over fewer channels, or of scaled weights, round in other
    places.
    """
    return 2e-2 if any(array.dtype == np.float16 for array in arg_params.values()) else 1e-4


def noise(count, data_shapes):
    """``count`` images of normal noise for each input, the range of normalised data: a dict name → array, the same on
    every call.
    """
    random = np.random.RandomState(SEED)
    return {name: random.normal(size=(count, *shape[1:])).astype(np.float32) for name, shape in data_shapes.items()}


def prove(before, after, images, tolerance, expected=None):
    """The ``Difference`` of two ``Network``s on ``images`` (dict name → array, the image first).

    ``expected`` are the logits of the first, if they are known already. Raises ``ProofError``, which names the first
    tensor that differs, where the relative difference is above ``tolerance``.
    """
    found = difference(run_to_logits(before, images) if expected is None else expected, run_to_logits(after, images))
    if not found.relative <= tolerance:
        raise ProofError(
            f'the two networks differ: logits by {found.largest:.3g}, {found.relative:.3g} of the largest, above the '
            f'tolerance of {tolerance:g}; '
            f'{_first_different(before, after, images, tolerance)}'
        )
    return found


def difference(expected, found):
    """The ``Difference`` of the logits of two networks, each a list of arrays (images first), one for each output."""
    largest = max(np.abs(first - second).max() for first, second in zip(expected, found))
    scale = max(np.abs(first).max() for first in expected)
    classes = [
        np.concatenate([output.reshape(len(output), -1).argmax(axis=1) for output in outputs])
        for outputs in (expected, found)
    ]
    return Difference(
        len(expected[0]),
        float(largest),
        float(largest / scale) if scale else float(largest),
        float((classes[0] == classes[1]).mean()),
    )


def run_to_logits(network, images):
    """The logits of a ``Network`` for ``images`` (dict name → array), one array for each output."""
    return run(network, images, logits(Graph.from_symbol(network.symbol)))


def run(network, images, graph, batch=BATCH):
    """The heads of ``graph``, a part of ``network``, for ``images``, as float32 arrays; ``batch`` images at a time, so
    that feature maps take little memory.

    Half-precision networks run in single precision, since MXNet lacks half-precision operators on a CPU.
    """
    guard_sums(graph)  # lest a right network be blamed for MXNet's wrong sum
    graph.replace({Output(node): node.inputs[0] for node in graph.nodes() if node.op in CASTS})
    symbol = graph.to_symbol()
    arguments = {
        name: widened(network.arg_params[name]) for name in symbol.list_arguments() if name in network.arg_params
    }
    states = {name: widened(network.aux_params[name]) for name in symbol.list_auxiliary_states()}
    count = len(next(iter(images.values())))
    batch = min(batch, count)
    inputs = {name: mx.nd.zeros((batch, *images[name].shape[1:])) for name in symbol.list_arguments() if name in images}
    executor = symbol.bind(mx.cpu(), {**arguments, **inputs}, aux_states=states, grad_req='null')
    parts = []
    for start in range(0, count, batch):
        start = min(start, count - batch)  # the last batch is full: it takes some images again
        for name, array in inputs.items():
            array[:] = images[name][start : start + batch]
        fresh = len(parts) * batch - start
        parts.append([output.asnumpy()[fresh:] for output in executor.forward(is_train=False)])
    return [np.concatenate(outputs) for outputs in zip(*parts)]


def _first_different(before, after, images, tolerance):
    """Where the networks part: the first tensor that both have under one name, and that should be the same."""
    one = {name: array[:1] for name, array in images.items()}
    graphs = [logits(Graph.from_symbol(network.symbol)) for network in (before, after)]
    tensors = [_comparable(graph, other) for graph, other in (graphs, graphs[::-1])]
    names = [name for name in tensors[0] if name in tensors[1]]
    if not names:
        return 'they have no tensor in common'
    with _one_by_one():
        values = [
            run(network, one, Graph([Output(named[name]) for name in names]))
            for network, named in zip((before, after), tensors)
        ]
    for name, first, second in zip(names, *values):
        if first.shape == second.shape and not np.abs(first - second).max() <= tolerance * np.abs(first).max():
            return f'the first tensor that differs is the output of {name}, by {np.abs(first - second).max():.3g}'
    return 'no tensor of the same shape differs before them'


@contextlib.contextmanager
def _one_by_one():
    """Keep MXNet from merging operators: a graph of which every tensor is wanted does not bind when it does."""
    chosen = os.environ.get('MXNET_SUBGRAPH_BACKEND')
    os.environ['MXNET_SUBGRAPH_BACKEND'] = 'NONE'
    try:
        yield
    finally:
        del os.environ['MXNET_SUBGRAPH_BACKEND']
        if chosen is not None:
            os.environ['MXNET_SUBGRAPH_BACKEND'] = chosen


def _comparable(graph, other):
    """The operators by name whose output means the same in ``other``: not those that a factor or normalisation behind
    them may have been folded into.
    """
    readers, names = graph.readers(), {node.name for node in other.nodes()}

    def is_folded(reader):
        return reader is not None and (
            reader.op in ('transpose', *PRODUCTS) or reader.op == 'BatchNorm' and reader.name not in names
        )

    return {
        node.name: node
        for node in readers
        if not node.is_variable
        and node.op != 'SliceChannel'
        and not any(is_folded(reader) for reader, _ in readers[node])
    }
