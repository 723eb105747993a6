"""Networks in int8: what it costs, that every family gets through, and that stock MXNet takes the result."""

import subprocess
import sys

import numpy as np
import pytest
from helpers.mxnet_twin import FAMILIES, Pass, random_images, random_params, small_network
from helpers.trained_digits import SHAPE, trained_network

from formats.checkpoint_files import save_model
from graphs.graph import Graph
from graphs.predictor import Network, Predictor
from interop.quantize import folded_for_int8, quantize
from runtime import mx
from runtime.errors import UserError
from train.data.datasets import eval_iterator, load_dataset
from train.evaluation import accuracy


def probabilities(network, images):
    """What a network without a label makes of images."""
    module = mx.mod.Module(network[0], label_names=None)
    module.bind([('data', images.shape)], for_training=False)
    module.set_params(*network[1:])
    module.forward(mx.io.DataBatch([mx.nd.array(images)]))
    return module.get_outputs()[0].asnumpy()


def test_digits_are_told_apart_in_8_bits():
    dataset = load_dataset('digits', image_shape=SHAPE)
    images = next(eval_iterator(dataset, 128)).data[0].asnumpy()
    network = trained_network()
    quantized = quantize(*network, images)
    before, after = (accuracy(Predictor(Network(*one)), dataset) for one in (network, quantized))
    assert before > 0.9
    assert after == pytest.approx(before, abs=0.02)
    assert {array.dtype for array in quantized[1].values()} >= {np.int8} or 'quantized' in quantized[0].tojson()


@pytest.mark.parametrize('family', FAMILIES)
def test_every_family_gets_through(family):
    symbol, shape = small_network(family)
    params = random_params(symbol, shape, 'float32')
    images = np.concatenate([random_images(shape, 'float32', seed=seed)[0] for seed in range(4)])
    full = folded_for_int8(symbol, *params, images.shape)
    quantized = quantize(symbol, *params, images)
    operators = [node.op for node in Graph.from_symbol(quantized[0]).nodes()]
    assert any(operator.startswith('_contrib_quantize') for operator in operators)
    # The weights are noise, so classes are close together: most of the probabilities' variation must be there still.
    found, expected = probabilities(quantized, images), probabilities(full, images)
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.9


def test_folding_changes_nothing():
    symbol, shape = small_network('resnext', 'output')
    params = random_params(symbol, shape, 'float32')
    images, labels = random_images(shape, 'float32')
    ready = folded_for_int8(symbol, *params, images.shape)
    assert not any('lambda' in name or 'label' in name for name in ready[0].list_arguments())
    given = {**params[0], 'data': mx.nd.array(images), 'softmax_label': mx.nd.array(labels)}
    expected = symbol.bind(mx.cpu(), given, aux_states=params[1], grad_req='null').forward(is_train=False)[0].asnumpy()
    np.testing.assert_allclose(probabilities(ready, images), expected, atol=1e-5)


def test_a_sum_into_a_shared_convolution_is_right():
    """oneDNN would add into the memory of the first convolution, which the second one reads (see
    ``graphs.onednn_workaround``).
    """
    first = mx.sym.Convolution(mx.sym.Variable('data'), num_filter=8, kernel=(3, 3), pad=(1, 1), name='conv0')
    sum_ = (
        mx.sym.Convolution(
            mx.sym.Activation(first, act_type='relu'), num_filter=8, kernel=(3, 3), pad=(1, 1), name='conv1'
        )
        + first
    )
    pooled = mx.sym.Pooling(mx.sym.Activation(sum_, act_type='relu'), global_pool=True, kernel=(1, 1), pool_type='avg')
    symbol = mx.sym.SoftmaxOutput(
        mx.sym.FullyConnected(mx.sym.Flatten(pooled), num_hidden=10, name='fc1'), name='softmax'
    )
    params = random_params(symbol, SHAPE, 'float32')
    images, labels = np.random.RandomState(0).standard_normal((64, *SHAPE)).astype('float32'), np.zeros(64, 'float32')
    # Where there are gradients, MXNet merges no operators.
    whole = Pass(
        symbol,
        {**{name: array.asnumpy() for name, array in params[0].items()}, 'data': images, 'softmax_label': labels},
        params[1],
    ).inferred
    np.testing.assert_allclose(probabilities(quantize(symbol, *params, images), images), whole, atol=5e-3)


def test_stock_mxnet_loads_the_pair(tmp_path):
    network = quantize(*trained_network(), random_images(SHAPE, 'float32')[0])
    images = random_images(SHAPE, 'float32', seed=5)[0]
    save_model(str(tmp_path / 'small'), 0, *network)
    np.save(tmp_path / 'images.npy', images)
    script = (
        'import mxnet as mx, numpy as np\n'
        "symbol, arg, aux = mx.model.load_checkpoint('small', 0)\n"
        'module = mx.mod.Module(symbol, label_names=None)\n'
        "images = np.load('images.npy')\n"
        "module.bind([('data', images.shape)], for_training=False)\n"
        'module.set_params(arg, aux)\n'
        'module.forward(mx.io.DataBatch([mx.nd.array(images)]))\n'
        "np.save('found.npy', module.get_outputs()[0].asnumpy())\n"
    )
    subprocess.run([sys.executable, '-I', '-c', script], cwd=tmp_path, check=True, capture_output=True)
    np.testing.assert_allclose(np.load(tmp_path / 'found.npy'), probabilities(network, images), atol=1e-6)


def test_no_images_are_a_named_error():
    with pytest.raises(UserError, match='no images'):
        quantize(*trained_network(), np.zeros((0, *SHAPE), 'float32'))
