"""What the tests of conversions share: parameters at random, MXNet's own answers, and small cases of every operator."""

import numpy as np

from graphs.graph import Graph
from runtime import mx
from symbols import NETWORKS, get_symbol, resnet, vgg

BATCH = 4
CIFAR = (3, 32, 32)
FAMILIES = ('resnet', 'resnet-basic', 'resnet-v1', 'resnext', 'vgg')
PLACEMENTS = ('weight', 'output')


def small_network(family, placement='weight', kinds=None):
    """A small network of a family with all of its kinds of λ: (symbol, image shape)."""
    with mx.name.NameManager():
        if family == 'resnet-basic':
            return resnet.network(
                (1, 1), (16, 32), resnet.basic_unit, False, 10, CIFAR, kinds or resnet.SCALES, placement
            ), CIFAR
        if family == 'vgg':
            return vgg.network((1, 2), (16, 32), True, 10, (3, 16, 16), kinds or vgg.SCALES, placement), (3, 16, 16)
    return get_symbol(family, 20, 10, CIFAR, ','.join(kinds or NETWORKS[family].SCALES), placement), CIFAR


def random_params(symbol, image_shape, dtype='float64', seed=0):
    """(arg_params, aux_params) as training might leave them: weights of He et al.'s scale, λ between 0.2 and 1."""
    random = np.random.RandomState(seed)
    arguments, _, states = symbol.infer_shape(data=(BATCH, *image_shape))

    def values(name, shape):
        if 'lambda' in name:
            return random.uniform(0.2, 1, shape)
        if name.endswith(('gamma', 'moving_var')):
            return random.uniform(0.5, 1.5, shape)
        if name.endswith('weight'):
            return random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        return random.standard_normal(shape) * 0.1

    arg = {
        name: mx.nd.array(values(name, shape), dtype=dtype)
        for name, shape in zip(symbol.list_arguments(), arguments)
        if name not in ('data', 'softmax_label')
    }
    aux = {
        name: mx.nd.array(values(name, shape), dtype=dtype)
        for name, shape in zip(symbol.list_auxiliary_states(), states)
    }
    return arg, aux


def random_images(image_shape, dtype='float64', seed=1, classes=10):
    """Images (BATCH, C, H, W) and labels (BATCH,), both of ``dtype``, as NumPy arrays."""
    random = np.random.RandomState(seed)
    return random.standard_normal((BATCH, *image_shape)).astype(dtype), random.randint(0, classes, BATCH).astype(dtype)


class Pass:
    """MXNet's run of a symbol: outputs in inference and, where ``train``, in training, gradients of all arguments, and
    the statistics afterwards.

    All are NumPy arrays. ``out_grad`` is the gradient of the output, which a symbol that ends in a loss does not need.
    """

    def __init__(self, symbol, arguments, states, train=True, out_grad=None):
        arrays = {name: mx.nd.array(values, dtype=values.dtype) for name, values in arguments.items()}
        gradients = (
            {name: mx.nd.zeros(array.shape, dtype=array.dtype) for name, array in arrays.items()} if train else None
        )
        executor = symbol.bind(
            mx.cpu(),
            {name: array.copy() for name, array in arrays.items()},
            gradients,
            'write' if train else 'null',
            {name: array.copy() for name, array in states.items()},
        )
        self.inferred = executor.forward(is_train=False)[0].asnumpy()
        if train:
            self.trained = executor.forward(is_train=True)[0].asnumpy()
            executor.backward() if out_grad is None else executor.backward(mx.nd.array(out_grad, dtype=out_grad.dtype))
            mx.nd.waitall()
            self.gradients = {name: array.asnumpy() for name, array in gradients.items()}
            self.statistics = {name: array.asnumpy() for name, array in executor.aux_dict.items()}


X = mx.sym.Variable('data')


def variable(name, shape):
    return mx.sym.Variable(name, shape=shape)


