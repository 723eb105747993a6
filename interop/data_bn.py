"""GluonCV's batch normalisation of the images, in front of its pre-activation ResNets, which the authors' networks do
not have.

It cannot be folded into the first convolution: that one pads with zeros *behind* the normalisation, so a shift of the
images changes the borders. It is kept, as a layer ``bn_data`` in the symbol, wherever it does anything.
"""

from __future__ import annotations

from typing import Dict, Mapping

import numpy as np

from graphs.graph import Graph, Node, Output
from runtime import mx

DATA_BN = 'bn_data'
EPS = 1e-5


def with_data_bn(symbol: mx.sym.Symbol) -> mx.sym.Symbol:
    """``symbol`` with a normalisation of ``data`` in front: neither γ nor β are learned, as in GluonCV."""
    graph = Graph.from_symbol(symbol)
    data = next(node for node in graph.variables() if node.name == 'data')
    parameters = [
        Output(Node('null', f'{DATA_BN}_{role}', _attributes(role)))
        for role in ('gamma', 'beta', 'moving_mean', 'moving_var')
    ]
    settings = {'eps': str(EPS), 'momentum': '0.9', 'fix_gamma': 'True'}
    normalised = Node('BatchNorm', DATA_BN, settings, [Output(data), *parameters])
    for reader, position in graph.readers()[data]:
        if reader is not None:
            reader.inputs[position] = Output(normalised)
    return graph.to_symbol()


def neutral_data_bn(channels: int) -> Dict[str, np.ndarray]:
    """The four parameters, by name, with which the normalisation returns the images as they are."""
    zeros, ones = np.zeros(channels, np.float32), np.ones(channels, np.float32)
    return {
        f'{DATA_BN}_gamma': ones,
        f'{DATA_BN}_beta': zeros,
        f'{DATA_BN}_moving_mean': zeros,
        f'{DATA_BN}_moving_var': (ones - EPS).astype(np.float32),
    }


def does_nothing(params: Mapping[str, np.ndarray]) -> bool:
    """Whether the normalisation with the parameters in ``params``, name → array, returns the images as they are, to
    float32's precision.
    """
    mean, variance, beta = (np.asarray(params[f'{DATA_BN}_{role}']) for role in ('moving_mean', 'moving_var', 'beta'))
    return bool(np.abs(1 / np.sqrt(variance + EPS) - 1).max() < 1e-7 and not mean.any() and not beta.any())


def _attributes(role):
    return {'__lr_mult__': '0.0'} if role in ('gamma', 'beta') else {}
