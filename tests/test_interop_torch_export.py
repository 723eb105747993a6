"""TorchScript files: opened where nothing of this project is, and compared with MXNet."""

import os
import subprocess
import sys
import sysconfig

import numpy as np
import pytest
from helpers.mxnet_twin import CIFAR, half_dead, random_images, random_params, small_network

from graphs.predictor import Network, Predictor
from graphs.preprocessing import Preprocessing, with_preprocessing
from graphs.strip import strip
from runtime import mx
from runtime.errors import GraphError, ProofError

torch = pytest.importorskip('torch')

from interop import torch_export  # noqa: E402  (needs PyTorch)

# Without the site module, .venv does not put this project on the path.
LOAD = """
import importlib.util
import sys
sys.path.append(sys.argv[1])
import numpy as np
import torch

images = torch.from_numpy(np.load('images.npy'))
for name in sys.argv[2:]:
    net = torch.jit.load(name + '.pt')
    with torch.no_grad():
        found = net(images)
    np.savez(name, *(found if isinstance(found, tuple) else (found,)))
assert 'mxnet' not in sys.modules
for room in ('interop', 'graphs', 'runtime'):
    assert importlib.util.find_spec(room) is None, room + ' is on the path'
"""


def two_outputs():
    """A network of two outputs, the second hundred times the first, with a pooling that rounds up."""
    x = mx.sym.Convolution(mx.sym.var('data'), num_filter=6, kernel=(3, 3), pad=(1, 1), name='odd.name-conv')
    x = mx.sym.Pooling(x, kernel=(3, 3), stride=(2, 2), pool_type='avg', pooling_convention='full')
    x = mx.sym.Flatten(mx.sym.Activation(x, act_type='relu'))
    scores = mx.sym.FullyConnected(x, num_hidden=5, name='fc1')
    return mx.sym.Group([mx.sym.softmax(scores), mx.sym.FullyConnected(x, num_hidden=3, name='fc2') * 100])


def test_a_clean_process_opens_what_was_written(tmp_path):
    symbol, shape = small_network('resnext')
    params = half_dead(*random_params(symbol, shape, 'float32'))
    branched = two_outputs()
    networks = {
        'full': Network(symbol, *params),
        'output': Network(small_network('resnext', 'output')[0], *params),
        'stripped': Network(*strip(symbol, *params, {'data': (1, *shape)})[:3]),
        'outputs': Network(branched, *random_params(branched, shape, 'float32')),
    }
    images = np.concatenate([random_images(shape, 'float32', seed=seed)[0] for seed in range(2)])
    np.save(tmp_path / 'images.npy', images)
    for name, network in networks.items():
        torch_export.export_torch(*network, shape, str(tmp_path / f'{name}.pt'))
    packages = sysconfig.get_paths()['purelib']
    subprocess.run([sys.executable, '-I', '-S', '-c', LOAD, packages, *networks], cwd=tmp_path, check=True)
    for name, network in networks.items():
        expected = Predictor(network)(images)
        found = list(np.load(tmp_path / f'{name}.npz').values())
        assert len(found) == len(expected) == (2 if name == 'outputs' else 1)
        for one, other in zip(found, expected):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * np.abs(other).max())
    names = torch.jit.load(str(tmp_path / 'full.pt')).state_dict()
    assert 'arg.conv0_weight' in names
    assert not [name for name in names if 'lambda' in name]


def test_how_images_are_prepared_is_in_the_file(tmp_path):
    symbol, shape = small_network('vgg')
    given = Preprocessing((1.0,), (2.0,), 8, ('cat', 'dog'), 'images')
    torch_export.export_torch(
        with_preprocessing(symbol, given), *random_params(symbol, shape, 'float32'), shape, str(tmp_path / 'net.pt')
    )
    files = {'preprocessing': ''}
    torch.jit.load(str(tmp_path / 'net.pt'), _extra_files=files)
    assert files['preprocessing'].decode() == given.to_text()


def test_a_network_of_one_batch(tmp_path):
    x = mx.sym.FullyConnected(mx.sym.Reshape(mx.sym.var('data'), shape=(1, -1)), num_hidden=5, name='fc1')
    weight = np.random.RandomState(0).standard_normal((5, 48)).astype('float32')
    params = {'fc1_weight': mx.nd.array(weight), 'fc1_bias': mx.nd.zeros(5)}
    torch_export.export_torch(x, params, {}, (3, 4, 4), str(tmp_path / 'net.pt'))
    found = torch.jit.load(str(tmp_path / 'net.pt'))(torch.ones(1, 3, 4, 4)).detach().numpy()
    np.testing.assert_allclose(found[0], weight.sum(axis=1), atol=1e-5)


@pytest.mark.parametrize('reason', ['operator', 'difference'])
def test_nothing_is_written_of_what_is_not_proved(tmp_path, monkeypatch, reason):
    symbol, params = mx.sym.LRN(mx.sym.var('data'), nsize=3), ({}, {})
    if reason == 'difference':
        symbol = small_network('vgg')[0]
        params = random_params(symbol, CIFAR, 'float32')
        exact = torch_export.TorchGraph.forward
        monkeypatch.setattr(torch_export.TorchGraph, 'forward', lambda net, images: exact(net, images) * 1.01)
    with pytest.raises(GraphError if reason == 'operator' else ProofError):
        torch_export.export_torch(symbol, *params, CIFAR, str(tmp_path / 'net.pt'))
    assert os.listdir(tmp_path) == []