def _layers():
    """Layers with their options, by a name that says what is special: dict name → (symbol, shape of the data)."""
    maps = (BATCH, 6, 9, 8)
    bn = {'name': 'bn'}
    return {
        'convolution': (
            mx.sym.Convolution(
                X, kernel=(3, 2), stride=(2, 1), dilate=(2, 1), pad=(1, 2), num_filter=9, num_group=3, name='conv'
            ),
            maps,
        ),
        'deconvolution': (
            mx.sym.Deconvolution(
                X, kernel=(3, 2), stride=(2, 2), pad=(1, 0), adj=(1, 1), num_filter=4, num_group=2, name='deconv'
            ),
            maps,
        ),
        'fully connected': (mx.sym.FullyConnected(X, num_hidden=5, name='fc'), maps),
        'fully connected, along the last axis': (
            mx.sym.FullyConnected(X, num_hidden=5, flatten=False, name='fc'),
            maps,
        ),
        'fully connected, no bias': (mx.sym.FullyConnected(X, num_hidden=5, no_bias=True, name='fc'), maps),
        'batch norm, defaults': (mx.sym.BatchNorm(X, **bn), maps),
        'batch norm, learned gamma': (mx.sym.BatchNorm(X, fix_gamma=False, eps=1e-5, momentum=0.7, **bn), maps),
        'batch norm, global statistics': (mx.sym.BatchNorm(X, use_global_stats=True, fix_gamma=False, **bn), maps),
        'softplus': (mx.sym.Activation(X, act_type='softrelu'), maps),
        'leaky': (mx.sym.LeakyReLU(X), maps),
        'elu': (mx.sym.LeakyReLU(X, act_type='elu', slope=0.5), maps),
        'prelu': (mx.sym.LeakyReLU(X, act_type='prelu', name='prelu'), maps),
        'adaptive average': (mx.sym.contrib.AdaptiveAvgPooling2D(X, output_size=1), maps),
        'upsampling': (mx.sym.UpSampling(X, scale=2, sample_type='nearest'), maps),
    }


def _poolings():
    cases = {}
    for kind in ('max', 'avg'):
        cases[f'{kind} pooling, global'] = (
            mx.sym.Pooling(X, kernel=(2, 2), global_pool=True, pool_type=kind),
            (BATCH, 3, 7, 8),
        )
        for convention in ('valid', 'full'):
            for kernel, stride, pad in (
                ((3, 2), (2, 2), (1, 0)),
                ((3, 3), (2, 2), (1, 1)),
                ((2, 2), (3, 3), (0, 0)),
                ((1, 1), (2, 2), (0, 0)),
            ):
                for include in (True, False) if kind == 'avg' and any(pad) else (True,):
                    padding = '' if include else ', padding not counted'
                    name = f'{kind} pooling, {convention}, {kernel} {stride} {pad}{padding}'
                    cases[name] = (
                        mx.sym.Pooling(
                            X,
                            kernel=kernel,
                            stride=stride,
                            pad=pad,
                            pool_type=kind,
                            pooling_convention=convention,
                            count_include_pad=include,
                        ),
                        (BATCH, 3, 10, 11),
                    )
    return cases


