"""A network as a TorchScript file, which PyTorch opens without this project or MXNet, proven against MXNet before it is
put in place.

    export_torch(symbol, arg_params, aux_params, (3, 32, 32), 'net.pt')

    net = torch.jit.load('net.pt')                  # anywhere
    logits = net(images)                            # (N, classes): what stands before the softmax

TorchScript and not ``torch.export``: more versions of PyTorch open it, and so does C++. It is for inference, on images
of one shape; the batch is free. Parameters keep MXNet's names (``arg.conv0_weight``), and the text of
``graphs.preprocessing`` is the extra file ``preprocessing``.
"""

from __future__ import annotations

import warnings

import torch

from graphs.comparison import Difference
from graphs.graph import Graph, Shape, input_names, only_input
from graphs.losses import logits
from graphs.predictor import Network, Predictor
from graphs.preprocessing import METADATA_KEY, preprocessing_of
from graphs.values import Params
from runtime import mx
from runtime.files import written_whole

from .conversion_proof import prove_conversion
from .lambdas import as_network, single_precision, without_factors
from .runners import TorchRunner
from .torch_graph import TorchGraph

# Another number than the proof's.
TRACED_BATCH = 3


def export_torch(
    symbol: mx.sym.Symbol, arg_params: Params, aux_params: Params, image_shape: Shape, path: str
) -> Difference:
    """Write a network to the TorchScript file ``path`` and return the ``Difference`` between its outputs and MXNet's.

    Parameters
    ----------
    symbol, arg_params, aux_params : an MXNet network of one input. λ is folded into the parameters beside it; a softmax
        at an end, and the label, are left out. Several outputs become a tuple.
    image_shape : (channels, height, width). The batch stays free, unless the network fixes it. Everything is float32.

    The file is loaded again and run on noise, in two batch sizes; it appears under its name only if all outputs agree.

    Raises GraphError for an operator or attribute that ``torch_operators`` does not hold, ProofError where an output
    differs by more than 1e-4 of its spread.
    """
    arg_params, aux_params = single_precision(arg_params), single_precision(aux_params)
    original = Predictor(Network(symbol, arg_params, aux_params))
    batch = original.fixed_batch({only_input(original.inputs): (1, *image_shape)}) or TRACED_BATCH
    images = torch.zeros(batch, *image_shape)
    net = TorchGraph(*_without_factors(symbol, arg_params, aux_params, tuple(images.shape))).eval()
    with warnings.catch_warnings(), torch.no_grad():
        # Sides of feature maps become constants; what that is wrong for, the proof would find.
        warnings.simplefilter('ignore')
        traced = torch.jit.trace(net, images, check_trace=False)
    preprocessing = preprocessing_of(symbol)
    with written_whole(path) as scratch:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', DeprecationWarning)
            traced.save(scratch, _extra_files={METADATA_KEY: preprocessing.to_text()} if preprocessing else {})
            runner = TorchRunner(torch.jit.load(scratch))
        return prove_conversion(runner, original, image_shape, f'{path}: PyTorch')


def _without_factors(symbol, arg_params, aux_params, data_shape):
    """The network without λ and loss, as (symbol, arg_params, aux_params)."""
    graph, params = logits(Graph.from_symbol(symbol)), {**arg_params, **aux_params}
    return as_network(graph, without_factors(graph, params, {only_input(input_names(graph, params)): data_shape}))
