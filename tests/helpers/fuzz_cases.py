"""Damaged files by the thousand: valid seeds of every format the project reads, and ways to spoil them.

``Corpus(folder).case(seed, index)`` is a pure function, so that a failure can be made again from two numbers.
"""

import contextlib
import ctypes
import io
import json
import os
import random
import re
import zipfile

import numpy as np

from formats.params_file import save_params
from formats.symbol_operators import KNOWN
from helpers.fuzz_texts import mutated_lines, text_seeds
from runtime import mx
from symbols import get_symbol

# How often each kind of file is drawn.
WEIGHTS = {
    'params': 4,
    'symbol': 8,
    'operator': 4,
    'torch': 4,
    'safetensors': 1,
    'onnx': 1,
    'metrics': 2,
    'result': 2,
    'record manifest': 1,
    'manifest': 1,
    'recipe': 1,
    'idx': 1,
    'tar': 2,
    'packed tar': 1,
    'matlab': 2,
}
NUMBERS = (0, 1, 2, 3, 7, 8, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)
ABSURD = (
    '0',
    '-1',
    '1',
    '2',
    '3',
    '7',
    '64',
    '4097',
    '100000',
    '2147483647',
    '2147483648',
    '-2147483648',
    '4294967296',
    '9223372036854775807',
    '1000000000000000000',
    '1e18',
    '-1e30',
    '1e-50',
    'nan',
    'inf',
    '0.5',
    'True',
    'False',
    'None',
    '',
    ' ',
    'x',
    '()',
    '(0,)',
    '(-1,)',
    '(1,)',
    '(0,0)',
    '(1,1)',
    '(2,2)',
    '(-1,-1)',
    '(3,3,3)',
    '(1,1,1,1,1,1,1)',
    '(1000000,1000000)',
    '(2147483647,2147483647)',
    '(1000000000000,)',
    '(0,-1)',
    '(-2,)',
    '(-3,-2)',
    '(-4,2,-1,0)',
    '[1,2',
    '(((',
    '1,2',
    '(1,,2)',
    '(None,None)',
    '(None, 2)',
    '9' * 400,
    '(' + '1,' * 300 + ')',
    'float16',
    'int8',
    'uint8',
    'NHWC',
    'bool',
)
JUNK = (
    None,
    -1,
    0,
    1,
    2**31,
    2**40,
    1.5,
    'x',
    '',
    [],
    [0],
    [0, 0],
    [[0, 0, 0]],
    {},
    {'a': 1},
    True,
    [0, 1, 0],
    [99999, 0, 0],
    [0, 99999, 0],
    [[[]]],
)


class Corpus:
    """The seeds, made once and kept in memory."""

    def __init__(self, folder):
        os.makedirs(folder, exist_ok=True)
        # Nodes without a name are numbered; the numbers start anew here, so that every process makes the same graphs.
        with mx.name.NameManager():
            symbols = [json.loads(symbol.tojson()) for symbol in _symbols()]
        self.seeds = {
            'params': [_bytes(os.path.join(folder, 'seed.params'), lambda path: save_params(path, *_params()))],
            'symbol': symbols,
            'operator': [operator_info(name) for name in sorted(KNOWN)],
            'torch': _torch_files(folder),
            'safetensors': _safetensors_files(folder),
            'onnx': _onnx_files(),
            **text_seeds(),
        }
        self.kinds = [kind for kind in WEIGHTS if self.seeds[kind]]

    def case(self, seed, index):
        """The ``index``-th damaged file: ``(kind, bytes)``."""
        rng = random.Random(f'{seed}:{index}')
        kind = rng.choices(self.kinds, [WEIGHTS[kind] for kind in self.kinds])[0]
        original = rng.choice(self.seeds[kind])
        if kind == 'operator':
            return 'symbol', json.dumps(random_operator(rng, original)).encode()
        if kind == 'symbol':
            graph = mutated_graph(rng, original, rng.choice(self.seeds[kind]))
            data = json.dumps(graph).encode()
            return kind, mutated_bytes(rng, data) if rng.random() < 0.2 else data
        if isinstance(original, list):
            data = mutated_lines(rng, original, JUNK)
            return kind, mutated_bytes(rng, data) if rng.random() < 0.3 else data
        if kind == 'torch' and original[:2] == b'PK' and rng.random() < 0.6:
            return kind, _mutated_archive(rng, original)
        return kind, mutated_bytes(rng, original, head=0.5)