def _shapes():
    rows, maps = (BATCH, 6), (BATCH, 6, 4, 5)
    w = variable('w', (6, 3))
    first, second, third = mx.sym.SliceChannel(X, num_outputs=3)
    squeezed = mx.sym.SliceChannel(X, num_outputs=6, squeeze_axis=True)
    return {
        'reshape 0 -1': (mx.sym.Reshape(X, shape=(0, -1)), maps),
        'reshape -2': (mx.sym.Reshape(X, shape=(0, -4, 3, -1, -2)), maps),
        'reshape -3': (mx.sym.Reshape(X, shape=(0, -3, 5)), maps),
        'flatten': (mx.sym.Flatten(X), maps),
        'transpose': (mx.sym.transpose(X, axes=(0, 2, 3, 1)), maps),
        'swap axes': (mx.sym.SwapAxis(X, dim1=1, dim2=3), maps),
        'slices': (mx.sym.Concat(third, first * second, dim=1), maps),
        'slices, squeezed': (squeezed[4] - squeezed[0], maps),
        'slice axis': (mx.sym.slice_axis(X, axis=1, begin=-4, end=None), maps),
        'expand and squeeze': (mx.sym.squeeze(mx.sym.expand_dims(X, axis=2), axis=2) + X, maps),
        'pad': (mx.sym.Pad(X, mode='constant', pad_width=(0, 0, 0, 0, 1, 2, 3, 0), constant_value=0.5), maps),
        'pad, edge': (mx.sym.Pad(X, mode='edge', pad_width=(0, 0, 0, 0, 1, 2, 3, 0)), maps),
        'pad, reflect': (mx.sym.Pad(X, mode='reflect', pad_width=(0, 0, 0, 0, 1, 2, 3, 0)), maps),
        'zeros': (mx.sym.Concat(X, mx.sym.zeros_like(X), mx.sym.ones_like(X), dim=2), maps),
        'dot': (mx.sym.dot(X, w), rows),
        'dot, transposed': (mx.sym.dot(X, variable('w', (3, 6)), transpose_b=True), rows),
        'repeat': (
            mx.sym.broadcast_mul(
                X, mx.sym.Reshape(mx.sym.repeat(variable('w', (2,)), repeats=3, axis=0), shape=(1, -1, 1, 1))
            ),
            maps,
        ),
    }


def _arithmetic():
    maps, w = (BATCH, 6, 4, 5), variable('w', (1, 6, 1, 1))
    return {
        'broadcasting': (
            mx.sym.broadcast_div(mx.sym.broadcast_sub(mx.sym.broadcast_add(X, w), w * 3), mx.sym.square(w) + 1),
            maps,
        ),
        'scalars': (2 / (mx.sym.square(3 - X * 2 + 1) + 0.5) - 1, maps),
        'power': (mx.sym.square(X) ** 1.5 / 4, maps),
        'maximum and minimum': (mx.sym.minimum(mx.sym.maximum(X, -0.3), 0.6), maps),
        'clip': (mx.sym.clip(X, a_min=-0.3, a_max=0.6), maps),
        'functions': (mx.sym.sqrt(mx.sym.exp(X)) + mx.sym.abs(X) - mx.sym.sigmoid(X) * mx.sym.tanh(X), maps),
        'sum of several': (mx.sym.add_n(X, X * 2, mx.sym.relu(X)), maps),
        'mean': (mx.sym.mean(X, axis=(2, 3)), maps),
        'mean, kept': (mx.sym.broadcast_add(mx.sym.mean(X, axis=1, keepdims=True), X), maps),
        'sum, excluding': (mx.sym.sum(X, axis=(0, 1), exclude=True), maps),
        'softmax within': (mx.sym.softmax(X, axis=1) * 2, maps),
        'no gradient': (mx.sym.BlockGrad(X) * X, maps),
    }


OPERATOR_CASES = {**_layers(), **_poolings(), **_shapes(), **_arithmetic()}


def smooth(symbol):
    """The network with softplus for ReLU: where an activation is within rounding of 0, ReLU's gradient jumps."""
    graph = Graph.from_symbol(symbol)
    for node in graph.nodes():
        if node.op == 'Activation':
            node.attrs['act_type'] = 'softrelu'
    return graph.to_symbol()


def half_dead(arg_params, aux_params):
    """The parameters with every second λ zero."""

    def halved(values):
        values.reshape(-1)[::2] = 0
        return mx.nd.array(values, dtype=values.dtype)

    return {
        name: halved(array.asnumpy()) if 'lambda' in name else array for name, array in arg_params.items()
    }, aux_params
