"""Networks in int8: what it costs, that every family gets through, and that stock MXNet takes the result."""

import os
import subprocess
import sys

import numpy as np
import pytest
from helpers.mxnet_twin import FAMILIES, PLACEMENTS, Pass, random_images, random_params, small_network
from helpers.trained_digits import SHAPE, trained_network

from formats.checkpoint_files import load_checkpoint, save_model
from formats.params_file import load_params
from graphs.graph import Graph
from graphs.int8 import RANGE, integer_symbol
from graphs.predictor import Network, Predictor
from interop.quantize import folded_for_int8, quantize, save_int8, with_int8_weights
from runtime import mx
from runtime.errors import GraphError, UserError
from train.data.datasets import eval_iterator, load_dataset
from train.evaluation import accuracy, softmax


def logits_of(network, images):
    """What a network makes of images, before its softmax."""
    return Predictor(Network(*network))(images)[0]


def operators(symbol):
    return {node.op for node in Graph.from_symbol(symbol).nodes()}


def test_digits_are_told_apart_in_8_bits():
    dataset = load_dataset('digits', image_shape=SHAPE)
    images = next(eval_iterator(dataset, 128)).data[0].asnumpy()
    network = trained_network()
    before, after = (accuracy(Predictor(Network(*one)), dataset) for one in (network, quantize(*network, images)))
    assert before > 0.9
    assert after == pytest.approx(before, abs=0.02)


@pytest.mark.parametrize('family', FAMILIES)
def test_every_family_gets_through(family):
    symbol, shape = small_network(family)
    params = random_params(symbol, shape, 'float32')
    images = np.concatenate([random_images(shape, 'float32', seed=seed)[0] for seed in range(4)])
    quantized = quantize(symbol, *params, images)
    assert not any('lambda' in name or 'label' in name for name in quantized.symbol.list_arguments())
    assert '_sg_mkldnn_conv' in operators(integer_symbol(quantized.symbol))
    # The weights are noise, so classes are close together: most of the variation must be there still.
    found, expected = logits_of(quantized, images), logits_of((symbol, *params), images)
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.95


@pytest.mark.parametrize('placement', PLACEMENTS)
def test_weights_are_whole_numbers_and_what_they_mean_is_in_batch_normalisation(placement):
    symbol, shape = small_network('vgg', placement)
    params = random_params(symbol, shape, 'float32')
    images = random_images(shape, 'float32')[0]
    ready = folded_for_int8(symbol, *params, images.shape)
    mean = logits_of(ready, images).mean(axis=0)
    rounded = with_int8_weights(ready, images)
    for name, weight in ready.arg_params.items():
        if not name.endswith('weight'):
            continue
        weight, found = weight.asnumpy(), rounded.arg_params[name].asnumpy()
        assert found.dtype == np.int8
        assert np.abs(found.reshape(len(found), -1).astype(int)).max(axis=1).tolist() == [127] * len(found)
        step = np.abs(weight.reshape(len(weight), -1)).max(axis=1) / 127
        back = found * step.reshape(-1, *[1] * (weight.ndim - 1))
        assert (np.abs(back - weight) <= 0.5001 * step.reshape(-1, *[1] * (weight.ndim - 1))).all()
        ready.arg_params[name][:] = back
    # In float32, the plain symbol means the rounded weights, but for a constant that keeps the mean.
    constant = logits_of(rounded, images) - logits_of(ready, images)
    np.testing.assert_allclose(constant, np.broadcast_to(constant.mean(axis=0), constant.shape), atol=1e-4)
    np.testing.assert_allclose(logits_of(rounded, images).mean(axis=0), mean, atol=0.05 * np.abs(mean).max())


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
    np.testing.assert_allclose(softmax(logits_of(quantize(symbol, *params, images), images)), whole, atol=5e-3)


@pytest.fixture(name='saved')
def a_saved_network(tmp_path, monkeypatch):
    """The trained network in 8 bits as the files ``small``, in the folder that the test runs in: the network."""
    monkeypatch.chdir(tmp_path)
    network = quantize(*trained_network(), random_images(SHAPE, 'float32')[0])
    save_int8('small', network)
    return network


def test_the_file_is_in_8_bits_and_computes_the_same(saved):
    network = trained_network()
    save_model('large', 0, *network)
    stored = load_params('small-0000.params')[0]
    convolutions = [name for name in stored if name.startswith('conv')]
    assert convolutions
    assert {stored[name].dtype for name in convolutions} == {np.int8}
    assert os.path.getsize('small-0000.params') < 0.3 * os.path.getsize('large-0000.params')
    images = random_images(SHAPE, 'float32', seed=5)[0]
    assert (logits_of(load_checkpoint('small', 0), images) == logits_of(saved, images)).all()


def test_stock_mxnet_loads_the_files(saved):
    images = random_images(SHAPE, 'float32', seed=5)[0]
    np.save('images.npy', images)
    script = (
        'import mxnet as mx, numpy as np\n'
        "symbol, arg, aux = mx.model.load_checkpoint('small', 0)\n"
        "images = np.load('images.npy')\n"
        "for found, symbol in (('plain', symbol), ('integers', mx.sym.load('small-onednn-symbol.json'))):\n"
        '    module = mx.mod.Module(symbol, label_names=None)\n'
        "    module.bind([('data', images.shape)], for_training=False)\n"
        '    module.set_params(arg, aux)\n'
        '    module.forward(mx.io.DataBatch([mx.nd.array(images)]))\n'
        '    np.save(found, module.get_outputs()[0].asnumpy())\n'
    )
    subprocess.run([sys.executable, '-I', '-c', script], check=True, capture_output=True)
    expected = softmax(logits_of(saved, images))
    np.testing.assert_allclose(np.load('integers.npy'), expected, atol=1e-6)
    assert np.abs(np.load('plain.npy') - expected).max() < 0.1
    assert (np.load('plain.npy') != np.load('integers.npy')).any()


def test_a_damaged_range_is_named(saved):
    graph = Graph.from_symbol(saved.symbol)
    next(node for node in graph.nodes() if RANGE in node.attrs and node.op != 'null').attrs[RANGE] = '[1, "a"]'
    with pytest.raises(GraphError, match='__int8_range__ is damaged'):
        Predictor(saved._replace(symbol=graph.to_symbol()))


def test_no_images_are_a_named_error():
    with pytest.raises(UserError, match='no images'):
        quantize(*trained_network(), np.zeros((0, *SHAPE), 'float32'))
