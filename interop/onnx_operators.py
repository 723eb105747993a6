"""One table from MXNet's operators to ONNX's, opset 13.

An entry is a function ``(build, node, inputs, output)`` that adds ONNX nodes to ``build`` (a ``Builder``); ``inputs``
are the names of the tensors that the node reads, ``output`` the name that its first output shall have. Only nodes that
depend on the images get here, everything else is a constant by then.
"""

import numpy as np

from graphs import attributes
from graphs.attributes import flag, integers, number, require, text
from graphs.graph import Output

INT64 = 'int64'


def convolution(build, node, inputs, output):
    window = attributes.window(node)
    build.add(
        'Conv',
        inputs,
        output,
        kernel_shape=window.kernel,
        strides=window.stride,
        pads=window.pad * 2,
        dilations=window.dilate,
        group=number(node, 'num_group', 1),
    )


def deconvolution(build, node, inputs, output):
    window = attributes.window(node)
    require(not integers(node, 'target_shape'), node, 'target_shape is not converted')
    build.add(
        'ConvTranspose',
        inputs,
        output,
        kernel_shape=window.kernel,
        strides=window.stride,
        pads=window.pad * 2,
        dilations=window.dilate,
        group=number(node, 'num_group', 1),
        output_padding=integers(node, 'adj', (0, 0)),
    )


def fully_connected(build, node, inputs, output):
    x, weight, *bias = inputs
    if flag(node, 'flatten', True):
        build.add('Gemm', [build.add('Flatten', [x], axis=1), weight, *bias], output, transB=1)
        return
    product = build.add('MatMul', [x, build.add('Transpose', [weight], perm=(1, 0))], None if bias else output)
    if bias:
        build.add('Add', [product, *bias], output)


def batch_norm(build, node, inputs, output):
    require(attributes.batch_norm_axis(node) == 1, node, f'axis={node.attrs.get("axis")} is not converted')
    x, gamma, *others = inputs
    if flag(node, 'fix_gamma', True):
        gamma = build.constant(np.ones(build.shape(node.inputs[1]), 'float32'), f'{node.name}_ones')
    build.add('BatchNormalization', [x, gamma, *others], output, epsilon=attributes.batch_norm_eps(node))


ACTIVATIONS = {'relu': 'Relu', 'sigmoid': 'Sigmoid', 'tanh': 'Tanh', 'softrelu': 'Softplus', 'softsign': 'Softsign'}


def activation(build, node, inputs, output):
    kind = text(node, 'act_type')
    require(kind in ACTIVATIONS, node, f'act_type={kind} is not converted')
    build.add(ACTIVATIONS[kind], inputs, output)


def leaky_relu(build, node, inputs, output):
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


def pooling(build, node, inputs, output):
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
    options = {'kernel_shape': window.kernel, 'strides': window.stride, 'pads': (*window.pad, *ends)}
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


def adaptive_average(build, node, inputs, output):
    require(set(integers(node, 'output_size', (1,))) == {1}, node, 'only the average of the whole map is converted')
    build.add('GlobalAveragePool', inputs, output)


def reshape(build, node, inputs, output):
    """To the shape that MXNet infers: whichever its codes, a side that grows with the batch is the one to be inferred,
    the others are fixed.
    """
    build.add(
        'Reshape',
        [*inputs[:1], build.constant(np.array(build.free_shape(Output(node)), INT64), f'{node.name}_shape')],
        output,
    )


def transpose(build, node, inputs, output):
    rank = len(build.shape(node.inputs[0]))
    build.add('Transpose', inputs, output, perm=integers(node, 'axes', tuple(reversed(range(rank)))))


def swap_axis(build, node, inputs, output):
    order = list(range(len(build.shape(node.inputs[0]))))
    first, second = number(node, 'dim1', 0), number(node, 'dim2', 0)
    order[first], order[second] = order[second], order[first]
    build.add('Transpose', inputs, output, perm=order)


def concat(build, node, inputs, output):
    build.add('Concat', inputs, output, axis=number(node, 'dim', 1))


