"""Taking everything dead out of a graph: strip does it with a network's own parameters, ``AliveCounter`` to count only.

folded = prepare(graph, shapes, names)              # once
values.update(evaluate(folded, values))
sweep(graph, values, shapes, inputs)                # graph, values and shapes are now those of what is left
"""

from typing import Callable, Collection, Dict, Optional

from .attributes import flag, number
from .factors import absorb_factors, cancel_repetitions
from .folding import fold_constants
from .graph import Graph, Node, Output, Shapes
from .pruning import Cut, prune
from .values import Array, cut, like
from .weights import Weights


def prepare(graph: Graph, shapes: Shapes, names: Collection[str], lambda_name: str = 'lambda') -> Dict[str, Output]:
    """Bring ``graph`` into the form that ``sweep`` works on, whatever the numbers in its parameters.

    ``names`` are the parameters. What only they enter becomes one parameter; returns what each such stands for, for
    ``folding.evaluate``. ``SliceChannel`` becomes slices. ``shapes`` is as from ``Graph.shapes`` and follows.
    """
    folded = fold_constants(graph, names, lambda_name)
    _split_into_slices(graph, shapes)
    return folded


def sweep(
    graph: Graph,
    values: Dict[str, Array],
    shapes: Shapes,
    inputs: Collection[str],
    record: Optional[Callable[[Cut], None]] = None,
    round_to: int = 1,
) -> None:
    """Fold factors into the parameters beside them and prune, until nothing more can go.

    ``values`` (dict name → NDArray or NumPy array) holds every parameter; ``inputs`` the names of the data. ``graph``,
    ``values`` and ``shapes`` are changed in place. ``record`` is called with the ``Cut`` of every round. Layers
    keep dead channels up to a multiple of ``round_to``. Raises
    ``NothingLeftError`` where no path from the data to the output is left.
    """
    model = next(values[node.name] for node in graph.variables() if node.name in values)
    while True:
        before = graph.to_json()
        cancel_repetitions(graph, shapes)
        absorb_factors(graph, values, shapes)
        shapes.update({Output(node): values[node.name].shape for node in graph.variables() if node.name in values})
        constants, done = prune(graph, Weights(values), shapes, inputs, round_to)
        values.update({name: like(array, model) for name, array in constants.items()})
        if done.is_empty and graph.to_json() == before:
            return
        if record:
            record(done)
        shapes.update({source: done.shape_of(source, shape) for source, shape in shapes.items()})
        for name, masks in done.parameters.items():
            if all(mask is None or mask.any() for mask in masks):  # else nobody reads it any more
                values[name] = cut(values[name], masks)


def _split_into_slices(graph, shapes):
    """Turn every ``SliceChannel`` into slices, which may be of different widths once channels are gone."""
    replacements = {}
    for node in graph.nodes():
        if node.op != 'SliceChannel' or flag(node, 'squeeze_axis'):
            continue
        axis, parts = number(node, 'axis', 1), number(node, 'num_outputs')
        width = shapes[node.inputs[0]][axis] // parts
        for part in range(parts):
            read = Output(node, part)
            if read in shapes:
                attrs = {'axis': str(axis), 'begin': str(part * width), 'end': str((part + 1) * width)}
                name = graph.fresh_name(f'{node.name}_part{part}')
                replacements[read] = Output(Node('slice_axis', name, attrs, node.inputs))
                shapes[replacements[read]] = shapes[read]
    graph.replace(replacements)
