"""Attributes are read as MXNet reads them, in every spelling, and strip does not depend on the spelling."""

import json
import re

import numpy as np
import pytest
from helpers.strip_networks import (
    SHAPES,
    assert_same_function,
    predict,
    random_parameters,
    small,
    strip_twice,
    with_dead,
)

from formats.symbol_operators import lone_node
from graphs.attributes import flag, integers, number, text
from graphs.comparison import noise
from graphs.graph import Node
from graphs.predictor import Network
from graphs.proof import prove
from runtime import mx
from runtime.errors import GraphError

FLAGS = ['True', 'true', 'TRUE', '1', 'False', 'false', 'FALSE', '0', 'yes', '2', 'T', '', '(1,)']
SHAPE_TEXTS = [
    '(3, 3)',
    '[3,3]',
    '(3L, 3L)',
    '[3L,3L]',
    ' ( 3 , 3 ) ',
    '(3,3,)',
    '(9,)',
    '9',
    '(-1, 3)',
    '3,3',
    '(3 3)',
    '3L',
    '(3.0, 3)',
    '(3, x)',
    '',
]
NUMBERS = ['2', '-3', '+4', '0.5', '1e-3', '2.', 'x', '', '2L', '(2,)', 'True']


def output_shape(operator, attrs, shape):
    """The first output's shape by MXNet itself; None where it rejects the attributes."""
    try:
        alone = lone_node(operator, attrs)
    except GraphError:
        return None
    return alone.infer_shape(**{alone.list_inputs()[0]: shape})[1][0]


def read(reader, operator, attrs, name):
    """What ``reader`` finds, or None where it raises GraphError."""
    try:
        return reader(Node(operator, 'node', attrs), name)
    except GraphError:
        return None


@pytest.mark.parametrize('spelled', FLAGS)
def test_flags_are_mxnets(spelled):
    attrs = {'num_outputs': '3', 'axis': '1', 'squeeze_axis': spelled}
    expected = {(2,): True, (2, 1): False, None: None}[output_shape('SliceChannel', attrs, (2, 3))]
    assert read(flag, 'SliceChannel', attrs, 'squeeze_axis') is expected


@pytest.mark.parametrize('spelled', SHAPE_TEXTS)
def test_tuples_are_mxnets(spelled):
    found = read(integers, 'Reshape', {'shape': spelled}, 'shape')
    expected = output_shape('Reshape', {'shape': spelled}, (9,))
    assert found == expected or found == (-1, 3) and expected == (3, 3)


@pytest.mark.parametrize('spelled', NUMBERS)
def test_numbers_are_mxnets(spelled):
    attrs = {'scalar': spelled}
    try:
        expected = mx.sym.load_json(one_scalar(spelled)).eval(data=mx.nd.ones(1))[0].asscalar()
    except mx.MXNetError:
        expected = None
    found = read(number, '_mul_scalar', attrs, 'scalar')
    assert (found is None) == (expected is None)
    assert found is None or np.float32(found) == expected


def one_scalar(spelled):
    nodes = [
        {'op': 'null', 'name': 'data', 'inputs': []},
        {'op': '_mul_scalar', 'name': 'product', 'attrs': {'scalar': spelled}, 'inputs': [[0, 0, 0]]},
    ]
    version = {'mxnet_version': ['int', 10901]}
    return json.dumps({'nodes': nodes, 'arg_nodes': [0], 'heads': [[1, 0, 0]], 'attrs': version})


def test_what_is_not_set_has_the_default():
    node = Node('Pooling', 'pool', {'axis': 'None', 'kernel': '()'})
    assert (flag(node, 'axis', True), number(node, 'axis', 7)) == (True, 7)
    assert (integers(node, 'axis', (1,)), text(node, 'axis', 'x')) == ((1,), 'x')
    assert (flag(node, 'no'), number(node, 'no'), integers(node, 'no'), text(node, 'no')) == (False, None, (), None)
    assert integers(node, 'kernel', (1, 1)) == (1, 1)


