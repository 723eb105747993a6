"""``-symbol.json`` files: every real network loads unchanged, and what would crash or hang MXNet is a GraphError in
good time.
"""

import json
import time

import pytest

from formats.symbol_file import check_symbol_json, load_symbol, save_symbol, symbol_from_json
from formats.symbol_json import MAX_BYTES
from formats.symbol_shapes import check_shapes
from interop.gluon_zoo import zoo_network
from runtime import mx
from runtime.errors import GraphError
from symbols import get_symbol

FAMILIES = [
    ('resnet', 20, '3,32,32'),
    ('resnet', 50, '3,224,224'),
    ('resnet-v1', 20, '3,32,32'),
    ('resnext', 20, '3,32,32'),
    ('resnext', 50, '3,224,224'),
    ('vgg', 16, '3,32,32'),
]
ZOO = [
    'resnet50_v1d',
    'se_resnext50_32x4d',
    'densenet121',
    'mobilenetv2_1.0',
    'mobilenetv3_large',
    'squeezenet1.0',
    'inceptionv3',
    'alexnet',
    'nasnet_4_1056',
    'resnest50',
    'googlenet',
    'cifar_wideresnet16_10',
    'xception',
    'hrnet_w18_small_v1_c',
    'residualattentionnet56',
]


def refused(text, reason):
    start = time.process_time()
    with pytest.raises(GraphError, match=reason) as caught:
        check_symbol_json(text, 'net-symbol.json')
    assert 'net-symbol.json' in str(caught.value)
    assert time.process_time() - start < 1


@pytest.fixture
def graph():
    """A small network as JSON: data, convolution with bias, batch normalisation, split, concat, classifier, softmax."""
    x = mx.sym.Convolution(mx.sym.Variable('data'), kernel=(3, 3), num_filter=4, name='conv')
    x = mx.sym.BatchNorm(x, name='bn')
    halves = mx.sym.SliceChannel(x, num_outputs=2, name='halves')
    x = mx.sym.FullyConnected(mx.sym.Concat(halves[1], halves[0], name='concat'), num_hidden=3, name='fc')
    return json.loads(mx.sym.SoftmaxOutput(x, name='softmax').tojson())


def node(graph, name):
    return next(node for node in graph['nodes'] if node['name'] == name)


@pytest.mark.parametrize('placement', ['weight', 'output'])
@pytest.mark.parametrize(('network', 'layers', 'image'), FAMILIES)
def test_our_networks_load_unchanged(tmp_path, network, layers, image, placement):
    symbol = get_symbol(network, layers, 10, image, lambda_placement=placement)
    save_symbol(tmp_path / 'net-symbol.json', symbol)
    start = time.process_time()
    loaded = load_symbol(tmp_path / 'net-symbol.json')
    check_shapes(loaded, {'data': (2, *map(int, image.split(',')))}, 'net')
    assert time.process_time() - start < 1
    assert (
        json.loads(loaded.tojson())
        == json.loads(symbol.tojson())
        == json.loads(mx.sym.load(str(tmp_path / 'net-symbol.json')).tojson())
    )


@pytest.mark.parametrize('name', ZOO)
def test_other_peoples_networks_load_unchanged(name):
    symbol = zoo_network(name)(mx.sym.Variable('data'))
    symbol = mx.sym.Group(symbol) if isinstance(symbol, (tuple, list)) else symbol
    loaded = symbol_from_json(symbol.tojson(), name)
    assert json.loads(loaded.tojson()) == json.loads(symbol.tojson())
    side = 299 if name in ('inceptionv3', 'xception') else 32 if 'cifar' in name else 224
    check_shapes(loaded, {'data': (1, 3, side, side)}, name)


def test_recurrent_networks_load():
    outputs, _ = mx.rnn.FusedRNNCell(6, num_layers=2, mode='lstm', prefix='lstm_').unroll(
        4, mx.sym.Variable('data'), merge_outputs=True
    )
    for symbol in (
        outputs,
        mx.rnn.LSTMCell(6, prefix='cell_').unroll(3, mx.sym.Variable('data'), merge_outputs=True)[0],
    ):
        assert json.loads(symbol_from_json(symbol.tojson(), 'rnn').tojson()) == json.loads(symbol.tojson())


def test_older_forms_load(graph):
    """Before 1.0 attributes were called ``attr`` and ``param``; before 0.9 BatchNorm's states were not listed."""
    whole = symbol_from_json(json.dumps(graph), 'net')
    graph['attrs'] = {'mxnet_version': ['int', 901]}
    for entry in graph['nodes']:
        if 'attrs' in entry:
            entry['param'] = entry.pop('attrs')
            entry['attr'] = {'lr_mult': '2.0', 'ctx_group': 'dev1'}
        entry['backward_source_id'] = -1
        entry['inputs'] = [source[:2] for source in entry['inputs']]
    assert symbol_from_json(json.dumps(graph), 'net').list_arguments() == whole.list_arguments()
    graph.pop('attrs')
    node(graph, 'bn')['inputs'] = node(graph, 'bn')['inputs'][:3]
    assert symbol_from_json(json.dumps(graph), 'net').list_auxiliary_states() == whole.list_auxiliary_states()


