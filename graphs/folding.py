"""Arithmetic that can be done once and for all: what only parameters enter becomes a parameter, and constant factors move into the parameters beside them."""
import numpy as np

from runtime import mx

from .attributes import channels_last, flag, integers, number, text
from .graph import Graph, Node, Output
from .lambdas import is_lambda
from .operator_table import PRODUCTS, permutation

RANDOM = ('Dropout', 'random', 'sample', 'shuffle', 'multinomial')
SOURCES = ('_zeros', '_ones', '_full')


def fold_constants(graph, parameters, lambda_name='lambda'):
    """Put a parameter in the place of every value that only parameters enter (λ·W, slices and repetitions of λ), and say what it stands for.

    ``parameters`` holds the names of all parameters. Returns a dict from the names of new parameters to the ``Output`` whose value each takes: ``evaluate``
    computes them. A new parameter takes over the name of the one weight that it is made of, if nobody else reads that, else a name of its own, without
    ``lambda_name`` in it.
    """
    constant = _constants(graph, parameters)
    frontier = {}
    for node, readers in graph.readers().items():
        for reader, position in readers:
            if node in constant and reader not in constant and (not node.is_variable or is_lambda(node.name, lambda_name)):
                source = reader.inputs[position] if reader else graph.heads[position]
                frontier.setdefault(source, reader or node)
    cones = {source: [node for node in Graph([source]).nodes() if node.is_variable and not is_lambda(node.name, lambda_name)] for source in frontier}
    uses = _uses(graph, constant, cones)
    replacements, folded = {}, {}
    for source, reader in frontier.items():
        own = [variable for variable in cones[source] if uses[variable] == 1]
        if len(cones[source]) == len(own) == 1:
            name, attrs = own[0].name, own[0].attrs
        else:
            name, attrs = _new_name(graph, folded, f'{reader.name}_scale'.replace(lambda_name, 'factor')), {}
        replacements[source] = Output(Node('null', name, attrs))
        folded[name] = source
    graph.replace(replacements)
    return folded


def evaluate(expressions, values):
    """The values (dict name → NDArray) of ``expressions`` (dict name → ``Output``), given those of all variables below them.

    They are computed in single precision where the parameters are in half, for which MXNet has no matrix product on a CPU.
    """
    if not expressions:
        return {}
    symbol = Graph(expressions.values()).to_symbol()
    names = symbol.list_arguments()
    _, types, _ = symbol.infer_type(**{name: values[name].dtype for name in names})
    states = {name: values[name] for name in symbol.list_auxiliary_states()}
    executor = symbol.bind(mx.cpu(), {name: widened(values[name]) for name in names}, aux_states=states, grad_req='null')
    return {name: output.astype(dtype, copy=False) for name, output, dtype in zip(expressions, executor.forward(is_train=False), types)}


def widened(array):
    """The NDArray, in single precision if it is in half."""
    return array.astype(np.float32) if array.dtype == np.float16 else array


def absorb_factors(graph, values, shapes):
    """Move every multiplication by a constant factor along the channels into the layer that makes these channels, or else into those that read them.

    Only into parameters of layers that nobody else would see changed; factors for which there is no such layer stay where they are. ``shapes`` is as from
    ``Graph.shapes``; ``values`` (dict name → NDArray) is changed in place.
    """
    for node in graph.nodes():
        factor = _factor(node, values)
        if factor is None:
            continue
        source, numbers = factor
        readers = graph.readers()
        axis = _only_axis(numbers.shape)
        producer = _producer(source, axis, numbers, shapes, readers)
        if producer is not None:
            _scale_outputs(graph, producer, numbers, values, readers)
        elif not _scale_readers(graph, node, axis, numbers, values, shapes, readers):
            continue
        graph.replace({Output(node): source})


def cancel_repetitions(graph, shapes):
    """Take out transpositions that undo one another, and ReLUs of ReLUs."""
    for node in graph.nodes():
        below = node.sources[0] if node.inputs else None
        if node.op == 'transpose' and below.op == 'transpose':
            rank = len(shapes[node.inputs[0]])
            first, second = permutation(below, rank), permutation(node, rank)
            if [first[axis] for axis in second] == list(range(rank)):
                graph.replace({Output(node): below.inputs[0]})
        elif below is not None and _is_relu(node) and _is_relu(below):
            graph.replace({Output(node): Output(below)})


def fold_batch_norm(graph, values):
    """Fold every batch normalisation that alone reads a convolution or full connection into that layer's weight and bias, for inference."""
    for node in graph.nodes():
        layer = node.sources[0] if node.inputs else None
        readers = graph.readers()
        if node.op != 'BatchNorm' or layer.op not in ('Convolution', 'FullyConnected') or len(readers[layer]) > 1:
            continue
        if not all(parameter.name in values for parameter in node.sources[1:] + layer.sources[1:]) or not _normalises_outputs(node, layer):
            continue
        gamma, beta, mean, var = (values[parameter.name].asnumpy().astype(np.float64) for parameter in node.sources[1:])
        gamma = np.ones_like(gamma) if flag(node, 'fix_gamma', True) else gamma
        factor = gamma / np.sqrt(var + number(node, 'eps', 1e-3))
        _scale_outputs(graph, layer, factor, values, readers)
        shift = beta - mean * factor
        if len(layer.inputs) > 2:
            name = layer.sources[2].name
            values[name] = _like(values[name].asnumpy() + shift, values[name])
        else:
            bias = Node('null', _new_name(graph, values, f'{layer.name}_bias'))
            layer.inputs.append(Output(bias))
            layer.attrs['no_bias'] = 'False'
            values[bias.name] = _like(shift, values[layer.sources[1].name])
        graph.replace({Output(node): Output(layer)})


