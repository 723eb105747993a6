"""Five steps of training, network and optimizer together, in PyTorch against MXNet: every family, full and stripped, in
float64.
"""

import numpy as np
import pytest
from helpers.mxnet_twin import BATCH, FAMILIES, random_images, random_params, small_network

from graphs.strip import strip
from optimizers import APG as MXNetAPG
from runtime import mx

torch = pytest.importorskip('torch')

from interop.torch_graph import TorchGraph  # noqa: E402  (needs PyTorch)
from optimizers.torch_apg import APG  # noqa: E402

STEPS = 5
# MXNet holds its settings in single precision; these lose nothing by it.
SETTINGS = {'gamma': 1.0, 'momentum': 0.875, 'wd': 2**-10, 'rescale_grad': 1 / BATCH}
ETAS = [2**-4, 2**-4, 2**-4, 2**-6, 2**-6]


def batches(shape):
    return [random_images(shape, seed=step) for step in range(STEPS)]


def train_in_mxnet(symbol, arg_params, aux_params, data):
    """(arg_params, aux_params) after a step on each (images, labels) of ``data``, as NumPy arrays."""
    arrays = {name: array.copy() for name, array in arg_params.items()}
    names = list(arrays)
    images, labels = data[0]
    inputs = {
        'data': mx.nd.zeros(images.shape, dtype='float64'),
        'softmax_label': mx.nd.zeros(labels.shape, dtype='float64'),
    }
    gradients = {name: mx.nd.zeros(array.shape, dtype='float64') for name, array in arrays.items()}
    executor = symbol.bind(
        mx.cpu(),
        {**arrays, **inputs},
        gradients,
        {name: 'write' if name in arrays else 'null' for name in symbol.list_arguments()},
        {name: array.copy() for name, array in aux_params.items()},
    )
    optimizer = MXNetAPG(sym=symbol, param_idx2name=dict(enumerate(names)), **SETTINGS)
    updater = mx.optimizer.get_updater(optimizer)
    for (images, labels), eta in zip(data, ETAS):
        optimizer.lr = eta
        executor.forward(is_train=True, data=images, softmax_label=labels)
        executor.backward()
        for index, name in enumerate(names):
            updater(index, gradients[name], arrays[name])
    mx.nd.waitall()
    return tuple({name: array.asnumpy() for name, array in params.items()} for params in (arrays, executor.aux_dict))


def train_in_torch(symbol, arg_params, aux_params, data):
    """The same in PyTorch."""
    net = TorchGraph(symbol, arg_params, aux_params).train()
    optimizer = APG(net.mxnet_parameters(), **SETTINGS)
    for (images, labels), eta in zip(data, ETAS):
        for group in optimizer.param_groups:
            group['lr'] = eta
        optimizer.zero_grad()
        net.loss(net(torch.from_numpy(images)), torch.from_numpy(labels)).backward()
        optimizer.step()
    return tuple({name: array.asnumpy() for name, array in params.items()} for params in net.to_mxnet())


def assert_same_training(symbol, arg_params, aux_params, shape):
    data = batches(shape)
    for found, expected in zip(
        train_in_torch(symbol, arg_params, aux_params, data), train_in_mxnet(symbol, arg_params, aux_params, data)
    ):
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_allclose(
                found[name], values, rtol=0, atol=1e-9 * max(1, np.abs(values).max()), err_msg=name
            )


@pytest.mark.parametrize('family', FAMILIES)
def test_a_full_network(family):
    symbol, shape = small_network(family)
    arg_params, aux_params = random_params(symbol, shape)
    before = {name: array.asnumpy() for name, array in arg_params.items()}
    assert_same_training(symbol, arg_params, aux_params, shape)
    trained, _ = train_in_torch(symbol, arg_params, aux_params, batches(shape))
    assert all((trained[name] != before[name]).any() for name in before)
    assert any((values == 0).any() for name, values in trained.items() if 'lambda' in name)


@pytest.mark.parametrize('family', FAMILIES)
def test_a_stripped_network(family):
    symbol, shape = small_network(family)
    arg_params, aux_params = random_params(symbol, shape)
    for name, array in arg_params.items():
        if 'lambda' in name:
            array[1::2] = 0
    stripped = strip(symbol, arg_params, aux_params, {'data': (1, *shape)}, for_training=True)
    assert_same_training(stripped.symbol, stripped.arg_params, stripped.aux_params, shape)
