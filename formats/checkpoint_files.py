"""MXNet checkpoints: ``prefix-symbol.json`` beside ``prefix-NNNN.params``, read and written as a pair that fits
together.
"""

import glob
import os
import re

from runtime.errors import CheckpointError
from runtime.files import written_together

from .params_file import load_params, save_params
from .symbol_file import load_symbol, save_symbol
from .symbol_fit import check_fit, image_shapes, inputs_of
from .symbol_shapes import check_shapes, check_sizes


def symbol_path(prefix):
    """The file that holds the graph of every epoch."""
    return f'{prefix}-symbol.json'


def params_path(prefix, epoch):
    """The file that holds the parameters after ``epoch`` epochs."""
    return f'{prefix}-{epoch:04d}.params'


def load_checkpoint(prefix, epoch):
    """Read ``(symbol, arg_params, aux_params)``, the parameters as dicts name → NDArray, and make sure that they belong
    together.

    Raises CheckpointError (or GraphError, for the symbol) naming file, tensor, expected and found shape. Arguments that
    the parameters do not hold must be inputs of the network, that is the data or a label.
    """
    graph, params = symbol_path(prefix), params_path(prefix, epoch)
    for path in (graph, params):
        if not os.path.exists(path):
            raise CheckpointError(f'{path}: no such file; {_what_there_is(prefix)}')
    symbol = load_symbol(graph)
    arg_params, aux_params = load_params(params)
    known = image_shapes(symbol)
    lacks_inputs = not inputs_of(symbol, arg_params) <= known.keys()
    check_shapes(symbol, known, graph, lacks_inputs)
    check_sizes(symbol, known, graph, lacks_inputs)
    check_fit(symbol, arg_params, aux_params, params)
    return symbol, arg_params, aux_params


def save_model(prefix, epoch, symbol, arg_params, aux_params):
    """Write the pair, both or none, the parameters last: a ``.params`` file is never beside the symbol of another
    network.
    """
    with written_together([symbol_path(prefix), params_path(prefix, epoch)]) as (graph, params):
        save_symbol(graph, symbol)
        save_params(params, arg_params, aux_params)


def known_epochs(prefix):
    """The epochs that have a ``.params`` file, in order."""
    pattern = re.compile(re.escape(os.path.basename(prefix)) + r'-(\d{4,})\.params')
    folder = os.path.dirname(prefix) or '.'
    names = [os.path.basename(path) for path in glob.glob(os.path.join(glob.escape(folder), '*.params'))]
    return sorted(int(match.group(1)) for match in map(pattern.fullmatch, names) if match)


def _what_there_is(prefix):
    epochs = known_epochs(prefix)
    if not epochs:
        return f'there is no {prefix}-NNNN.params at all'
    return f'epochs of {prefix} that exist: {", ".join(map(str, epochs))}'
