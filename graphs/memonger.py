"""Training in less memory: feature maps inside a unit are computed again in the backward pass instead of being kept.

MXNet 1.9.1 repeats a node whose attribute ``__force_mirroring__`` says so, but only for the backward pass of nodes that
are repeated themselves. Its ``MXNET_BACKWARD_DO_MIRROR`` marks all but the convolutions, which therefore keep their
inputs, and needs *more* memory than without. What helps is to mark convolutions, normalisations and activations
together: between one kept map and the next, nothing is kept.
"""

from __future__ import annotations

from typing import Container

from runtime import mx

from .graph import Graph, fed

# What ends a unit is kept: sums, poolings, concatenations. MXNet never repeats dropout.
REPEATED = (
    'Convolution',
    'Deconvolution',
    'BatchNorm',
    'Activation',
    'relu',
    'LeakyReLU',
    'clip',
    'Cast',
    'transpose',
    'Reshape',
)


def recomputed(symbol: mx.sym.Symbol, inputs: Container[str] = ('data',)) -> mx.sym.Symbol:
    """``symbol``, of the same function and the same gradients to the bit, marked so that the maps inside its units are
    computed twice and kept once.

    cuDNN's batch normalisation moves its statistics in the forward pass, and so would move them twice: the marked ones
    take MXNet's own kernel on a card, which moves them in the backward pass, as on a CPU.
    """
    graph = Graph.from_symbol(symbol)
    for node in fed(graph, inputs):
        if node.op in REPEATED:
            node.attrs['__force_mirroring__'] = 'True'
        if node.op == 'BatchNorm':
            node.attrs['cudnn_off'] = 'True'
    return graph.to_symbol()