def point(name, place, target, output=0):
    def change(graph):
        node(graph, name)['inputs'][place] = [target, output, 0]

    return change


def drop_input(name):
    return lambda graph: node(graph, name)['inputs'].pop()


def attribute(name, key, value):
    return lambda graph: node(graph, name).setdefault('attrs', {}).update({key: value})


def field(key, value, name=None):
    return lambda graph: (node(graph, name) if name else graph).update({key: value})


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        (point('fc', 0, 8, 7), 'output 7'),
        (point('concat', 1, 8, 2), 'output 2 of node'),
        (point('conv', 0, 0, 1), 'output 1 of node 0'),
        (point('conv', 0, 8, 0), 'does not come before'),
        (point('conv', 0, 3, 0), 'does not come before'),
        (point('conv', 0, -1, 0), 'does not come before'),
        (point('conv', 0, 2**31, 0), 'does not come before'),
        (point('conv', 0, 2**40, 0), 'out of range'),
        (point('conv', 0, 0, -1), 'output -1'),
        (point('conv', 0, 'data'), 'no .node, output'),
        (point('conv', 0, 0.5), 'is not allowed'),
        (drop_input('conv'), '2 inputs but takes 3'),
        (drop_input('bn'), '4 inputs but takes 5'),
        (drop_input('concat'), 'num_args is 2 but the node has 1'),
        (lambda graph: node(graph, 'fc')['inputs'].append([0, 0, 0]), '4 inputs but takes 3'),
        (attribute('conv', 'no_bias', 'True'), '3 inputs but takes 2'),
        (attribute('halves', 'num_outputs', '2000000000'), 'num_outputs'),
        (attribute('halves', 'num_outputs', '1e30'), 'num_outputs'),
        (attribute('halves', 'num_outputs', '0'), 'num_outputs'),
        (attribute('concat', 'num_args', '2000000000'), 'num_args'),
        (attribute('conv', 'num_filter', '1000000000000000000'), 'num_filter'),
        (attribute('conv', 'num_group', '0'), 'num_group'),
        (attribute('conv', 'kernel', '(0, 3)'), 'kernel'),
        (attribute('conv', 'kernel', '(-3, 3)'), 'kernel'),
        (attribute('conv', 'stride', '(0, 0)'), 'stride'),
        (attribute('conv', 'kernel', '9' * 400), 'kernel'),
        (attribute('conv', 'kernel', '(' + '3,' * 40000 + ')'), '80002 characters'),
        (attribute('conv', 'colour', 'red'), 'MXNet rejects'),
        (attribute('conv', 'num_filter', 'many'), 'MXNet rejects'),
        (attribute('conv', 'num_filter', 3), 'no plain text'),
        (attribute('conv', 'kernel', '\0'), 'no plain text'),
        (attribute('data', '__storage_type__', '1'), 'dense'),
        (lambda graph: node(graph, 'softmax').update(op='softmax', attrs={'use_length': 'None'}), 'use_length'),
        (
            lambda graph: node(graph, 'halves').update(op='_split_v2', attrs={'indices': '()'}),
            'neither sections nor indices',
        ),
        (lambda graph: node(graph, 'bn').update(op='_contrib_SyncBatchNorm', attrs={'key': 'k', 'ndev': '0'}), 'ndev'),
        (
            lambda graph: node(graph, 'softmax').update(op='SequenceReverse', attrs={'use_sequence_length': 'True'}),
            'use_sequence_length is not supported',
        ),
        (lambda graph: node(graph, 'softmax').update(op='LeakyReLU', attrs={'act_type': 'rrelu'}), "'rrelu' ends"),
        (field('op', 'SequenceLast', 'fc'), 'not one that networks from files may use'),
        (attribute('data', '__shape__', '(1000000, 1000000, 1000000)'), '__shape__'),
        (field('op', 'Custom', 'fc'), 'not one that networks from files may use'),
        (field('op', '_Native', 'fc'), 'not one that networks from files may use'),
        (field('op', '_cvimread', 'fc'), 'not one that networks from files may use'),
        (field('op', 'sgd_update', 'fc'), 'not one that networks from files may use'),
        (field('op', 'Nonsense', 'fc'), 'no operator'),
        (field('op', 'null', 'fc'), 'variable has no inputs'),
        (field('op', '', 'fc'), 'no name'),
        (field('op', None, 'fc'), 'no usable text'),
        (field('name', 'conv_weight', 'fc_weight'), "two variables are called 'conv_weight'"),
        (field('name', '', 'fc_weight'), 'no name'),
        (field('name', 'x' * 5000, 'fc_weight'), 'no usable text'),
        (field('name', '\ud800', 'fc_weight'), 'no usable text'),
        (field('inputs', None, 'fc'), 'no list'),
        (field('attrs', [], 'fc'), 'no object'),
        (field('control_deps', [0], 'fc'), 'control dependencies'),
        (field('subgraphs', [{}], 'fc'), 'subgraphs'),
        (field('extra', 1, 'fc'), 'unknown fields'),
        (field('nodes', []), '1 to'),
        (field('nodes', {}), '1 to'),
        (field('nodes', [[]]), 'lacks op'),
        (field('heads', []), 'at least one head'),
        (field('heads', [[99, 0, 0]]), 'does not come before'),
        (field('heads', [[0, 1, 0]]), 'output 1'),
        (field('heads', 3), 'at least one head'),
        (field('arg_nodes', []), 'arg_nodes'),
        (field('extra', 1), 'no symbol'),
        (field('attrs', {'mxnet_version': 'new'}), 'mxnet_version'),
    ],
)
def test_damage_is_named(graph, change, reason):
    change(graph)
    refused(json.dumps(graph), reason)


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('', 'not JSON'),
        ('null', 'no symbol'),
        ('[]', 'no symbol'),
        ('{"nodes": [], "nodes": []}', 'same key twice'),
        ('[' * 200_000, 'nested too deeply|not JSON'),
        ('{"a":' * 100_000, 'nested too deeply|not JSON'),
        ('9' * 1_000_000, 'out of range'),
        ('NaN', 'is not allowed'),
        ('1e999', 'is not allowed'),
        (' ' * (MAX_BYTES + 1), 'larger than any symbol'),
    ],
    ids=str.__len__,
)
def test_text_that_is_no_symbol(text, reason):
    refused(text, reason)


