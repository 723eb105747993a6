"""tools/convert.py from the command line: each format written and read by someone else, and what is refused."""

import json
import os
import sys

import numpy as np
import pytest
from helpers.mxnet_twin import random_images, random_params
from helpers.trained_digits import trained_network

from formats.checkpoint_files import load_checkpoint, save_model
from graphs.predictor import Network, Predictor
from graphs.preprocessing import Preprocessing, preprocessing_of, with_preprocessing
from interop.models import read_model
from interop.quantize_onnx import onnx_quantization
from runtime import mx
from runtime.errors import GraphError, MissingDependencyError, UserError
from runtime.files import sha256
from symbols import get_symbol
from tools import evaluate
from tools.convert import main


@pytest.fixture(name='checkpoint')
def a_checkpoint(tmp_path, monkeypatch):
    """A ResNet-20 with λ as ``net-0003``, in the folder that the test runs in: the network."""
    monkeypatch.chdir(tmp_path)
    symbol = get_symbol('resnet-v1', 20, 10, (3, 32, 32))
    network = (symbol, *random_params(symbol, (3, 32, 32), 'float32'))
    save_model('net', 3, *network)
    return network


def printed_difference(capsys):
    """What the tool says of its check."""
    text = capsys.readouterr().out
    assert text.startswith('wrote ')
    return float(text.split(':')[-1])


