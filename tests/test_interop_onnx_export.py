"""ONNX files in ONNX Runtime against MXNet: every family, full and stripped, and single operators."""

import os
import sys

import numpy as np
import pytest
from helpers.mxnet_twin import FAMILIES, OPERATOR_CASES, PLACEMENTS, Pass, random_params, small_network

from graphs.strip import strip
from interop import onnx_export
from interop.gluon_zoo import zoo_network
from runtime import mx
from runtime.errors import GraphError, MissingDependencyError, ProofError

onnx = pytest.importorskip('onnx')
onnxruntime = pytest.importorskip('onnxruntime')


def run(path, images):
    """The first output of an ONNX file, by ONNX Runtime itself."""
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    return session.run(None, {'data': images})[0]


def in_mxnet(symbol, arg_params, aux_params, images):
    """The output of a symbol that has no label."""
    arguments = {**{name: array.asnumpy() for name, array in arg_params.items()}, 'data': images}
    return Pass(symbol, arguments, aux_params, train=False).inferred


def without_softmax(symbol):
    return symbol.get_internals()['fc1_output']


@pytest.mark.parametrize('placement', PLACEMENTS)
@pytest.mark.parametrize('family', FAMILIES)
def test_a_family(tmp_path, family, placement):
    symbol, shape = small_network(family, placement)
    arg_params, aux_params = random_params(symbol, shape, 'float32')
    difference = onnx_export.export_onnx(symbol, arg_params, aux_params, shape, tmp_path / 'net.onnx')
    assert difference.relative < 1e-4
    for batch in (1, 5):
        images = np.random.RandomState(batch).standard_normal((batch, *shape)).astype('float32')
        expected = in_mxnet(without_softmax(symbol), arg_params, aux_params, images)
        np.testing.assert_allclose(
            run(tmp_path / 'net.onnx', images), expected, rtol=0, atol=1e-5 * np.abs(expected).max()
        )