def test_files_that_cannot_be_symbols(tmp_path):
    path = tmp_path / 'net-symbol.json'
    with pytest.raises(GraphError, match='no such file'):
        load_symbol(path)
    with pytest.raises(GraphError, match='not a regular file'):
        load_symbol(tmp_path)
    path.write_bytes(b'\xff\xfe{}')
    with pytest.raises(GraphError, match='not a text file'):
        load_symbol(path)
    with open(path, 'wb') as huge:
        huge.truncate(3 << 30)
    with pytest.raises(GraphError, match='no file of its kind has more'):
        load_symbol(path)


def test_upsampling_with_a_weight_loads():
    """MXNet copies the operator's attributes to the weight, and does not count it in num_args."""
    symbol = mx.sym.UpSampling(mx.sym.Variable('data'), scale=2, sample_type='bilinear', num_filter=8, name='up')
    loaded = symbol_from_json(symbol.tojson(), 'up')
    assert json.loads(loaded.tojson()) == json.loads(symbol.tojson())


def test_batch_normalisation_over_devices_loads():
    symbol = mx.sym.contrib.SyncBatchNorm(mx.sym.Variable('data'), key='bn', ndev=8, name='bn')
    assert json.loads(symbol_from_json(symbol.tojson(), 'bn').tojson()) == json.loads(symbol.tojson())


def test_a_long_chain_loads():
    """Depth of the network is no depth of the JSON, and MXNet must not recurse over it either."""
    count = 5000
    nodes = [{'op': 'null', 'name': 'data', 'inputs': []}] + [
        {'op': 'relu', 'name': f'r{i}', 'inputs': [[i, 0, 0]]} for i in range(count)
    ]
    text = json.dumps({'nodes': nodes, 'arg_nodes': [0], 'heads': [[count, 0, 0]]})
    assert symbol_from_json(text, 'chain').list_arguments() == ['data']


def computed_gamma(length, channels, axis=1):
    x = mx.sym.Convolution(mx.sym.Variable('data'), kernel=(1, 1), num_filter=channels, name='conv')
    gamma = mx.sym.max(mx.sym.Variable('scale', shape=(2, length)), axis=0, name='gamma')
    return mx.sym.BatchNorm(x, gamma, axis=axis, name='bn')


def test_shapes_that_mxnet_overrules_are_found():
    """MXNet infers all of these without a word, and corrupts its memory when it runs them."""
    data = {'data': (2, 3, 8, 8)}
    check_shapes(computed_gamma(4, 4), data, 'net')
    variable = mx.sym.Variable('v', shape=(2, 3))
    for symbol, name in [
        (computed_gamma(3, 4), 'gamma'),
        (computed_gamma(8, 4, axis=2), 'bn'),
        (mx.sym.reshape(variable, shape=(5,), name='five'), 'five'),
        (
            mx.sym.where(
                variable, mx.sym.Variable('a', shape=(4, 4)), mx.sym.Variable('b', shape=(4, 4)), name='choice'
            ),
            'choice',
        ),
    ]:
        symbol.get_internals().infer_shape_partial(
            **{name: shape for name, shape in data.items() if name in symbol.list_arguments()}
        )
        with pytest.raises(GraphError, match=f"net: .*'{name}' cannot work on inputs of the shapes"):
            check_shapes(
                symbol, {name: shape for name, shape in data.items() if name in symbol.list_arguments()}, 'net'
            )


def test_arrays_beyond_counting_are_refused():
    big = mx.sym.broadcast_to(mx.sym.Variable('x', shape=(1, 1)), shape=(100_000, 100_000), name='big')
    with pytest.raises(GraphError, match='big'):
        check_shapes(big, {}, 'net')
