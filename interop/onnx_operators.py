"""One table from MXNet's operators to ONNX's, opset 13.

An entry is a function ``(build, node, inputs, output)`` that adds ONNX nodes to ``build`` (a ``Builder``); ``inputs``
are the names of the tensors that the node reads, ``output`` is the name that its first output gets. Only nodes that
depend on the images get here; everything else is a constant by then. ``onnx_layers`` has the entries of layers.
"""

from typing import Callable, Dict, List

import numpy as np

from graphs.attributes import flag, integers, number, require, text
from graphs.graph import Node, Output

from .onnx_builder import INT64, Builder
from .onnx_layers import (
    activation,
    adaptive_average,
    batch_norm,
    convolution,
    deconvolution,
    fully_connected,
    leaky_relu,
    pooling,
)

Entry = Callable[[Builder, Node, List[str], str], object]


def reshape(build: Builder, node: Node, inputs: List[str], output: str) -> None:
    """To the shape that MXNet infers: whichever its codes, a side that grows with the batch is the one to be inferred,
    the others are fixed.
    """
    build.add(
        'Reshape',
        [*inputs[:1], build.constant(np.array(build.free_shape(Output(node)), INT64), f'{node.name}_shape')],
        output,
    )


def transpose(build: Builder, node: Node, inputs: List[str], output: str) -> None:
    rank = len(build.shape(node.inputs[0]))
    build.add('Transpose', inputs, output, perm=integers(node, 'axes', tuple(reversed(range(rank)))))


def swap_axis(build: Builder, node: Node, inputs: List[str], output: str) -> None:
    order = list(range(len(build.shape(node.inputs[0]))))
    first, second = number(node, 'dim1', 0), number(node, 'dim2', 0)
    order[first], order[second] = order[second], order[first]
    build.add('Transpose', inputs, output, perm=order)


def concat(build: Builder, node: Node, inputs: List[str], output: str) -> None:
    build.add('Concat', inputs, output, axis=number(node, 'dim', 1))


def slice_channel(build: Builder, node: Node, inputs: List[str], output: str) -> None:
    axis = number(node, 'axis', 1)
    outputs = [output] + [build.name(Output(node, index)) for index in range(1, number(node, 'num_outputs'))]
    if not flag(node, 'squeeze_axis'):
        build.add('Split', inputs, outputs, axis=axis)
        return
    parts = [f'{name}_part' for name in outputs]
    build.add('Split', inputs, parts, axis=axis)
    for part, name in zip(parts, outputs):
        build.add('Squeeze', [part, build.constant(np.array([axis], INT64))], name)


def slice_axis(build: Builder, node: Node, inputs: List[str], output: str) -> None:
    begin, end = number(node, 'begin', 0), number(node, 'end')
    end = np.iinfo(INT64).max if end is None else end
    build.add(
        'Slice',
        [*inputs, *(build.constant(np.array([value], INT64)) for value in (begin, end, number(node, 'axis')))],
        output,
    )


def pad(build: Builder, node: Node, inputs: List[str], output: str) -> None:
    widths = integers(node, 'pad_width')
    value = build.constant(np.array(number(node, 'constant_value', 0), 'float32'))
    build.add(
        'Pad',
        [*inputs, build.constant(np.array(widths[::2] + widths[1::2], INT64)), value],
        output,
        mode=text(node, 'mode'),
    )


def up_sampling(build: Builder, node: Node, inputs: List[str], output: str) -> None:
    require(
        text(node, 'sample_type') == 'nearest' and len(inputs) == 1,
        node,
        'only the nearest neighbour of one input is converted',
    )
    scale = number(node, 'scale')
    build.add(
        'Resize',
        [*inputs, '', build.constant(np.array([1, 1, scale, scale], 'float32'))],
        output,
        mode='nearest',
        coordinate_transformation_mode='asymmetric',
        nearest_mode='floor',
    )


def clip(build: Builder, node: Node, inputs: List[str], output: str) -> None:
    build.add(
        'Clip',
        [*inputs, *(build.constant(np.array(number(node, name), 'float32')) for name in ('a_min', 'a_max'))],
        output,
    )


def softmax(build: Builder, node: Node, inputs: List[str], output: str) -> None:
    require(number(node, 'temperature') is None, node, 'temperature is not converted')
    build.add(
        {'softmax': 'Softmax', 'log_softmax': 'LogSoftmax'}[node.op], inputs, output, axis=number(node, 'axis', -1)
    )


def dot(build: Builder, node: Node, inputs: List[str], output: str) -> None:
    ranks = {len(build.shape(source)) for source in node.inputs}
    require(ranks == {2}, node, 'only products of matrices are converted')
    sides = [
        build.add('Transpose', [side], perm=(1, 0)) if flag(node, name) else side
        for side, name in zip(inputs, ('transpose_a', 'transpose_b'))
    ]
    build.add('MatMul', sides, output)


