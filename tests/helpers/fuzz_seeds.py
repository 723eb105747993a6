"""Sound files of networks and parameters, which are then damaged."""

import json
import os

import numpy as np

from formats.params_file import save_params
from runtime import mx
from symbols import get_symbol


def network_seeds(folder):
    """Sound files by kind, as bytes; symbols as what their JSON holds. ``folder`` is for scratch files."""
    # Nodes without a name are numbered; the numbers start anew here, so that every process makes the same graphs.
    with mx.name.NameManager():
        symbols = [json.loads(symbol.tojson()) for symbol in _symbols()]
    return {
        'params': [_bytes(os.path.join(folder, 'seed.params'), lambda path: save_params(path, *_params()))],
        'symbol': symbols,
        'torch': _torch_files(folder),
        'safetensors': _safetensors_files(folder),
        'onnx': _onnx_files(),
    }


def _symbols():
    """Small networks of every sort: our families, and what they do not use (concat, split, groups, recurrence,
    detection).
    """
    image = '3,32,32'
    built = [
        get_symbol('resnet', 20, 10, image),
        get_symbol('resnet', 20, 10, image, lambda_placement='output'),
        get_symbol('resnext', 20, 10, image),
    ]
    return [*built, _mixture(), _sequence()]


def _mixture():
    x = mx.sym.Variable('data')
    x = mx.sym.Convolution(x, kernel=(3, 3), num_filter=8, pad=(1, 1), no_bias=True, name='conv0')
    x = mx.sym.Activation(mx.sym.BatchNorm(x, fix_gamma=False, name='bn0'), act_type='relu')
    halves = mx.sym.SliceChannel(x, num_outputs=2, name='halves')
    grouped = mx.sym.Convolution(
        halves[0], kernel=(3, 3), num_filter=8, num_group=2, stride=(2, 2), pad=(1, 1), name='conv1'
    )
    pooled = mx.sym.Pooling(halves[1], kernel=(2, 2), stride=(2, 2), pool_type='max')
    x = mx.sym.Concat(grouped, pooled, dim=1)
    x = mx.sym.Deconvolution(x, kernel=(4, 4), stride=(2, 2), pad=(1, 1), num_filter=4, name='up')
    x = mx.sym.LeakyReLU(mx.sym.InstanceNorm(x, name='norm'), act_type='prelu', name='prelu')
    x = mx.sym.broadcast_mul(x, mx.sym.mean(x, axis=(2, 3), keepdims=True)) + mx.sym.transpose(x, axes=(0, 1, 3, 2))
    x = mx.sym.slice_axis(mx.sym.reshape(x, shape=(0, 2, -1, 0, 0)), axis=1, begin=0, end=1)
    x = mx.sym.Dropout(
        mx.sym.Flatten(mx.sym.UpSampling(mx.sym.reshape(x, shape=(0, -3, 0, 0)), scale=2, sample_type='nearest')), p=0.5
    )
    return mx.sym.SoftmaxOutput(mx.sym.FullyConnected(x, num_hidden=10, name='fc'), name='softmax')


def _sequence():
    x = mx.sym.Embedding(mx.sym.Variable('data'), input_dim=20, output_dim=6, name='embed')
    x = mx.sym.RNN(
        x,
        mx.sym.Variable('rnn_parameters'),
        mx.sym.Variable('state'),
        mx.sym.Variable('cell'),
        mode='lstm',
        state_size=5,
        num_layers=1,
        name='rnn',
    )
    first, rest = mx.sym.split_v2(x, indices_or_sections=(2,), axis=0)
    x = mx.sym.stack(mx.sym.sum(first, axis=0), mx.sym.max(rest, axis=0), axis=1)
    return mx.sym.topk(
        mx.sym.LayerNorm(mx.sym.squeeze(mx.sym.sum(x, axis=1, keepdims=True), axis=1), name='ln'), k=2, ret_typ='both'
    )


def _params():
    arg = {
        'conv0_weight': mx.nd.ones((4, 3, 3, 3)),
        'fc_weight': mx.nd.ones((2, 3), dtype='float16'),
        'count': mx.nd.ones((2,), dtype='int64'),
    }
    return arg, {'bn0_moving_mean': mx.nd.zeros((4,)), 'bn0_moving_var': mx.nd.ones((4,), dtype='float64')}


def _torch_files(folder):
    try:
        import torch
    except ImportError:
        return []
    state = {
        'conv.weight': torch.ones(4, 3, 3, 3),
        'fc.weight': torch.ones(5, 2).t(),
        'steps': torch.tensor(3),
        'half': torch.ones(3).to(torch.bfloat16),
    }
    path = os.path.join(folder, 'seed.pth')
    checkpoint = {'state_dict': {'module.' + name: tensor for name, tensor in state.items()}, 'epoch': 3}
    return [
        _bytes(path, lambda name, what=what, new=new: torch.save(what, name, _use_new_zipfile_serialization=new))
        for what in (state, checkpoint)
        for new in (True, False)
    ]


def _safetensors_files(folder):
    try:
        from safetensors.numpy import save_file
    except ImportError:
        return []
    tensors = {'a': np.ones((3, 4), 'float32'), 'b': np.zeros((0, 2), 'float16'), 'c': np.array(3)}
    return [_bytes(os.path.join(folder, 'seed.safetensors'), lambda path: save_file(tensors, path))]


def _onnx_files():
    try:
        from onnx import TensorProto, helper, numpy_helper
    except ImportError:
        return []
    weights = [
        numpy_helper.from_array(np.ones((4, 3, 3, 3), 'float32'), 'w'),
        helper.make_tensor('axes', TensorProto.INT64, [1], [1]),
    ]
    nodes = [
        helper.make_node('Conv', ['x', 'w'], ['c'], kernel_shape=[3, 3]),
        helper.make_node('Unsqueeze', ['c', 'axes'], ['y']),
    ]
    values = [
        helper.make_tensor_value_info(name, 1, shape) for name, shape in (('x', [1, 3, 8, 8]), ('y', [1, 1, 4, 6, 6]))
    ]
    graph = helper.make_graph(nodes, 'graph', values[:1], values[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 13)])
    model.ir_version = 8
    return [model.SerializeToString()]


def _bytes(path, write):
    write(path)
    with open(path, 'rb') as written:
        return written.read()