@pytest.mark.parametrize('fold_bn', [False, True])
@pytest.mark.parametrize('family', FAMILIES)
def test_a_stripped_family(tmp_path, family, fold_bn):
    symbol, shape = small_network(family)
    arg_params, aux_params = random_params(symbol, shape, 'float32')
    for name in arg_params:
        if 'lambda' in name:
            arg_params[name][1::2] = 0
    stripped = strip(symbol, arg_params, aux_params, {'data': (1, *shape)}, fold_bn=fold_bn)
    onnx_export.export_onnx(stripped.symbol, stripped.arg_params, stripped.aux_params, shape, tmp_path / 'net.onnx')
    images = np.random.RandomState(0).standard_normal((3, *shape)).astype('float32')
    expected = in_mxnet(without_softmax(symbol), arg_params, aux_params, images)
    np.testing.assert_allclose(run(tmp_path / 'net.onnx', images), expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize('placement', PLACEMENTS)
def test_lambda_leaves_no_trace(placement):
    symbol, shape = small_network('resnext', placement)
    model = onnx_export.onnx_model(symbol, *random_params(symbol, shape, 'float32'), shape)
    assert {node.op_type for node in model.graph.node} == {
        'Conv',
        'BatchNormalization',
        'Relu',
        'Add',
        'GlobalAveragePool',
        'Flatten',
        'Gemm',
    }
    names = {tensor.name for tensor in model.graph.initializer}
    assert names == {
        name for name in (*symbol.list_arguments(), *symbol.list_auxiliary_states()) if 'lambda' not in name
    } - {'data', 'softmax_label'}


def test_what_the_file_says_of_itself(tmp_path):
    symbol, shape = small_network('vgg')
    params = random_params(symbol, shape, 'float32')
    for name in ('one', 'two'):
        onnx_export.export_onnx(symbol, *params, shape, tmp_path / f'{name}.onnx')
    assert (tmp_path / 'one.onnx').read_bytes() == (tmp_path / 'two.onnx').read_bytes()
    model = onnx.load(tmp_path / 'one.onnx')
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [('', 13)]
    assert [given.name for given in model.graph.input] == ['data']
    sides = [
        [side.dim_param or side.dim_value for side in tensor.type.tensor_type.shape.dim]
        for tensor in (*model.graph.input, *model.graph.output)
    ]
    assert sides == [['batch', 3, 16, 16], ['batch', 10]]
    assert sorted(os.listdir(tmp_path)) == ['one.onnx', 'two.onnx']


def test_half_precision_parameters_are_written_in_single(tmp_path):
    symbol, shape = small_network('vgg')
    assert (
        onnx_export.export_onnx(symbol, *random_params(symbol, shape, 'float16'), shape, tmp_path / 'net.onnx').relative
        < 1e-4
    )


@pytest.mark.parametrize(
    ('name', 'side'), [('cifar_resnet20_v1', 32), ('mobilenetv2_0.25', 32), ('squeezenet1.1', 224)]
)
def test_networks_of_gluoncv(tmp_path, name, side):
    block = zoo_network(name)
    block.initialize(mx.init.Xavier())
    images = mx.nd.random.normal(shape=(2, 3, side, side))
    expected = block(images).asnumpy()
    symbol = block(mx.sym.var('data'))
    params = {key: parameter.data() for key, parameter in block.collect_params().items()}
    states = {key: params.pop(key) for key in symbol.list_auxiliary_states()}
    onnx_export.export_onnx(symbol, params, states, (3, side, side), tmp_path / 'net.onnx')
    np.testing.assert_allclose(run(tmp_path / 'net.onnx', images.asnumpy()), expected, rtol=0, atol=1e-5)


# The first has no batch in its output; the windows of the others see nothing but padding, which ONNX Runtime refuses.
BEYOND_ONNX = ('sum, excluding', *(f'{kind} pooling, full, (1, 1) (2, 2) (0, 0)' for kind in ('max', 'avg')))


@pytest.mark.parametrize('name', [name for name in OPERATOR_CASES if name not in BEYOND_ONNX])
def test_an_operator(tmp_path, name):
    symbol, shape = OPERATOR_CASES[name]
    random = np.random.RandomState(0)
    arguments, _, states = symbol.infer_shape(data=shape)
    params = [
        {key: mx.nd.array(random.uniform(0.5, 1.5, size)) for key, size in zip(names, sizes) if key != 'data'}
        for names, sizes in ((symbol.list_arguments(), arguments), (symbol.list_auxiliary_states(), states))
    ]
    path = tmp_path / 'net.onnx'
    path.write_bytes(onnx_export.onnx_model(symbol, *params, shape[1:]).SerializeToString())
    onnx.checker.check_model(str(path))
    for batch in (1, 5):
        images = random.standard_normal((batch, *shape[1:])).astype('float32')
        expected = in_mxnet(symbol, *params, images)
        found = run(path, images)
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('name', BEYOND_ONNX[1:])
def test_a_window_outside_the_map_is_named(name):
    symbol, shape = OPERATOR_CASES[name]
    with pytest.raises(GraphError, match='nothing but padding'):
        onnx_export.onnx_model(symbol, {}, {}, shape[1:])


def test_an_operator_that_is_not_known_is_named(tmp_path):
    with pytest.raises(GraphError, match="LRN 'odd'.*ONNX export does not know"):
        onnx_export.export_onnx(
            mx.sym.LRN(mx.sym.Variable('data'), nsize=3, name='odd'), {}, {}, (3, 8, 8), tmp_path / 'net.onnx'
        )
    assert os.listdir(tmp_path) == []


def test_a_wrong_file_is_never_put_in_place(tmp_path, monkeypatch):
    symbol, shape = small_network('vgg')
    monkeypatch.setitem(
        onnx_export.OPERATORS, 'Activation', lambda build, node, inputs, output: build.add('Identity', inputs, output)
    )
    (tmp_path / 'net.onnx').write_text('the old one')
    with pytest.raises(ProofError, match='MXNet differ: fc1 by'):
        onnx_export.export_onnx(symbol, *random_params(symbol, shape, 'float32'), shape, tmp_path / 'net.onnx')
    assert os.listdir(tmp_path) == ['net.onnx']
    assert (tmp_path / 'net.onnx').read_text() == 'the old one'


@pytest.mark.parametrize('package', ['onnx', 'onnxruntime'])
def test_what_is_missing_is_said_in_one_line(tmp_path, monkeypatch, package):
    for module in [module for module in sys.modules if module.split('.')[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=rf'{package}[. ].*pip install'):
        onnx_export.export_onnx(mx.sym.Variable('data') * 2, {}, {}, (3, 8, 8), tmp_path / 'net.onnx')
