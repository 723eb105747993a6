"""Constant factors move into the parameters of the layer beside them; so does a batch normalisation, for inference."""

from typing import Dict

import numpy as np

from .attributes import channels_last, flag, integers, number, text
from .folding import new_name
from .graph import Graph, Node, Output, Shapes
from .operator_table import PRODUCTS, permutation
from .values import Array, like, times, to_numpy


def absorb_factors(graph: Graph, values: Dict[str, Array], shapes: Shapes) -> None:
    """Move every multiplication by a constant factor along the channels into the layer that makes these channels.

    Where there is no such layer, the factor goes into the layers that read the product. Only parameters change that
    nobody else reads; factors for which there is no such layer stay where they are. ``shapes`` is as from
    ``Graph.shapes``; ``values`` (dict name → NDArray or NumPy array) is changed in place.
    """
    readers = graph.readers()
    for node in graph.nodes():
        factor = _factor(node, values, shapes)
        if factor is None:
            continue
        source, numbers = factor
        axis = next((axis for axis, length in enumerate(numbers.shape) if length > 1), None)
        producer = _producer(source, axis, numbers, shapes, readers)
        if producer is not None:
            _scale_outputs(graph, producer, numbers, values, readers)
        elif not _scale_readers(graph, node, axis, numbers, values, shapes, readers):
            continue
        _bypass(graph, node, source, readers)


def cancel_repetitions(graph: Graph, shapes: Shapes) -> None:
    """Take out transpositions that undo one another, and ReLUs of ReLUs."""
    replacements: Dict[Output, Output] = {}
    for node in graph.nodes():
        if not node.inputs:
            continue
        source = replacements.get(node.inputs[0], node.inputs[0])
        below = source.node
        if node.op == 'transpose' and below.op == 'transpose':
            rank = len(shapes[node.inputs[0]])
            first, second = permutation(below, rank), permutation(node, rank)
            if [first[axis] for axis in second] == list(range(rank)):
                replacements[Output(node)] = replacements.get(below.inputs[0], below.inputs[0])
        elif is_relu(node) and is_relu(below):
            replacements[Output(node)] = source
    graph.replace(replacements)


def fold_batch_norm(graph: Graph, values: Dict[str, Array]) -> None:
    """Fold every batch normalisation that alone reads a convolution or full connection into that layer, for inference.

    ``values`` (dict name → NDArray) is changed in place.
    """
    readers = graph.readers()
    for node in graph.nodes():
        if node.op != 'BatchNorm':
            continue
        layer = node.sources[0]
        if layer.op not in ('Convolution', 'FullyConnected') or len(readers[layer]) > 1:
            continue
        known = all(parameter.name in values for parameter in node.sources[1:] + layer.sources[1:])
        if not known or not _normalises_outputs(node, layer):
            continue
        gamma, beta, mean, var = (to_numpy(values[parameter.name]).astype(np.float64) for parameter in node.sources[1:])
        gamma = np.ones_like(gamma) if flag(node, 'fix_gamma', True) else gamma
        factor = gamma / np.sqrt(var + number(node, 'eps', 1e-3))
        _scale_outputs(graph, layer, factor, values, readers)
        shift = beta - mean * factor
        if len(layer.inputs) > 2:
            name = layer.sources[2].name
            values[name] = like(to_numpy(values[name]) + shift, values[name])
        else:
            bias = Node('null', new_name(graph, values, f'{layer.name}_bias'))
            layer.inputs.append(Output(bias))
            layer.attrs['no_bias'] = 'False'
            values[bias.name] = like(shift, values[layer.sources[1].name])
            readers[bias] = [(layer, 2)]
        _bypass(graph, node, Output(layer), readers)


def is_relu(node: Node) -> bool:
    """Whether ``node`` is a ReLU, by either of its operators."""
    return node.op == 'relu' or node.op == 'Activation' and text(node, 'act_type') == 'relu'


def _factor(node, values, shapes):
    """(what is multiplied, the constant factor as an array of its rank) of a multiplication by a constant, else None.

    The product has the shape of what is multiplied, and the factor is longer than 1 along one axis at most.
    """
    if node.op == '_mul_scalar':
        return node.inputs[0], np.array(float(number(node, 'scalar')))
    if node.op not in PRODUCTS:
        return None
    for source, other in (node.inputs, node.inputs[::-1]):
        if not other.node.is_variable or other.node.name not in values or source.node.name in values:
            continue
        shape = values[other.node.name].shape
        if sum(length > 1 for length in shape) <= 1 and shapes[source] == shapes[Output(node)]:
            # A factor of lower rank is broadcast from the last axis.
            rank = len(shapes[source])
            numbers = to_numpy(values[other.node.name]).astype(np.float64)
            return source, numbers.reshape((1,) * (rank - len(shape)) + shape)
    return None


