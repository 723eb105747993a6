"""Proof that two networks compute the same: both run on the same images, and their outputs are compared number by
number.
"""

import contextlib
import os
from typing import Callable, Dict, List, Optional, Sequence

import numpy as np

from runtime.errors import ProofError

from .comparison import Difference, compare_outputs, largest_difference, spread
from .folding import require_deterministic
from .graph import Graph, Output
from .losses import logits
from .operator_table import PRODUCTS
from .predictor import Network, Predictor

# Images that a network computes at a time, so that feature maps take little memory.
BATCH = 2


def prove(
    before: Network,
    after: Network,
    images: Dict[str, np.ndarray],
    tolerance: float,
    expected: Optional[Sequence[np.ndarray]] = None,
) -> Difference:
    """The ``Difference`` of two networks on ``images`` (dict name → array, images first).

    ``expected`` are the outputs of the first, if they are known already. Raises ``ProofError``, which names the first
    tensor that differs, where an output differs by more than ``tolerance`` of its spread or another class is first;
    ``GraphError`` for a network that is random at inference.
    """
    require_deterministic(logits(Graph.from_symbol(before.symbol)))
    expected = outputs_of(before, images) if expected is None else expected
    found = compare_outputs(expected, outputs_of(after, images), output_names(before), tolerance)
    require_equal(
        found, tolerance, 'the two networks differ', lambda: first_difference(before, after, images, tolerance)
    )
    return found


def require_equal(
    found: Difference, tolerance: float, beginning: str, ending: Callable[[], str] = lambda: 'nothing was written'
) -> None:
    """Raise ``ProofError`` unless ``found`` is within ``tolerance``; its message begins and ends as given."""
    if found.is_within(tolerance):
        return
    worst = found.worst
    if not np.isfinite(worst.largest):
        reason = f'{worst.name} is NaN, or infinite in one of them, or of two shapes'
    elif not worst.relative <= tolerance:
        reason = (
            f'{worst.name} by {worst.largest:.3g}, {worst.relative:.3g} of its spread, above the tolerance of '
            f'{tolerance:g}'
        )
    else:
        assert found.agreement is not None
        reason = f'the same class is first on {100 * found.agreement:g} % of the images only'
    raise ProofError(f'{beginning}: {reason}; {ending()}')


def outputs_of(network: Network, images: Dict[str, np.ndarray], batch_size: int = BATCH) -> List[np.ndarray]:
    """What a network puts out before its softmax for ``images`` (dict name → array), one array for each output."""
    return Predictor(network)(images, batch_size)


def output_names(network: Network) -> List[str]:
    """The names of what ``outputs_of`` returns."""
    return [head.node.name for head in logits(Graph.from_symbol(network.symbol)).heads]


def first_difference(before: Network, after: Network, images: Dict[str, np.ndarray], tolerance: float) -> str:
    """Where the networks part: the first tensor that both have under one name, and that should be the same."""
    one = {name: array[:1] for name, array in images.items()}
    graphs = [logits(Graph.from_symbol(network.symbol)) for network in (before, after)]
    tensors = [_comparable(graph, other) for graph, other in (graphs, graphs[::-1])]
    names = [name for name in tensors[0] if name in tensors[1]]
    if not names:
        return 'they have no tensor in common'
    with _one_by_one():
        values = [
            Predictor(network, Graph([Output(named[name]) for name in names]))(one)
            for network, named in zip((before, after), tensors)
        ]
    for name, first, second in zip(names, *values):
        difference = largest_difference(first, second) if first.shape == second.shape else 0
        if difference > tolerance * spread(first):
            return f'the first tensor that differs is the output of {name}, by {difference:.3g}'
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