def mutated_bytes(rng, data, head=0.0):
    """``data`` with one to four damages: flipped bits, blown-up numbers, cuts, junk, splices. ``head``: how often they
    hit the first kilobyte.
    """
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        reach = min(len(data), 1024) if rng.random() < head else len(data)
        place = rng.randrange(reach) if reach else 0
        rng.choice((_flip, _overwrite, _blow_up, _cut, _append, _splice, _insert))(rng, data, place)
    return bytes(data)


def mutated_graph(rng, graph, other):
    """A symbol's JSON (as a dict) with one to three things changed."""
    graph = json.loads(json.dumps(graph))
    for _ in range(rng.randint(1, 3)):
        # The second change may stumble over the first, which is then damage enough.
        with contextlib.suppress(TypeError, KeyError, IndexError, AttributeError, ValueError):
            rng.choice(_GRAPH_MUTATIONS)(rng, graph, rng.choice(graph['nodes']), other)
    return graph


def random_operator(rng, info):
    """A graph of one operator with random attributes on inputs of random shapes."""
    name, arguments, parameters = info
    attrs = {}
    for key, kind in parameters:
        if 'required' in kind or rng.random() < 0.4:
            attrs[key] = _value(rng, kind)
    count = len(arguments) if not any('[]' in kind for _, kind in arguments) else rng.randint(1, 3)
    count = max(0, count + rng.choice((0, 0, 0, 0, 0, 0, -1, 1)))
    if 'num_args' in dict(parameters) and rng.random() < 0.9:
        attrs['num_args'] = str(count)
    shape = _shape(rng)
    nodes = [
        {
            'op': 'null',
            'name': f'v{i}',
            'attrs': {'__shape__': str(shape if rng.random() < 0.6 else _shape(rng))},
            'inputs': [],
        }
        for i in range(count)
    ]
    nodes.append({'op': name, 'name': 'node', 'attrs': attrs, 'inputs': [[i, 0, 0] for i in range(count)]})
    return {
        'nodes': nodes,
        'arg_nodes': list(range(count)),
        'heads': [[count, 0, 0]],
        'attrs': {'mxnet_version': ['int', 10901]},
    }


def operator_info(name):
    """``(name, inputs, parameters)`` of an operator, the latter two as lists of (name, kind)."""
    handle = ctypes.c_void_p()
    lib = mx.base._LIB
    mx.base.check_call(lib.NNGetOpHandle(name.encode(), ctypes.byref(handle)))
    texts = [ctypes.c_char_p() for _ in range(4)]
    lists = [ctypes.POINTER(ctypes.c_char_p)() for _ in range(3)]
    count = ctypes.c_uint()
    pointers = [ctypes.byref(item) for item in (texts[0], texts[1], count, *lists, texts[2], texts[3])]
    mx.base.check_call(lib.MXSymbolGetAtomicSymbolInfo(handle, *pointers))
    arguments = [(lists[0][i].decode(), lists[1][i].decode()) for i in range(count.value)]
    return (
        name,
        [pair for pair in arguments if 'Symbol' in pair[1]],
        [pair for pair in arguments if 'Symbol' not in pair[1]],
    )


def _value(rng, kind):
    if rng.random() < 0.25:
        return rng.choice(ABSURD)
    options = re.match(r'\{(.*)\}', kind)
    if options:
        return rng.choice(options.group(1).replace("'", '').split(', '))
    if kind.startswith('boolean'):
        return rng.choice(('True', 'False', '0', '1'))
    if kind.startswith('Shape'):
        return str(tuple(rng.choice((0, 1, 1, 2, 2, 3, 4, -1)) for _ in range(rng.randint(0, 4))))
    if kind.startswith('tuple'):
        return str(tuple(rng.choice((0.0, 0.5, 1.0, -1.0, 8.0)) for _ in range(rng.randint(0, 4))))
    if kind.startswith(('int', 'long')):
        return str(rng.choice((0, 1, 1, 2, 2, 3, 4, -1, -2, 5, 8)))
    return str(rng.choice((0, 1, 0.5, -1, 2, 1e-5)))


def _shape(rng):
    return tuple(rng.choice((1, 2, 2, 3, 4, 4, 6, 8)) for _ in range(rng.choice((1, 2, 2, 3, 3, 4, 4, 4, 4, 5))))


def _flip(rng, data, place):
    if data:
        data[place] ^= 1 << rng.randrange(8)


def _overwrite(rng, data, place):
    data[place : place + 1] = bytes([rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))])