def _producer(source, axis, numbers, shapes, readers):
    """The layer that makes ``source`` along ``axis``; None where there is none.

    It may stand behind transpositions, and ReLUs of numbers that are not negative, that nobody else reads.
    """
    while len(readers[source.node]) == 1:
        node = source.node
        if node.op == 'transpose':
            axis = None if axis is None else permutation(node, len(shapes[source]))[axis]
        elif not (is_relu(node) and (numbers >= 0).all()):
            return node if _makes_channels(node, axis, shapes) else None
        source = node.inputs[0]
    return None


def _makes_channels(node, axis, shapes):
    """Whether ``node`` is a layer with parameters whose output has its channels along ``axis`` (None: any axis)."""
    if node.op not in ('Convolution', 'Deconvolution', 'FullyConnected', 'BatchNorm'):
        return False
    if node.op == 'Deconvolution' and (number(node, 'num_group', 1) > 1 or channels_last(node)):
        return False
    if node.op == 'BatchNorm' and flag(node, 'fix_gamma', True):
        return False
    if not all(parameter.is_variable for parameter in node.sources[1:]):
        return False
    rank = len(shapes[node.inputs[0]])
    own = {
        'Convolution': rank - 1 if channels_last(node) else 1,
        'Deconvolution': 1,
        'FullyConnected': 1 if flag(node, 'flatten', True) else rank - 1,
        'BatchNorm': number(node, 'axis', 1) % rank,
    }[node.op]
    return axis is None or axis == own


def _normalises_outputs(norm, layer):
    """Whether a batch normalisation works on the channels that ``layer`` puts out."""
    if layer.op == 'FullyConnected' and not flag(layer, 'flatten', True):
        return False
    axis = number(norm, 'axis', 1)
    return axis in (-1, len(integers(layer, 'kernel', (1, 1))) + 1) if channels_last(layer) else axis == 1


def _scale_outputs(graph, layer, numbers, values, readers):
    """Multiply what ``layer`` puts out by ``numbers``, one for each channel or one for all."""
    parameters = (1, 2) if layer.op == 'BatchNorm' else range(1, len(layer.inputs))
    for position in parameters:
        name = _own_parameter(graph, layer, position, values, readers)
        rank = len(values[name].shape)
        axis = 1 if layer.op == 'Deconvolution' and rank > 1 else 0
        values[name] = times(values[name], numbers, (1,) * axis + (-1,) + (1,) * (rank - 1 - axis))


def _scale_readers(graph, node, axis, numbers, values, shapes, readers):
    """Move the factor into the weights of all that read ``node``; False where one of them cannot take it."""
    layers = [reader for reader, _ in readers[node]]
    if not all(
        reader is not None and position == 0 and _takes_channels(reader, axis, shapes)
        for reader, position in readers[node]
    ):
        return False
    for layer in layers:
        name = _own_parameter(graph, layer, 1, values, readers)
        values[name] = times(values[name], numbers, (1, -1) + (1,) * (len(values[name].shape) - 2))
    return bool(layers)


def _takes_channels(layer, axis, shapes):
    """Whether ``layer`` is an ungrouped convolution or full connection whose input has its channels along ``axis``."""
    if layer.op not in ('Convolution', 'FullyConnected') or number(layer, 'num_group', 1) > 1:
        return False
    if not layer.sources[1].is_variable or channels_last(layer):
        return False
    if layer.op == 'FullyConnected' and len(shapes[layer.inputs[0]]) != 2:
        return False
    return axis in (None, 1)


def _own_parameter(graph, layer, position, values, readers):
    """The name of the parameter at ``position`` of ``layer``, copied first if others read it too."""
    shared = layer.inputs[position].node
    if len(readers[shared]) > 1:
        own = Node('null', new_name(graph, values, f'{layer.name}_{shared.name}'), shared.attrs)
        values[own.name] = values[shared.name]
        layer.inputs[position] = Output(own)
        readers[shared] = [entry for entry in readers[shared] if entry != (layer, position)]
        readers[own] = [(layer, position)]
    return layer.inputs[position].node.name


def _bypass(graph, node, source, readers):
    """Let all that read ``node`` read ``source``, one of its inputs, instead; ``readers`` follows."""
    for reader, position in readers[node]:
        (graph.heads if reader is None else reader.inputs)[position] = source
    for below in set(node.sources):
        readers[below] = [entry for entry in readers[below] if entry[0] is not node]
    readers[source.node] += readers.pop(node)