def slice_channel(build, node, inputs, output):
    axis, outputs = (
        number(node, 'axis', 1),
        [output] + [build.name(Output(node, index)) for index in range(1, number(node, 'num_outputs'))],
    )
    if not flag(node, 'squeeze_axis'):
        build.add('Split', inputs, outputs, axis=axis)
        return
    parts = [f'{name}_part' for name in outputs]
    build.add('Split', inputs, parts, axis=axis)
    for part, name in zip(parts, outputs):
        build.add('Squeeze', [part, build.constant(np.array([axis], INT64))], name)


def slice_axis(build, node, inputs, output):
    begin, end = number(node, 'begin', 0), number(node, 'end')
    end = np.iinfo(INT64).max if end is None else end
    build.add(
        'Slice',
        [*inputs, *(build.constant(np.array([value], INT64)) for value in (begin, end, number(node, 'axis')))],
        output,
    )


def pad(build, node, inputs, output):
    widths = integers(node, 'pad_width')
    value = build.constant(np.array(number(node, 'constant_value', 0), 'float32'))
    build.add(
        'Pad',
        [*inputs, build.constant(np.array(widths[::2] + widths[1::2], INT64)), value],
        output,
        mode=text(node, 'mode'),
    )


def up_sampling(build, node, inputs, output):
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


def clip(build, node, inputs, output):
    build.add(
        'Clip',
        [*inputs, *(build.constant(np.array(number(node, name), 'float32')) for name in ('a_min', 'a_max'))],
        output,
    )


def softmax(build, node, inputs, output):
    require(number(node, 'temperature') is None, node, 'temperature is not converted')
    build.add(
        {'softmax': 'Softmax', 'log_softmax': 'LogSoftmax'}[node.op], inputs, output, axis=number(node, 'axis', -1)
    )


def dot(build, node, inputs, output):
    ranks = {len(build.shape(source)) for source in node.inputs}
    require(ranks == {2}, node, 'only products of matrices are converted')
    sides = [
        build.add('Transpose', [side], perm=(1, 0)) if flag(node, name) else side
        for side, name in zip(inputs, ('transpose_a', 'transpose_b'))
    ]
    build.add('MatMul', sides, output)


def filled_like(value):
    """An entry for arrays of one value, of the shape of the input."""

    def entry(build, node, inputs, output):
        build.add(
            'ConstantOfShape', [build.add('Shape', inputs)], output, value=build.tensor(np.array([value], 'float32'))
        )

    return entry


def mean(build, node, inputs, output):
    axes, rank = integers(node, 'axis'), len(build.shape(node.inputs[0]))
    chosen = {axis % rank for axis in axes} or set(range(rank))
    chosen = set(range(rank)) - chosen if flag(node, 'exclude') else chosen
    build.add('ReduceMean', inputs, output, axes=sorted(chosen), keepdims=int(flag(node, 'keepdims')))


def total(build, node, inputs, output):
    axes, rank = integers(node, 'axis'), len(build.shape(node.inputs[0]))
    chosen = {axis % rank for axis in axes} or set(range(rank))
    chosen = set(range(rank)) - chosen if flag(node, 'exclude') else chosen
    build.add(
        'ReduceSum',
        [*inputs, build.constant(np.array(sorted(chosen), INT64))],
        output,
        keepdims=int(flag(node, 'keepdims')),
    )


def with_axes(operator):
    """An entry for an operator that takes its axes as a second input."""

    def entry(build, node, inputs, output):
        axes = integers(node, 'axis', tuple(axis for axis, side in enumerate(build.shape(node.inputs[0])) if side == 1))
        build.add(operator, [*inputs, build.constant(np.array(axes, INT64))], output)

    return entry


def plain(operator):
    """An entry for an operator that ONNX has as it is, without attributes that matter."""
    return lambda build, node, inputs, output: build.add(operator, inputs, output)


def with_scalar(operator, scalar_first=False):
    """An entry for an operator between an array and the number in ``scalar``."""

    def entry(build, node, inputs, output):
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

OPERATORS = {
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