def filled_like(value: float) -> Entry:
    """An entry for arrays of one value, of the shape of the input."""

    def entry(build: Builder, node: Node, inputs: List[str], output: str) -> None:
        build.add(
            'ConstantOfShape', [build.add('Shape', inputs)], output, value=build.tensor(np.array([value], 'float32'))
        )

    return entry


def mean(build: Builder, node: Node, inputs: List[str], output: str) -> None:
    build.add('ReduceMean', inputs, output, axes=_reduced_axes(build, node), keepdims=int(flag(node, 'keepdims')))


def total(build: Builder, node: Node, inputs: List[str], output: str) -> None:
    axes = build.constant(np.array(_reduced_axes(build, node), INT64))
    build.add('ReduceSum', [*inputs, axes], output, keepdims=int(flag(node, 'keepdims')))


def _reduced_axes(build: Builder, node: Node) -> List[int]:
    """The axes that a reduction goes over, in order."""
    axes, rank = integers(node, 'axis'), len(build.shape(node.inputs[0]))
    chosen = {axis % rank for axis in axes} or set(range(rank))
    return sorted(set(range(rank)) - chosen if flag(node, 'exclude') else chosen)


def with_axes(operator: str) -> Entry:
    """An entry for an operator that takes its axes as a second input."""

    def entry(build: Builder, node: Node, inputs: List[str], output: str) -> None:
        axes = integers(node, 'axis', tuple(axis for axis, side in enumerate(build.shape(node.inputs[0])) if side == 1))
        build.add(operator, [*inputs, build.constant(np.array(axes, INT64))], output)

    return entry


def plain(operator: str) -> Entry:
    """An entry for an operator that ONNX has as it is, without attributes that matter."""
    return lambda build, node, inputs, output: build.add(operator, inputs, output)


def with_scalar(operator: str, scalar_first: bool = False) -> Entry:
    """An entry for an operator between an array and the number in ``scalar``."""

    def entry(build: Builder, node: Node, inputs: List[str], output: str) -> None:
        operands = [*inputs, build.constant(np.array(number(node, 'scalar'), 'float32'))]
        build.add(operator, operands[::-1] if scalar_first else operands, output)

    return entry


ARITHMETIC = {'add': 'Add', 'sub': 'Sub', 'mul': 'Mul', 'div': 'Div'}
SCALAR = {'plus': 'Add', 'minus': 'Sub', 'mul': 'Mul', 'div': 'Div', 'power': 'Pow', 'maximum': 'Max', 'minimum': 'Min'}
FUNCTIONS = {
    'relu': 'Relu',
    'sigmoid': 'Sigmoid',
    'tanh': 'Tanh',
    'exp': 'Exp',
    'log': 'Log',
    'sqrt': 'Sqrt',
    'abs': 'Abs',
    'negative': 'Neg',
    'reciprocal': 'Reciprocal',
}

OPERATORS: Dict[str, Entry] = {
    'Convolution': convolution,
    'Deconvolution': deconvolution,
    'FullyConnected': fully_connected,
    'BatchNorm': batch_norm,
    '_contrib_SyncBatchNorm': batch_norm,
    'Dropout': plain('Identity'),
    'Activation': activation,
    'LeakyReLU': leaky_relu,
    'Pooling': pooling,
    '_contrib_AdaptiveAvgPooling2D': adaptive_average,
    'softmax': softmax,
    'log_softmax': softmax,
    'Flatten': lambda build, node, inputs, output: build.add('Flatten', inputs, output, axis=1),
    'Reshape': reshape,
    'transpose': transpose,
    'SwapAxis': swap_axis,
    'expand_dims': with_axes('Unsqueeze'),
    'squeeze': with_axes('Squeeze'),
    'Concat': concat,
    'SliceChannel': slice_channel,
    'slice_axis': slice_axis,
    'Pad': pad,
    'UpSampling': up_sampling,
    'dot': dot,
    'clip': clip,
    'mean': mean,
    'sum': total,
    'zeros_like': filled_like(0),
    'ones_like': filled_like(1),
    'square': lambda build, node, inputs, output: build.add('Mul', inputs * 2, output),
    '_copy': plain('Identity'),
    'BlockGrad': plain('Identity'),
    'add_n': plain('Sum'),
    **{f'elemwise_{name}': plain(operator) for name, operator in ARITHMETIC.items()},
    **{f'broadcast_{name}': plain(operator) for name, operator in ARITHMETIC.items()},
    **{f'_{name}_scalar': with_scalar(operator) for name, operator in SCALAR.items()},
    **{f'_r{name}_scalar': with_scalar(SCALAR[name], scalar_first=True) for name in ('minus', 'div', 'power')},
    **{name: plain(operator) for name, operator in FUNCTIONS.items()},
}
