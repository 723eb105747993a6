"""How much each structure contributes: what the loss would be without it, measured or estimated.

Blocks are few and large, so the loss is measured without each of them in turn, on training images, by the batch's own
statistics. (By the moving statistics, which belong to the network with the block, the loss rises most without the first
blocks, because the statistics of all layers behind them no longer fit. Training corrects that within a few steps.)
Channels and groups are many and small. For them the change of the loss is estimated to first order by |λ ∂G/∂λ|, its
root mean square over the steps of an epoch (Molchanov et al. 2017, equation 7). Neither changes when λ and the weights
behind it trade scale, which λ alone does.
"""

from __future__ import annotations

import itertools
import logging
from typing import Callable, Dict, Iterable

import numpy as np

from graphs.lambdas import lambda_layout
from runtime import mx

from .engines.interface import Batches
from .metrics import Tally
from .resizing import ResizableEngine

# Images that the loss without a block is measured on.
IMAGES = 1024


def contributions(
    engine: ResizableEngine,
    symbol: mx.sym.Symbol,
    frozen: Dict[str, np.ndarray],
    batches: Batches,
    steps: int,
    make_tally: Callable[[], Tally],
) -> Dict[str, np.ndarray]:
    """The contribution of every structure to the loss: dict from name of λ to an array of its shape, in units of the
    loss (nats).

    Parameters
    ----------
    engine : a ``ResizableEngine`` at the end of an epoch in which it added up importance.
    symbol : the whole network.
    frozen : dict from name of λ to boolean array: True where a structure is dead for good.
    batches : an iterator over batches of training images; the first are used.
    steps : how many steps importance was added up over.
    make_tally : returns a fresh ``Tally``.
    """
    found = {name: np.sqrt(np.maximum(effect, 0) / steps) for name, effect in engine.importance().items()}
    names = [vector.name for vector in lambda_layout(symbol) if vector.kind == 'block']
    if names:
        sample = list(itertools.islice(batches, max(1, -(-IMAGES // batches.batch_size))))
        lambdas = engine.lambdas()
        for name in names:
            found[name] = _without_each(engine, name, lambdas[name], frozen[name], sample, make_tally)
    return found


def _without_each(
    engine: ResizableEngine,
    name: str,
    values: np.ndarray,
    frozen: np.ndarray,
    sample: Iterable,
    make_tally: Callable[[], Tally],
) -> np.ndarray:
    """How much the loss on ``sample`` rises without each element of a λ; 0 for dead ones."""
    whole = _loss(engine, sample, make_tally)
    rises = np.zeros(values.shape)
    for place in np.flatnonzero(~frozen):
        without = values.copy()
        without.flat[place] = 0
        engine.set_lambdas({name: without})
        rises.flat[place] = _loss(engine, sample, make_tally) - whole
    engine.set_lambdas({name: values})
    logging.info(
        'Without one block of %s (– is dead), the loss on %d training images rises by: %s',
        name,
        sum(batch.data[0].shape[0] for batch in sample),
        ' '.join('–' if is_dead else f'{rise:.3f}' for rise, is_dead in zip(rises.ravel(), frozen.ravel())),
    )
    return rises


def _loss(engine: ResizableEngine, sample: Iterable, make_tally: Callable[[], Tally]) -> float:
    tally = make_tally()
    for batch in sample:
        probabilities = engine.predict_by_batch(batch)
        tally.add(probabilities, engine.labels(batch)[: len(probabilities)])
    return tally.averages()['cross-entropy']