def _constants(graph, parameters):
    """The nodes whose value does not depend on the data."""
    found = set()
    for node in graph.nodes():
        if node.is_variable:
            fixed = node.name in parameters
        elif node.inputs:
            fixed = all(source in found for source in node.sources) and not any(word in node.op for word in RANDOM)
        else:
            fixed = node.op in SOURCES and 0 not in integers(node, 'shape', (0,))
        if fixed:
            found.add(node)
    return found


def _uses(graph, constant, cones):
    """How often each variable is read: by how many of the values to fold, and directly by how many operators on data."""
    uses = {node: sum(reader not in constant for reader, _ in readers) for node, readers in graph.readers().items() if node.is_variable}
    for cone in cones.values():
        for variable in cone:
            uses[variable] += 1
    return uses


def _factor(node, values):
    """(what is multiplied, the constant factor as an array) of a multiplication by a constant, else None."""
    if node.op == '_mul_scalar':
        return node.inputs[0], np.array(float(number(node, 'scalar')))
    if node.op not in PRODUCTS:
        return None
    for source, other in (node.inputs, node.inputs[::-1]):
        if other.node.name in values and other.node.is_variable:
            numbers = values[other.node.name].asnumpy().astype(np.float64)
            if source.node.name not in values and sum(length > 1 for length in numbers.shape) <= 1:
                return source, numbers
    return None


def _only_axis(shape):
    """The axis along which an array is longer than 1, or None for a single number."""
    return next((axis for axis, length in enumerate(shape) if length > 1), None)


def _producer(source, axis, numbers, shapes, readers):
    """The layer that makes ``source``, through transpositions and ReLUs of positive numbers that nobody else reads; None where there is no such layer."""
    while len(readers[source.node]) == 1:
        node = source.node
        if node.op == 'transpose':
            axis = None if axis is None else permutation(node, len(shapes[source]))[axis]
        elif not (_is_relu(node) and (numbers >= 0).all()):
            return node if _makes_channels(node, axis, shapes) else None
        source = node.inputs[0]
    return None


def _makes_channels(node, axis, shapes):
    """Whether ``node`` is a layer with parameters whose output has its channels along ``axis`` (None: whatever the axis)."""
    if node.op not in ('Convolution', 'FullyConnected', 'BatchNorm') or node.op == 'BatchNorm' and flag(node, 'fix_gamma', True):
        return False
    if not all(parameter.is_variable for parameter in node.sources[1:]):
        return False
    rank = len(shapes[node.inputs[0]])
    own = {'Convolution': rank - 1 if channels_last(node) else 1,
           'FullyConnected': 1 if flag(node, 'flatten', True) else rank - 1,
           'BatchNorm': number(node, 'axis', 1) % rank}[node.op]
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
        values[name] = _times(values[name], numbers, (-1,) + (1,) * (len(values[name].shape) - 1))


def _scale_readers(graph, node, axis, numbers, values, shapes, readers):
    """Move the factor into the weights of those who read ``node``: convolutions and full connections all, ungrouped, channels where they expect them."""
    layers = [reader for reader, _ in readers[node]]
    if not all(reader is not None and position == 0 and _takes_channels(reader, axis, shapes) for reader, position in readers[node]):
        return False
    for layer in layers:
        name = _own_parameter(graph, layer, 1, values, readers)
        values[name] = _times(values[name], numbers, (1, -1) + (1,) * (len(values[name].shape) - 2))
    return bool(layers)


def _takes_channels(layer, axis, shapes):
    if layer.op not in ('Convolution', 'FullyConnected') or number(layer, 'num_group', 1) > 1 or not layer.sources[1].is_variable:
        return False
    if channels_last(layer) or layer.op == 'FullyConnected' and len(shapes[layer.inputs[0]]) != 2:
        return False
    return axis in (None, 1)


def _own_parameter(graph, layer, position, values, readers):
    """The name of the parameter at ``position`` of ``layer``, copied first if others read it too."""
    shared = layer.inputs[position].node
    if len(readers[shared]) > 1:
        own = Node('null', _new_name(graph, values, f'{layer.name}_{shared.name}'), shared.attrs)
        values[own.name] = values[shared.name]
        layer.inputs[position] = Output(own)
    return layer.inputs[position].node.name


def _is_relu(node):
    return node.op == 'relu' or node.op == 'Activation' and text(node, 'act_type') == 'relu'


def _new_name(graph, taken, wish):
    name = wish = graph.fresh_name(wish)
    number = 1
    while name in taken:
        name, number = f'{wish}_{number}', number + 1
    return name


def _times(array, numbers, shape):
    """The NDArray times ``numbers`` in that shape, in single precision at least."""
    precision = np.promote_types(array.dtype, np.float32)
    return _like(array.asnumpy() * numbers.reshape(shape).astype(precision), array)


def _like(array, model):
    """An NDArray of the type that ``model`` has."""
    return mx.nd.array(array, dtype=model.dtype)
