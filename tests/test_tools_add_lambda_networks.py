"""Other people's networks on the whole way: λ added, a budget in training, strip with proof, ONNX and PyTorch.

``test_graphs_insertion`` counts by hand which channels of these networks can go, and finds a λ for each.
"""

import json

import numpy as np
import pytest
from helpers import foreign_networks
from helpers.strip_networks import images, predict, random_parameters
from helpers.tiny_runs import train

from formats.checkpoint_files import load_checkpoint, save_model
from graphs.predictor import Network
from graphs.proof import outputs_of
from interop.gluon_zoo import zoo_network
from runtime import mx
from tools import add_lambda, convert, strip_params

# So near to the whole that few sets of channels are compared, and only some layers of the longest network have λ.
TARGET = 0.998
EXCLUDE = {'mobilenetv2_0.25': ['--exclude', '*linearbottleneck[0-9]_*']}
EPOCHS = 3
TOLERANCE = 1e-4


def small_network(name):
    """(symbol of ten classes, shape of small images). DenseNet has two units of 16 channels in each stage:
    oneDNN does not train concatenations of most other widths.
    """
    if name in ('shufflenet', 'se_network'):
        return foreign_networks.NETWORKS[name]()[:2]
    block = zoo_network(name, classes=10)
    if name.startswith('densenet'):
        block = type(block)(16, 16, [2, 2, 2, 2], classes=10)
    return with_global_pooling(block(mx.sym.var('data'))), (3, 32, 32)


def with_global_pooling(symbol):
    """``symbol`` with the average over the last map taken whole, which GluonCV writes for images of 224 pixels."""
    graph = json.loads(symbol.tojson())
    averages = [node for node in graph['nodes'] if node['op'] == 'Pooling' and node['attrs']['pool_type'] == 'avg']
    averages[-1]['attrs']['global_pool'] = 'True'
    return mx.sym.load_json(json.dumps(graph))


def assert_near(found, expected):
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize('name', foreign_networks.NETWORKS)
def test_from_a_network_to_a_smaller_one_elsewhere(name, tmp_path):
    runtime, torch = pytest.importorskip('onnxruntime'), pytest.importorskip('torch')
    symbol, image_shape = small_network(name)
    save_model(str(tmp_path / 'plain'), 0, symbol, *random_parameters(symbol, {'data': (1, *image_shape)}))
    sides = ','.join(map(str, image_shape))
    flags = [str(tmp_path / 'plain'), '--out', str(tmp_path / 'net'), '--image-shape', sides]
    assert add_lambda.main([*flags, *EXCLUDE.get(name, [])]) == 0

    data = ['--dataset', 'synthetic', '--image-shape', sides, '--num-examples', '8', '--batch-size', '4']
    flags = ['--num-epochs', EPOCHS, '--target-macs', TARGET, '--lr', 1e-4, '--quiet']
    assert train(str(tmp_path / 'net'), tmp_path / 'run', *flags, data=data) == 0

    prefix = str(tmp_path / 'stripped')
    assert strip_params.main([f'{tmp_path / "run"}:{EPOCHS}', '--out', prefix]) == 0
    report = json.loads((tmp_path / 'stripped-structure.json').read_text())
    assert 0.8 * TARGET < report['after']['macs'] / report['before']['macs'] <= TARGET

    image = images(2, shape=image_shape)
    stripped = load_checkpoint(prefix, 0)
    assert_near(predict(*stripped, image), predict(*load_checkpoint(str(tmp_path / 'run'), EPOCHS), image))
    (logits,) = outputs_of(Network(*stripped), {'data': image})
    for kind, out in (('onnx', f'{prefix}.onnx'), ('torch', prefix)):
        assert convert.main([prefix, '--to', kind, '--out', out]) == 0
    session = runtime.InferenceSession(f'{prefix}.onnx', providers=['CPUExecutionProvider'])
    assert_near(session.run(None, {session.get_inputs()[0].name: image})[0], logits)
    assert_near(torch.jit.load(f'{prefix}.pt')(torch.from_numpy(image)).detach().numpy(), logits)