def _blow_up(rng, data, place):
    size = rng.choice((2, 4, 8))
    place -= place % 4
    data[place : place + size] = (rng.choice(NUMBERS) % 256**size).to_bytes(size, 'little')


def _cut(rng, data, place):
    del data[place : place + rng.choice((1, 4, 8, len(data)))]


def _append(rng, data, place):
    data += bytes(rng.choice((1, 8, 100)))


def _insert(rng, data, place):
    data[place:place] = rng.choice((b'\0', b'\xff', b'[', b'{"', b'9', b'\0' * 8))


def _splice(rng, data, place):
    start = rng.randrange(len(data) + 1)
    data[place:place] = data[start : start + rng.choice((4, 16, 64))]


def _change_inputs(rng, graph, node, _):
    inputs = node.get('inputs')
    if not isinstance(inputs, list):
        return
    change = rng.randrange(4)
    if change == 0 and inputs:
        inputs.pop(rng.randrange(len(inputs)))
    elif change == 1:
        inputs.append([rng.randrange(-1, len(graph['nodes']) + 2), rng.choice((0, 0, 1, 5, 2**31)), 0])
    elif inputs:
        entry = rng.choice(inputs)
        if isinstance(entry, list) and len(entry) > 1:
            place = rng.randrange(2)
            entry[place] = rng.choice((-1, 0, 1, 2, 5, 2**31 - 1, rng.randrange(len(graph['nodes']))))


def _change_attribute(rng, _, node, other):
    attrs = node.setdefault('attrs', {})
    known = [key for other_node in other['nodes'] for key in other_node.get('attrs', {})]
    if isinstance(attrs, dict):
        attrs[rng.choice(list(attrs) if attrs and rng.random() < 0.8 else known)] = rng.choice(ABSURD)


def _change_variable(rng, _, node, __):
    key = rng.choice(
        (
            '__shape__',
            '__dtype__',
            '__storage_type__',
            '__init__',
            '__ctx_group__',
            '__lr_mult__',
            '__force_mirroring__',
            '__layout__',
        )
    )
    attrs = node.setdefault('attrs', {})
    if isinstance(attrs, dict):
        attrs[key] = rng.choice(ABSURD)


def _change_operator(rng, _, node, __):
    node['op'] = rng.choice(
        (rng.choice(sorted(KNOWN)), 'null', 'Custom', '_Native', '_NDArray', '_foreach', 'nonsense', '')
    )


def _change_head(rng, graph, _, __):
    graph['heads'] = rng.choice(
        ([], [[rng.randrange(len(graph['nodes'])), rng.choice((0, 1, 7)), 0]], graph.get('heads', []) * 2, [[-1, 0, 0]])
    )


def _move_node(rng, graph, node, other):
    nodes = graph['nodes']
    change = rng.randrange(3)
    if change == 0:
        nodes.remove(node)
    elif change == 1:
        nodes.insert(rng.randrange(len(nodes) + 1), json.loads(json.dumps(rng.choice(other['nodes']))))
    else:
        first, second = rng.randrange(len(nodes)), rng.randrange(len(nodes))
        nodes[first], nodes[second] = nodes[second], nodes[first]


def _junk_field(rng, graph, node, _):
    target = rng.choice((graph, node, node))
    key = rng.choice((*target, 'param', 'attr', 'control_deps', 'subgraphs', 'extra'))
    if rng.random() < 0.2:
        target.pop(key, None)
    else:
        target[key] = rng.choice(JUNK)


def _rename(rng, graph, node, _):
    node['name'] = rng.choice(
        (
            rng.choice(graph['nodes']).get('name', '') if isinstance(graph['nodes'][0], dict) else '',
            '',
            '\0',
            'x' * 5000,
            '\ud800',
        )
    )


_GRAPH_MUTATIONS = (
    _change_inputs,
    _change_inputs,
    _change_attribute,
    _change_attribute,
    _change_attribute,
    _change_variable,
    _change_operator,
    _change_head,
    _move_node,
    _junk_field,
    _rename,
)


def _mutated_archive(rng, data):
    """A PyTorch archive whose directory is sound but whose members are not."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, 'w', rng.choice((0, 0, 0, 8))) as new:
        for name in old.namelist():
            member = old.read(name)
            if name.endswith('data.pkl') or rng.random() < 0.1:
                member = mutated_bytes(rng, member)
            if rng.random() < 0.98:
                # A fixed date: by default it is now, and the case could not be made again.
                new.writestr(zipfile.ZipInfo(name), member, new.compression)
    return out.getvalue()


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
