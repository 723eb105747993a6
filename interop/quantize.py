"""Quantise a network to 8 bits: weights as int8, and the range of each feature map as calibration images show it.

What comes out is described in ``graphs.int8``.
"""

from __future__ import annotations

from typing import List, Tuple

import numpy as np

from formats.checkpoint_files import params_path, symbol_path
from formats.params_file import save_params
from formats.symbol_file import save_symbol
from graphs.attributes import batch_norm_eps, channels_last, flag, number
from graphs.comparison import spread
from graphs.graph import Graph, Node, Output, Shape, input_names, only_input
from graphs.int8 import RANGE, has_integer_operators, integer_symbol, quantised_symbol, range_text
from graphs.losses import drop_losses
from graphs.onednn_workaround import guard_sums
from graphs.predictor import Network, Predictor
from graphs.values import Params
from runtime import mx
from runtime.errors import UserError
from runtime.files import written_together

from .lambdas import as_network, single_precision, without_factors

BATCH = 32
STEPS = 127  # of int8 on either side of 0
# Of the spread of a full connection's output: see ``quantize``.
WORST_ROUNDING = 0.02
LAYERS = ('Convolution', 'FullyConnected')


def quantize(symbol: mx.sym.Symbol, arg_params: Params, aux_params: Params, images: np.ndarray) -> Network:
    """The network in 8 bits, ending in probabilities, with no label.

    ``images`` are some hundred of the images that the network will see, preprocessed, float32 (N, C, H, W): the range
    of each feature map is what they show. Weights have a range per channel. λ is folded first, and batch normalisation
    with it. A full connection whose rounding would show in its output keeps its float32.

    Raises UserError where MXNet was built without oneDNN, or there are no images.
    """
    if not has_integer_operators():
        raise UserError('this build of MXNet has no oneDNN, so no int8; take the CPU build (mxnet 1.9.1 on Linux)')
    if len(images) == 0:
        raise UserError('there are no images to calibrate on')
    ready = folded_for_int8(symbol, single_precision(arg_params), single_precision(aux_params), images.shape)
    network = with_int8_weights(ready, images)
    return network._replace(symbol=calibrated(network, images))


def int8_paths(prefix: str) -> List[str]:
    """The files of a network in 8 bits: the plain symbol, the symbol with oneDNN's integer operators, the parameters of
    both.
    """
    return [symbol_path(prefix), symbol_path(f'{prefix}-onednn'), params_path(prefix, 0)]


def save_int8(prefix: str, network: Network) -> None:
    """Write ``int8_paths``, all or none."""
    with written_together(int8_paths(prefix)) as (plain, integers, params):
        save_symbol(plain, network.symbol)
        save_symbol(integers, integer_symbol(network.symbol))
        save_params(params, network.arg_params, network.aux_params)


def folded_for_int8(symbol: mx.sym.Symbol, arg_params: Params, aux_params: Params, data_shape: Shape) -> Network:
    """The network as the quantisation can take it, for images of ``data_shape``, batch first: without label, λ and sums
    that oneDNN gets wrong.
    """
    graph = Graph.from_symbol(symbol)
    drop_losses(graph)
    params = {**arg_params, **aux_params}
    params = without_factors(graph, params, {only_input(input_names(graph, params)): data_shape})
    guard_sums(graph)
    for node in graph.nodes():
        if node.op == 'Pooling' and flag(node, 'global_pool'):
            # The quantised operator compares the kernel with the map even where it pools over all of it.
            node.attrs['kernel'] = '(1, 1)'
    return Network(*as_network(graph, params))


def with_int8_weights(network: Network, images: np.ndarray) -> Network:
    """``network`` with every weight of a convolution or full connection rounded to int8, by channel, and a batch
    normalisation behind it that takes in bias, steps, and the batch normalisation that was there. See ``quantize``.
    """
    graph = Graph.from_symbol(network.symbol)
    params = {name: array.asnumpy() for name, array in {**network.arg_params, **network.aux_params}.items()}
    offsets = _offsets(graph, network, params, images)
    for layer in _layers(graph, params):
        weight, offset = layer.inputs[1].node.name, offsets.get(layer, 0)
        if offset is None:
            continue
        params[weight], step = rounded(params[weight])
        bias = params[layer.inputs[2].node.name] if len(layer.inputs) > 2 else np.zeros_like(step)
        layer.inputs, layer.attrs['no_bias'] = layer.inputs[:2], 'True'
        norm = _norm_behind(graph, layer, params) or _new_norm(graph, layer, params)
        _take_in(norm, params, step, bias - offset)
    arrays = {name: mx.nd.array(values, dtype=values.dtype) for name, values in params.items()}
    return Network(*as_network(graph, arrays))


