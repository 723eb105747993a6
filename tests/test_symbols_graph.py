"""The graph view: there and back without loss, shapes against MXNet, rewriting."""

import json

import numpy as np
import pytest

from graphs.graph import Graph, Output, data_shape_of, labels
from interop.gluon_zoo import zoo_network
from runtime import mx
from runtime.errors import GraphError
from symbols import get_symbol

SYMBOLS = [
    get_symbol('resnext', 20, 10, (3, 32, 32), lambda_placement='output'),
    get_symbol('resnet-v1', 20, 10, (3, 32, 32)),
    zoo_network('squeezenet1.1')(mx.sym.var('data')),
]


@pytest.mark.parametrize('symbol', SYMBOLS, ids=['resnext', 'resnet-v1', 'squeezenet'])
def test_there_and_back(symbol):
    back = Graph.from_symbol(symbol).to_symbol()
    assert back.list_arguments() == symbol.list_arguments()
    assert back.list_auxiliary_states() == symbol.list_auxiliary_states()
    assert back.list_outputs() == symbol.list_outputs()
    assert back.attr_dict() == symbol.attr_dict()
    assert Graph.from_symbol(back).to_json() == Graph.from_symbol(symbol).to_json()


@pytest.mark.parametrize('symbol', SYMBOLS, ids=['resnext', 'resnet-v1', 'squeezenet'])
def test_shapes_are_mxnets_own(symbol):
    side = 224 if 'squeeze' in symbol.name else 32
    graph = Graph.from_symbol(symbol)
    shapes = graph.shapes({'data': (2, 3, side, side)})
    internals = symbol.get_internals()
    expected = dict(zip(internals.list_outputs(), internals.infer_shape(data=(2, 3, side, side))[1]))
    named = {
        (node.name if node.is_variable else f'{node.name}_output'): shape
        for (node, _), shape in shapes.items()
        if node.op != 'SliceChannel'
    }
    assert len(named) > 50
    assert named == {name: expected[name] for name in named}


def test_shapes_that_do_not_fit_are_a_named_error():
    with pytest.raises(GraphError, match='do not fit'):
        Graph.from_symbol(mx.sym.Variable('a') + mx.sym.Variable('b')).shapes({'a': (2, 3), 'b': (2, 4)})


def test_replacing_an_output_leaves_out_what_only_fed_it():
    x = mx.sym.Variable('data')
    graph = Graph.from_symbol(
        mx.sym.Activation(x + mx.sym.FullyConnected(x, num_hidden=3, name='dead'), act_type='relu', name='relu')
    )
    add = next(node for node in graph.nodes() if node.op == 'elemwise_add')
    graph.replace({Output(add): add.inputs[0]})
    assert graph.to_symbol().list_arguments() == ['data']
    value = np.array([[-1.0, 2.0, 3.0]], np.float32)
    assert graph.to_symbol().eval(data=mx.nd.array(value))[0].asnumpy().tolist() == [[0, 2, 3]]


def test_a_copy_is_apart():
    graph = Graph.from_symbol(get_symbol('resnet', 20, 10, (3, 32, 32)))
    text, twin = graph.to_json(), graph.copy()
    assert twin.to_json() == text
    twin.nodes()[0].name = 'changed'
    assert graph.to_json() == text


def test_labels_and_image_shape():
    symbol = get_symbol('vgg', 16, 10, (3, 32, 32))
    assert labels(Graph.from_symbol(symbol)) == {'softmax_label'}
    assert data_shape_of(symbol) == (3, 32, 32)
    assert data_shape_of(mx.sym.Variable('data') * 2) is None


def test_a_graph_of_ten_thousand_nodes_is_no_matter():
    x = mx.sym.Variable('data')
    for _ in range(10_000):
        x = -x
    graph = Graph.from_symbol(x)
    assert len(json.loads(graph.to_json())['nodes']) == len(graph.nodes()) == 10_001