SPELLINGS = {
    'python2': lambda value: re.sub(r'\d+', r'\g<0>L', value) if value.startswith('(') else value,
    'lists': lambda value: value.replace('(', '[').replace(')', ']'),
    'lower': lambda value: {'True': 'true', 'False': 'false'}.get(value, value),
    'digits': lambda value: {'True': '1', 'False': '0'}.get(value, value),
}
OPERATORS = ('BatchNorm', 'Convolution', 'FullyConnected', 'Pooling', 'SliceChannel', 'Reshape', 'transpose')


def respelled(symbol, spell):
    """The same network with the attributes of its operators written otherwise."""
    plan = json.loads(symbol.tojson())
    for node in plan['nodes']:
        if node['op'] in OPERATORS and 'attrs' in node:
            own = {key: spell(value) for key, value in node['attrs'].items() if not key.startswith('__')}
            node['attrs'].update(own)
    return mx.sym.load_json(json.dumps(plan))


@pytest.mark.parametrize('options', [{}, {'fold_bn': True}], ids=['plain', 'fold_bn'])
@pytest.mark.parametrize('spelling', SPELLINGS)
@pytest.mark.parametrize('family', ['resnet', 'resnext', 'vgg'])
def test_strip_does_not_depend_on_the_spelling(family, spelling, options):
    symbol = small(family, 'output')
    arg_params, aux_params = random_parameters(symbol)
    random = np.random.RandomState(1)
    lambdas = {name: array.shape for name, array in arg_params.items() if 'lambda' in name}
    arg_params = with_dead(arg_params, {name: random.uniform(size=shape) < 0.4 for name, shape in lambdas.items()})
    other = respelled(symbol, SPELLINGS[spelling])
    assert other.tojson() != symbol.tojson()
    expected = strip_twice(symbol, arg_params, aux_params, **options)
    found = strip_twice(other, arg_params, aux_params, **options)
    assert found.report == expected.report
    assert all(array.shape == expected.arg_params[name].shape for name, array in found.arg_params.items())
    assert_same_function(other, arg_params, aux_params, found)


def dead_gamma(spelled):
    """``(symbol, arg_params, aux_params)`` of a network in which γ of two channels is 0, with this ``fix_gamma``."""
    x = mx.sym.Convolution(mx.sym.Variable('data'), num_filter=6, kernel=(3, 3), pad=(1, 1), no_bias=True, name='conv')
    x = mx.sym.Activation(mx.sym.BatchNorm(x, fix_gamma=spelled, name='bn'), act_type='relu')
    x = mx.sym.Pooling(x, global_pool=True, kernel=(1, 1), pool_type='avg')
    symbol = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(mx.sym.Flatten(x), num_hidden=5, name='fc1'), name='softmax')
    arg_params, aux_params = random_parameters(symbol)
    return symbol, with_dead(arg_params, {'bn_gamma': np.arange(6) < 2, 'bn_beta': np.arange(6) < 2}), aux_params


@pytest.mark.parametrize(('spelled', 'kept'), [('False', 4), ('false', 4), ('0', 4), ('true', 6), ('1', 6)])
def test_a_dead_gamma_goes_however_fix_gamma_is_spelled(spelled, kept):
    symbol, arg_params, aux_params = dead_gamma(spelled)
    stripped = strip_twice(symbol, arg_params, aux_params)
    assert stripped.arg_params['conv_weight'].shape[0] == kept
    folded = strip_twice(symbol, arg_params, aux_params, fold_bn=True)
    prove(Network(symbol, arg_params, aux_params), Network(*folded[:3]), noise(2, SHAPES), 1e-5)
    assert 'bn_gamma' not in folded.arg_params


def test_the_network_itself_reads_false_as_false():
    outputs = [predict(*dead_gamma(spelled), noise(2, SHAPES)['data']) for spelled in ('False', 'false', 'true')]
    assert (outputs[0] == outputs[1]).all()
    assert (outputs[0] != outputs[2]).any()


def test_a_spelling_that_mxnet_rejects_is_a_named_error():
    with pytest.raises(GraphError, match="BatchNorm 'bn': fix_gamma=maybe is neither True nor False"):
        flag(Node('BatchNorm', 'bn', {'fix_gamma': 'maybe'}), 'fix_gamma', True)
