"""Take the structures that training has switched off out of a network, whatever its family.

    stripped = strip(symbol, arg_params, aux_params, {'data': (1, 3, 32, 32)})

A scaling factor of exactly zero makes channels that are zero whatever the image. Constants are folded (λ goes into the parameters beside it), what is zero
or only feeds zeros is found by the two sweeps of ``liveness``, operators and parameters are cut to what is left, until nothing more can go. The function of
the network stays the same: section 3.2 of the paper, done to any graph.
"""
from typing import NamedTuple

import numpy as np

from runtime import mx
from runtime.errors import CheckpointError, UserError

from .attributes import flag, number
from .folding import absorb_factors, cancel_repetitions, evaluate, fold_batch_norm, fold_constants
from .graph import Graph, Node, Output, labels
from .history import History
from .lambdas import is_lambda
from .liveness import Weights
from .losses import drop_losses
from .onednn_workaround import guard_sums
from .pruning import prune

DTYPE_CODES = {'float32': '0', 'float64': '1', 'float16': '2', 'uint8': '3', 'int32': '4', 'int8': '5', 'int64': '6'}


class Stripped(NamedTuple):
    """A stripped network: a symbol and its parameters (dicts name → NDArray) for stock MXNet, and what stayed and went (``structure.History.report``)."""

    symbol: object
    arg_params: dict
    aux_params: dict
    report: dict


def strip(symbol, arg_params, aux_params, data_shapes, threshold=0.0, fold_bn=False, for_training=False, lambda_name='lambda'):
    """Remove every dead structure and fold what is left of the scaling factors into the parameters.

    Parameters
    ----------
    symbol, arg_params, aux_params : the network, as from ``mx.model.load_checkpoint``; none of them is changed.
    data_shapes : dict from the name of each input to its shape, the batch first.
    threshold : a structure goes when its |λ| is at most this; 0 takes only those that change nothing.
    fold_bn : also fold batch normalisation into the convolutions before it. The result is for inference.
    for_training : keep the loss with its label, so that the result can be trained further. The function for inference is what stays the same; a branch that
        is a constant there becomes a bias.
    lambda_name : what the names of scaling factors contain.

    Raises ``NothingLeftError`` where no path from the data to the output is left, ``CheckpointError`` for parameters that are missing or not finite,
    ``GraphError`` where shapes do not fit.
    """
    if fold_bn and for_training:
        raise UserError('a network whose batch normalisation is folded away cannot be trained further: choose --fold-bn or --for-training')
    graph = Graph.from_symbol(symbol)
    check_parameters(graph, arg_params, aux_params, data_shapes)
    values = {**switched_off(arg_params, threshold, lambda_name), **aux_params}
    shapes = graph.shapes({**{name: array.shape for name, array in values.items()}, **data_shapes})
    history = History(graph, shapes, values, data_shapes, lambda_name)
    if not for_training:
        drop_losses(graph)
    values.update(evaluate(fold_constants(graph, set(values), lambda_name), values))
    split_into_slices(graph, shapes)
    _prune_to_the_end(graph, values, shapes, data_shapes, history)
    if fold_bn:
        fold_batch_norm(graph, values)
        _prune_to_the_end(graph, values, shapes, data_shapes, history)
    return _finished(graph, values, history, data_shapes)


def switched_off(arg_params, threshold, lambda_name='lambda'):
    """The parameters with every scaling factor of |λ| ≤ ``threshold`` set to zero; the arrays that hold none are the same objects."""
    def off(array):
        numbers = array.asnumpy()
        return mx.nd.array(np.where(np.abs(numbers) <= threshold, 0, numbers), dtype=array.dtype)
    return {name: off(array) if is_lambda(name, lambda_name) else array for name, array in arg_params.items()}


def check_parameters(graph, arg_params, aux_params, inputs):
    """Raise ``CheckpointError`` for a parameter that is missing, or that holds a number which is none."""
    known = set(arg_params) | set(aux_params) | set(inputs) | labels(graph)
    missing = [node.name for node in graph.variables() if node.name not in known]
    if missing:
        raise CheckpointError(f'the parameters hold no {missing[0]!r}, which the network needs ({len(missing)} missing)')
    for name, array in {**arg_params, **aux_params}.items():
        if not np.isfinite(array.asnumpy()).all():
            raise CheckpointError(f'{name} holds values that are not finite (NaN or infinite): this network went wrong in training; take an earlier epoch')


def split_into_slices(graph, shapes):
    """Turn every ``SliceChannel`` into slices, which may be of different widths once channels are gone; ``shapes`` learns theirs."""
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
                replacements[read] = Output(Node('slice_axis', graph.fresh_name(f'{node.name}_part{part}'), attrs, node.inputs))
                shapes[replacements[read]] = shapes[read]
    graph.replace(replacements)


def _prune_to_the_end(graph, values, shapes, inputs, history):
    """Simplify and prune until nothing more can go, cutting the arrays of ``values``; ``shapes`` follows."""
    dtype = next(values[node.name].dtype for node in graph.variables() if node.name in values)
    while True:
        before = graph.to_json()
        cancel_repetitions(graph, shapes)
        absorb_factors(graph, values, shapes)
        shapes.update({Output(node): values[node.name].shape for node in graph.variables() if node.name in values})
        constants, cut = prune(graph, Weights(values), shapes, inputs)
        values.update({name: mx.nd.array(array, dtype=dtype) for name, array in constants.items()})
        if cut.is_empty and graph.to_json() == before:
            return
        history.record(cut)
        shapes.update({source: cut.shape_of(source, shape) for source, shape in shapes.items()})
        for name, masks in cut.parameters.items():
            if all(mask is None or mask.any() for mask in masks):   # else nobody reads it any more
                values[name] = _cut(values[name], masks)


def _cut(array, masks):
    """The NDArray with only the entries that the masks, one for each axis, leave."""
    for axis, mask in enumerate(masks):
        if mask is not None:
            array = mx.nd.take(array, mx.nd.array(np.flatnonzero(mask), dtype='int32'), axis=axis)
    return array


def _finished(graph, values, history, data_shapes):
    """The ``Stripped`` network; its parameters say their shapes, which MXNet could not infer for a factor that is broadcast."""
    guard_sums(graph)
    variables = [node for node in graph.variables() if node.name in values]
    for node in variables:
        array = values[node.name]
        node.attrs = {**node.attrs, '__shape__': str(array.shape)}
        if array.dtype != np.float32 or '__dtype__' in node.attrs:
            node.attrs['__dtype__'] = DTYPE_CODES[np.dtype(array.dtype).name]
    symbol = graph.to_symbol()
    arg_params = {name: values[name] for name in symbol.list_arguments() if name in values}
    aux_params = {name: values[name] for name in symbol.list_auxiliary_states()}
    return Stripped(symbol, arg_params, aux_params, history.report(symbol, {**arg_params, **aux_params}, data_shapes))

