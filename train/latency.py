"""How long each structure of a network takes on this machine, measured: for ``--gamma-weight latency``.

The network is timed with and without a structure, in MXNet on the CPU, on one image. Blocks are taken out one at a
time; of a layer of channels, and of each row of groups, half is taken out at once, and all of it counts alike.
"""

from __future__ import annotations

import time
from typing import Callable, Dict, Iterator, List, Sequence, Tuple

import numpy as np

from graphs.graph import Shape
from graphs.lambdas import LambdaVector, lambda_layout
from graphs.shrink import shrink
from runtime import mx

WARM_UP, TURNS = 3, 15
# What is too quick to be measured counts as this share of the slowest structure.
LEAST = 0.01


def seconds_of(symbols: Sequence[mx.sym.Symbol], data_shapes: Dict[str, Shape]) -> List[float]:
    """The shortest time of a forward pass of each network in seconds, of several in which the networks take turns."""
    executors = [symbol.simple_bind(mx.cpu(), grad_req='null', **data_shapes) for symbol in symbols]
    for executor in executors:
        for array in (*executor.arg_arrays, *executor.aux_arrays):
            array[:] = 0.5  # no zeros, nor numbers so small that a processor is slow with them
    found = np.zeros((WARM_UP + TURNS, len(executors)))
    for turn in found:
        for place, executor in enumerate(executors):
            start = time.perf_counter()
            executor.forward(is_train=False)[0].wait_to_read()
            turn[place] = time.perf_counter() - start
    return found[WARM_UP:].min(axis=0).tolist()


def latency_weights(
    symbol: mx.sym.Symbol,
    data_shapes: Dict[str, Shape],
    seconds: Callable[[Sequence[mx.sym.Symbol], Dict[str, Shape]], List[float]] = seconds_of,
) -> Dict[str, np.ndarray]:
    """The time that each structure takes over that of the slowest one, from ``LEAST`` to 1: dict from the name of a λ
    to an array of its shape. ``seconds`` times networks, as ``seconds_of`` does.

    Raises GraphError where λ multiplies feature maps, CannotShrinkError where it cannot be done without a structure.
    """
    shapes = dict(zip(symbol.list_arguments(), symbol.infer_shape(**data_shapes)[0]))
    whole, found = shrink(symbol, {}, data_shapes).symbol, {}
    for vector in lambda_layout(symbol):
        found[vector.name] = np.zeros(shapes[vector.name])
        for taken, alike in _parts(vector, shapes[vector.name]):
            before, after = seconds([whole, shrink(symbol, {vector.name: taken}, data_shapes).symbol], data_shapes)
            found[vector.name][alike] = max(before - after, 0) / taken.sum()
    slowest = max(array.max() for array in found.values())
    return {name: np.maximum(array / slowest, LEAST) if slowest else array + 1 for name, array in found.items()}


def _parts(vector: LambdaVector, shape: Shape) -> Iterator[Tuple[np.ndarray, np.ndarray]]:
    """Pairs of masks over a λ: what is taken out at once, and what counts like it."""
    places = np.arange(int(np.prod(shape))).reshape(shape)
    is_one_row = vector.kind == 'neuron' or vector.kind == 'group' and places.ndim == 1
    for row in [places.reshape(-1)] if is_one_row else places.reshape(len(places), -1):
        yield np.isin(places, row[: max(1, len(row) // 2)]), np.isin(places, row)
