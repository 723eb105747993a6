"""MXNet's layers as ONNX's: convolutions, full connection, batch normalisation, activations and poolings.

The functions are entries of the table in ``onnx_operators``.
"""

from typing import Any, Dict, List

import numpy as np

from graphs import attributes
from graphs.attributes import flag, integers, number, require, text
from graphs.graph import Node

from .onnx_builder import INT64, Builder


def convolution(build: Builder, node: Node, inputs: List[str], output: str) -> None:
    build.add('Conv', inputs, output, **_window_options(node))


def deconvolution(build: Builder, node: Node, inputs: List[str], output: str) -> None:
    require(not integers(node, 'target_shape'), node, 'target_shape is not converted')
    build.add('ConvTranspose', inputs, output, output_padding=integers(node, 'adj', (0, 0)), **_window_options(node))


def _window_options(node: Node) -> Dict[str, Any]:
    """The options that a convolution and a transposed one have in common."""
    window = attributes.window(node)
    return {
        'kernel_shape': window.kernel,
        'strides': window.stride,
        'pads': window.pad * 2,
        'dilations': window.dilate,
        'group': number(node, 'num_group', 1),
    }


def fully_connected(build: Builder, node: Node, inputs: List[str], output: str) -> None:
    x, weight, *bias = inputs
    if flag(node, 'flatten', True):
        build.add('Gemm', [build.add('Flatten', [x], axis=1), weight, *bias], output, transB=1)
        return
    product = build.add('MatMul', [x, build.add('Transpose', [weight], perm=(1, 0))], None if bias else output)
    if bias:
        build.add('Add', [product, *bias], output)


def batch_norm(build: Builder, node: Node, inputs: List[str], output: str) -> None:
    require(attributes.batch_norm_axis(node) == 1, node, f'axis={node.attrs.get("axis")} is not converted')
    x, gamma, *others = inputs
    if flag(node, 'fix_gamma', True):
        gamma = build.constant(np.ones(build.shape(node.inputs[1]), 'float32'), f'{node.name}_ones')
    build.add('BatchNormalization', [x, gamma, *others], output, epsilon=attributes.batch_norm_eps(node))


ACTIVATIONS = {'relu': 'Relu', 'sigmoid': 'Sigmoid', 'tanh': 'Tanh', 'softrelu': 'Softplus', 'softsign': 'Softsign'}


def activation(build: Builder, node: Node, inputs: List[str], output: str) -> None:
    kind = text(node, 'act_type')
    require(kind in ACTIVATIONS, node, f'act_type={kind} is not converted')
    build.add(ACTIVATIONS[kind], inputs, output)


def leaky_relu(build: Builder, node: Node, inputs: List[str], output: str) -> None:
    kind, slope = text(node, 'act_type', 'leaky'), number(node, 'slope', 0.25)
    if kind == 'prelu':
        channels = build.shape(node.inputs[1])[0]
        shape = (channels,) + (1,) * (len(build.shape(node.inputs[0])) - 2)
        build.add(
            'PRelu', [inputs[0], build.add('Reshape', [inputs[1], build.constant(np.array(shape, INT64))])], output
        )
        return
    kinds = {'leaky': ('LeakyRelu', {'alpha': slope}), 'elu': ('Elu', {'alpha': slope}), 'selu': ('Selu', {})}
    require(kind in kinds, node, f'act_type={kind} is not converted')
    operator, options = kinds[kind]
    build.add(operator, inputs, output, **options)


def pooling(build: Builder, node: Node, inputs: List[str], output: str) -> None:
    kind = text(node, 'pool_type', 'max')
    require(kind in ('max', 'avg'), node, f'pool_type={kind} is not converted')
    if flag(node, 'global_pool'):
        build.add({'max': 'GlobalMaxPool', 'avg': 'GlobalAveragePool'}[kind], inputs, output)
        return
    window, convention = attributes.window(node), attributes.pooling_convention(node)
    axes = list(zip(build.shape(node.inputs[0])[2:], window.kernel, window.stride, window.pad))
    ends = [
        max((attributes.pooled_length(*axis, convention) - 1) * axis[2] + axis[1] - axis[3] - axis[0], axis[3])
        for axis in axes
    ]
    inside = all(pad < side for pad, side in zip((*window.pad, *ends), window.kernel * 2))
    require(inside, node, 'a window that sees nothing but padding is not converted')
    options: Dict[str, Any] = {'kernel_shape': window.kernel, 'strides': window.stride, 'pads': (*window.pad, *ends)}
    include = flag(node, 'count_include_pad', True)
    if kind == 'max':
        build.add('MaxPool', inputs, output, **options)
    elif tuple(ends) == window.pad:
        build.add('AveragePool', inputs, output, count_include_pad=int(include), **options)
    else:
        # A last window that hangs over the edge: runtimes differ in what they divide by, so divide by the whole window
        # and put it right.
        whole = build.add('AveragePool', inputs, count_include_pad=1, **options)
        rows, columns = (np.array(attributes.window_counts(*axis, convention, include), 'float32') for axis in axes)
        correction = np.prod(window.kernel) / (rows[:, None] * columns)
        build.add('Mul', [whole, build.constant(correction.astype('float32'), f'{node.name}_correction')], output)


def adaptive_average(build: Builder, node: Node, inputs: List[str], output: str) -> None:
    require(set(integers(node, 'output_size', (1,))) == {1}, node, 'only the average of the whole map is converted')
    build.add('GlobalAveragePool', inputs, output)
