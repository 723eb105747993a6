"""Runners against arithmetic in NumPy: batches of any size, a softmax left out, and what they refuse."""

import importlib

import numpy as np
import pytest

from graphs.predictor import Network, Predictor
from interop.models import read_model
from interop.runners import TorchRunner
from runtime import mx
from runtime.errors import GraphError, UserError

GENERATOR = np.random.default_rng(0)
WEIGHT, BIAS = GENERATOR.standard_normal((5, 12)).astype(np.float32), GENERATOR.standard_normal(5).astype(np.float32)
IMAGES = GENERATOR.standard_normal((7, 3, 2, 2)).astype(np.float32)
LOGITS = IMAGES.reshape(7, 12) @ WEIGHT.T + BIAS


def onnx_file(path, batch, softmax, inputs=('data',)):
    """A full connection in ONNX, for a fixed or a free batch, with or without a softmax."""
    onnx = pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')
    helper, floats, from_array = (
        onnx.helper,
        onnx.TensorProto.FLOAT,
        importlib.import_module('onnx.numpy_helper').from_array,
    )
    nodes = [
        helper.make_node('Flatten', ['data'], ['flat']),
        helper.make_node('Gemm', ['flat', 'fc_weight', 'fc_bias'], ['fc'], transB=1),
    ]
    if softmax:
        nodes.append(helper.make_node('Softmax', ['fc'], ['probabilities'], axis=1))
    graph = helper.make_graph(
        nodes,
        'net',
        [helper.make_tensor_value_info(name, floats, [batch, 3, 2, 2]) for name in inputs],
        [helper.make_tensor_value_info(nodes[-1].output[0], floats, [batch, 5])],
        [from_array(WEIGHT, 'fc_weight'), from_array(BIAS, 'fc_bias'), from_array(np.array([2, 12]), 'unused_shape')],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid('', 13)], ir_version=8), str(path))
    return str(path)


@pytest.mark.parametrize('batch', ['N', 3, 1])
@pytest.mark.parametrize('softmax', [False, True])
def test_onnx_gives_logits_whatever_its_batch_and_its_end(batch, softmax, tmp_path):
    model = read_model(onnx_file(tmp_path / 'net.onnx', batch, softmax))
    assert np.allclose(model.outputs(IMAGES)[0], LOGITS, atol=1e-5)
    assert model.image_shape == (3, 2, 2)
    assert model.params.keys() == {'fc_weight', 'fc_bias'}


def test_onnx_of_two_inputs_is_refused(tmp_path):
    with pytest.raises(GraphError, match='one input of images'):
        read_model(onnx_file(tmp_path / 'net.onnx', 1, False, inputs=('data', 'more')))


def test_onnx_on_images_of_another_shape(tmp_path):
    with pytest.raises(UserError, match='ONNX Runtime cannot run it on images of shape'):
        read_model(onnx_file(tmp_path / 'net.onnx', 'N', False)).outputs(IMAGES[:, :, :1])


def full_connection(head):
    fc = mx.sym.FullyConnected(mx.sym.Variable('data'), num_hidden=5, name='fc')
    return head(fc), {'fc_weight': mx.nd.array(WEIGHT), 'fc_bias': mx.nd.array(BIAS)}, {}


@pytest.mark.parametrize('head', [lambda fc: fc, lambda fc: mx.sym.SoftmaxOutput(fc, name='softmax'), mx.sym.softmax])
def test_mxnet_gives_logits_whatever_its_end(head):
    run = Predictor(Network(*full_connection(head)))
    for count in (7, 2, 7):
        assert np.allclose(run(IMAGES[:count])[0], LOGITS[:count], atol=1e-5)


def test_pytorch_gives_the_same_logits():
    pytest.importorskip('torch')
    run = TorchRunner.of_symbol(*full_connection(lambda fc: mx.sym.SoftmaxOutput(fc, name='softmax')))
    assert np.allclose(run(IMAGES)[0], LOGITS, atol=1e-5)
    with pytest.raises(UserError, match='does not take images of shape'):
        run(IMAGES[:, :1])


@pytest.mark.parametrize(('dtype', 'tolerance'), [('float16', 0.02), ('float64', 1e-5)])
def test_mxnet_computes_in_the_precision_of_the_parameters(dtype, tolerance):
    symbol, arg_params, _ = full_connection(lambda fc: fc)
    logits = Predictor(Network(symbol, {name: array.astype(dtype) for name, array in arg_params.items()}, {}))(IMAGES)[
        0
    ]
    assert np.allclose(logits, LOGITS, atol=tolerance)
    assert logits.dtype == (np.float64 if dtype == 'float64' else np.float32)