def _offsets(graph, network, params, images):
    """For each full connection by how much rounding moves its output on average over ``images``, (channels,); None
    where it changes it by more than WORST_ROUNDING of its spread from image to image.

    Features that hardly vary may have weights so large that nothing is left of the others.
    """
    layers = [node for node in _layers(graph, params) if node.op == 'FullyConnected']
    features = Predictor(network, Graph([node.inputs[0] for node in layers]))(images, BATCH) if layers else []
    found = {}
    for layer, given in zip(layers, features):
        weight, rows = params[layer.inputs[1].node.name], given.reshape(len(given), -1)
        whole, step = rounded(weight)
        before, after = rows @ weight.T, rows @ (whole * step[:, None]).T
        offset = (after - before).mean(axis=0)
        is_right = np.sqrt(np.mean((after - before - offset) ** 2)) <= WORST_ROUNDING * spread(before)
        found[layer] = offset if is_right else None
    return found


def rounded(weight: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """(int8 of the shape of ``weight``, the step of each output channel)."""
    rows = weight.reshape(len(weight), -1)
    largest = np.abs(rows).max(axis=1, initial=0)
    step = np.where(largest > 0, largest / STEPS, 1).astype(np.float32)
    return np.rint(rows / step[:, None]).reshape(weight.shape).astype(np.int8), step


def calibrated(network: Network, images: np.ndarray) -> mx.sym.Symbol:
    """The symbol of a network whose nodes carry the ranges that their outputs have on ``images``."""
    quantised, data = quantised_symbol(network.symbol), only_input(_inputs(network))
    size = min(BATCH, len(images))
    arrays = {name: array.astype('float32') for name, array in network.arg_params.items()}
    executor = quantised.floats.bind(
        mx.cpu(),
        {**arrays, data: mx.nd.zeros((size, *images.shape[1:]))},
        aux_states=network.aux_params,
        grad_req='null',
    )
    executor.set_monitor_callback(quantised.collect, monitor_all=True)
    for start in range(0, len(images) - size + 1, size):
        executor.arg_dict[data][:] = images[start : start + size]
        executor.forward(is_train=False)
        mx.nd.waitall()
    graph = Graph.from_symbol(network.symbol)
    found = {quantised.names[output]: range_text(*pair) for output, pair in quantised.ranges.items()}
    for node in graph.nodes():
        if node.name in found:
            node.attrs[RANGE] = found[node.name]
    return graph.to_symbol()


def _inputs(network):
    return input_names(Graph.from_symbol(network.symbol), {**network.arg_params, **network.aux_params})


def _layers(graph, params):
    """The layers whose weight can be rounded: nobody else reads it, and their output channels lie along axis 1, as
    BatchNorm has them.
    """
    readers = graph.readers()
    return [
        node
        for node in readers
        if node.op in LAYERS
        and all(source.name in params for source in node.sources[1:])
        and len(readers[node.sources[1]]) == 1
        and (not channels_last(node) if node.op == 'Convolution' else flag(node, 'flatten', True))
    ]


def _norm_behind(graph, layer, params):
    """The batch normalisation that alone reads ``layer``, and whose parameters nobody else reads; or None."""
    readers = graph.readers()
    reader = readers[layer][0][0]
    if len(readers[layer]) > 1 or reader is None or reader.op != 'BatchNorm' or number(reader, 'axis', 1) != 1:
        return None
    own = all(source.name in params and len(readers[source]) == 1 for source in reader.sources[1:])
    return reader if own and not flag(reader, 'output_mean_var') else None


def _new_norm(graph, layer, params):
    """A batch normalisation behind ``layer`` that changes nothing yet."""
    readers, name = graph.readers()[layer], graph.fresh_name(f'{layer.name}_int8')
    channels = len(params[layer.inputs[1].node.name])
    inputs = [Output(layer)]
    for part, value in (('gamma', 1), ('beta', 0), ('moving_mean', 0), ('moving_var', 1)):
        params[f'{name}_{part}'] = np.full(channels, value, np.float32)
        inputs.append(Output(Node('null', f'{name}_{part}', {})))
    norm = Node('BatchNorm', name, {'eps': '1e-5', 'fix_gamma': 'False'}, inputs)
    for reader, position in readers:
        (graph.heads if reader is None else reader.inputs)[position] = Output(norm)
    return norm


def _take_in(norm, params, step, bias):
    """Let ``norm`` do what it does to ``step`` · x + ``bias``; its moving statistics become 0 and 1."""
    gamma, beta, mean, var = (source.name for source in norm.sources[1:])
    slope = (1 if flag(norm, 'fix_gamma', True) else params[gamma]) / np.sqrt(params[var] + batch_norm_eps(norm))
    params[beta] = (params[beta] + slope * (bias - params[mean])).astype(np.float32)
    params[gamma] = (slope * step).astype(np.float32)
    params[mean], params[var] = np.zeros_like(step), np.full_like(step, 1 - batch_norm_eps(norm))
    norm.attrs['fix_gamma'] = 'False'