def assert_same(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_onnx(checkpoint, capsys):
    runtime = pytest.importorskip('onnxruntime')
    pytest.importorskip('onnx')
    assert main(['net:3', '--to', 'onnx', '--out', 'there']) == 0
    assert printed_difference(capsys) < 1e-5
    images = random_images((3, 32, 32), 'float32')[0]
    session = runtime.InferenceSession('there.onnx', providers=['CPUExecutionProvider'])
    assert_same(session.run(None, {'data': images})[0], Predictor(Network(*checkpoint))(images)[0])


def test_torch(checkpoint, capsys):
    torch = pytest.importorskip('torch')
    assert main(['net:3', '--to', 'torch', '--out', 'there']) == 0
    assert printed_difference(capsys) < 1e-5
    images = random_images((3, 32, 32), 'float32')[0]
    with torch.inference_mode():
        found = torch.jit.load('there.pt')(torch.from_numpy(images)).numpy()
    assert_same(found, Predictor(Network(*checkpoint))(images)[0])


def test_int8(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    symbol, *weights = trained_network()
    given = Preprocessing((123.68, 116.28, 103.53), (58.395, 57.12, 57.375), 32, tuple('0123456789'), 'digits')
    save_model('digits', 1, with_preprocessing(symbol, given), *weights)
    assert main(['digits:1', '--to', 'int8', '--out', 'small', '--data', 'digits', '--calibration-images', '100']) == 0
    text = capsys.readouterr().out
    before, after = (
        float(part.split()[-1]) for part in text.split(': ')[1].split(' in int8')[0].replace(' before', '').split(',')
    )
    assert before > 0.9
    assert after == pytest.approx(before, abs=0.02)
    assert os.path.exists('small-0000.params')
    with open('small-onednn-symbol.json') as graph:
        assert '_sg_mkldnn' in graph.read()
    assert preprocessing_of(mx.sym.load('small-symbol.json')) == given
    assert evaluate.main(['small', '--image-shape', '3,16,16', '--json']) == 0
    assert json.loads(capsys.readouterr().out)['accuracy'] == pytest.approx(after, abs=1e-4)
    with pytest.raises(UserError, match='small is in 8 bits; start from the network that it was made from'):
        main(['small', '--to', 'onnx', '--out', 'small'])


def test_an_onnx_file_is_evaluated(tmp_path, monkeypatch, capsys):
    pytest.importorskip('onnxruntime')
    monkeypatch.chdir(tmp_path)
    symbol, *weights = trained_network()
    given = Preprocessing((123.68, 116.28, 103.53), (58.395, 57.12, 57.375), 16, tuple('0123456789'), 'digits')
    save_model('digits', 1, with_preprocessing(symbol, given), *weights)
    assert main(['digits', '--to', 'onnx', '--out', 'digits']) == 0
    capsys.readouterr()
    scores = []
    for source in ('digits', 'digits.onnx'):
        assert evaluate.main([source, '--image-shape', '3,16,16', '--json']) == 0
        scores.append(json.loads(capsys.readouterr().out))
    assert scores[0]['accuracy'] > 0.9
    assert scores[1] == pytest.approx(scores[0], abs=1e-4)


def test_int8_for_onnx_runtime(tmp_path, monkeypatch, capsys):
    try:
        onnx_quantization()
    except MissingDependencyError as error:
        pytest.skip(str(error))
    monkeypatch.chdir(tmp_path)
    symbol, *weights = trained_network()
    given = Preprocessing((123.68, 116.28, 103.53), (58.395, 57.12, 57.375), 32, tuple('0123456789'), 'digits')
    save_model('digits', 1, with_preprocessing(symbol, given), *weights)
    assert main(['digits', '--to', 'onnx', '--out', 'large']) == 0
    capsys.readouterr()
    assert main(['digits', '--to', 'int8-onnx', '--out', 'small', '--data', 'digits']) == 0
    words = capsys.readouterr().out.replace(',', '').split()
    assert float(words[words.index('before') - 1]) > 0.9
    assert float(words[words.index('in') - 1]) == pytest.approx(float(words[words.index('before') - 1]), abs=0.02)
    assert os.path.getsize('small.onnx') < 0.4 * os.path.getsize('large.onnx')
    assert read_model('small.onnx').preprocessing == given


def test_onnx_runtime_without_quantisation_is_named(checkpoint, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxruntime.quantization', None)
    with pytest.raises(MissingDependencyError, match='onnxruntime.quantization cannot be used.*pip install onnx=='):
        main(['net', '--to', 'int8-onnx', '--out', 'small', '--data', 'digits'])


def test_a_state_dict_and_back(checkpoint, capsys):
    load_file = pytest.importorskip('safetensors.numpy').load_file
    assert main(['net:3', '--to', 'state-dict', '--out', 'there']) == 0
    assert printed_difference(capsys) < 1e-5
    assert {'conv1.weight', 'layer1.0.conv1.weight', 'linear.bias'} <= load_file('there.safetensors').keys()
    assert main(['there.safetensors', '--to', 'mxnet', '--out', 'again']) == 0
    assert printed_difference(capsys) < 1e-5
    images = random_images((3, 32, 32), 'float32')[0]
    assert_same(Predictor(Network(*load_checkpoint('again', 0)))(images)[0], Predictor(Network(*checkpoint))(images)[0])


def test_gluoncv(tmp_path, monkeypatch, capsys):
    from interop.gluon_zoo import zoo_network
    from runtime import mx

    monkeypatch.chdir(tmp_path)
    symbol = get_symbol('resnet', 50, 1000, (3, 224, 224))
    network = (symbol, *random_params(symbol, (3, 224, 224), 'float32'))
    save_model('net', 0, *network)
    assert main(['net:0', '--to', 'gluoncv', '--out', 'there']) == 0
    assert printed_difference(capsys) < 1e-5
    block = zoo_network('resnet50_v2')
    block.load_parameters('there.params')
    images = random_images((3, 64, 64), 'float32')[0]
    expected = Predictor(Network(*network))(images)[0]
    np.testing.assert_allclose(
        block(mx.nd.array(images)).asnumpy(), expected, rtol=0, atol=1e-4 * np.abs(expected).max()
    )


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['net:3', '--to', 'int8', '--out', 'new'], '--data'),
        (['nett', '--to', 'onnx', '--out', 'new'], 'nett-symbol.json: no such file'),
        (['net:4', '--to', 'onnx', '--out', 'new'], 'epochs of net that exist: 3'),
        (['net:3', '--to', 'state-dict', '--out', 'new', '--style', 'nobody'], 'nobody.* is not one of'),
        (['net:3', '--to', 'int8', '--out', 'new', '--data', 'cifar100', '--data-dir', 'nowhere'], 'nowhere'),
        (['nothing.pth', '--to', 'mxnet', '--out', 'new'], 'nothing.pth'),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(checkpoint, arguments, message):
    with pytest.raises(UserError, match=message):
        main(arguments)
    assert sorted(os.listdir()) == ['net-0003.params', 'net-symbol.json']


def test_the_input_is_never_overwritten(checkpoint):
    sums = {name: sha256(name) for name in os.listdir()}
    with pytest.raises(UserError, match='is an input'):
        main(['net:3', '--to', 'gluoncv', '--out', './net-0003.params', '--force'])
    save_model('zero', 0, *checkpoint)
    with pytest.raises(UserError, match='is an input'):
        main(['zero:0', '--to', 'int8', '--out', 'zero', '--data', 'digits', '--force'])
    assert {name: sha256(name) for name in sums} == sums


def test_other_files_are_overwritten_on_demand_only(checkpoint):
    pytest.importorskip('onnxruntime')
    with open('there.onnx', 'w') as other:
        other.write('mine')
    with pytest.raises(UserError, match='already there'):
        main(['net:3', '--to', 'onnx', '--out', 'there.onnx'])
    main(['net:3', '--to', 'onnx', '--out', 'there.onnx', '--force'])
    assert os.path.getsize('there.onnx') > 1000


def test_a_symbol_that_does_not_say_what_it_takes(checkpoint):
    pytest.importorskip('onnxruntime')
    with open('net-symbol.json') as source:
        graph = json.load(source)
    for node in graph['nodes']:
        node.get('attrs', {}).pop('__image_shape__', None)
    with open('net-symbol.json', 'w') as changed:
        json.dump(graph, changed)
    with pytest.raises(GraphError, match='does not say which images'):
        main(['net:3', '--to', 'onnx', '--out', 'there'])
    assert main(['net:3', '--to', 'onnx', '--out', 'there', '--image-shape', '3,32,32']) == 0


def test_pytorch_is_optional(checkpoint, monkeypatch):
    monkeypatch.setitem(sys.modules, 'torch', None)
    for module in ('interop.torch_export', 'interop.torch_graph', 'interop.torch_operators'):
        monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(MissingDependencyError, match='PyTorch is not installed: pip install'):
        main(['net:3', '--to', 'torch', '--out', 'there'])
