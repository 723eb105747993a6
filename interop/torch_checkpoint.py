"""A network on disk for PyTorch: ``PREFIX-symbol.json``, which says what it computes, and ``PREFIX.pt``, a plain state
dict.

    net = load_torch('resnet50')                    # a TorchGraph, in inference mode
    logits = net(images)

The state dict holds tensors alone, so ``torch.load('PREFIX.pt', weights_only=True)`` reads it without any of this
project: ``arg.NAME`` is the parameter NAME of the symbol, ``aux.NAME`` a running statistic.
"""

from typing import List, Optional

import torch

from formats.symbol_file import load_symbol, save_symbol
from formats.torch_file import load_torch_state
from graphs.comparison import Difference
from graphs.graph import image_shape_of
from graphs.predictor import Network, Predictor
from runtime.errors import CheckpointError
from runtime.files import written_together

from .conversion_proof import prove_conversion
from .lambdas import single_precision
from .runners import TorchRunner
from .torch_graph import TorchGraph


def torch_paths(prefix: str) -> List[str]:
    """The two files of a network for PyTorch."""
    return [f'{prefix}-symbol.json', f'{prefix}.pt']


def export_torch(symbol, arg_params: dict, aux_params: dict, image_shape: tuple, prefix: str) -> Difference:
    """Write a network for PyTorch, in float32, and return the ``Difference`` between its outputs and MXNet's.

    Raises ProofError where one differs by more than 1e-4 of its spread; then nothing is written.
    """
    arg_params, aux_params = single_precision(arg_params), single_precision(aux_params)
    net = TorchGraph(symbol, arg_params, aux_params).eval()
    original = Predictor(Network(symbol, arg_params, aux_params))
    difference = prove_conversion(TorchRunner(net), original, image_shape, f'{prefix}: PyTorch')
    with written_together(torch_paths(prefix)) as (graph, weights):
        save_symbol(graph, symbol)
        torch.save(net.state_dict(), weights)
    return difference


def load_torch(prefix: str, image_shape: Optional[tuple] = None) -> TorchGraph:
    """The TorchGraph that ``export_torch`` wrote, in inference mode; (channels, height, width) are only needed where
    the symbol does not say them.

    Raises CheckpointError or GraphError for files that are missing, damaged, or do not belong together.
    """
    graph, weights = torch_paths(prefix)
    symbol = load_symbol(graph)
    net = TorchGraph(symbol, image_shape=image_shape_of(symbol, image_shape))
    try:
        net.load_state_dict({name: torch.tensor(array) for name, array in load_torch_state(weights).items()})
    except RuntimeError as error:
        raise CheckpointError(f'{weights} does not belong to {graph}: {" ".join(str(error).split())[:300]}') from None
    return net.eval()
