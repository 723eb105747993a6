"""The engine over several devices and kvstores: the same network comes out, or the run stops."""

import inspect
import sys

import numpy as np
import pytest
from helpers.several_devices import BATCH, DATA, DEVICES, LABEL, batches, network, optimizer

import optimizers
from optimizers.stopping import KVSTORE_CALLBACK
from runtime import mx
from runtime.errors import TrainingError
from train.engines.interface import Engine, StartedEngine
from train.engines.mxnet import MXNetEngine
from train.engines.mxnet_half import HalfEngine
from train.resizing import ResizableEngine


def torch_engine():
    pytest.importorskip('torch')
    from train.engines.torch import TorchEngine

    return TorchEngine


@pytest.mark.parametrize(
    ('kind', 'interface'),
    [
        (lambda: MXNetEngine, Engine),
        (lambda: HalfEngine, Engine),
        (torch_engine, Engine),
        (lambda: ResizableEngine, StartedEngine),
    ],
    ids=['mxnet', 'mxnet_half', 'torch', 'resizable'],
)
def test_every_engine_has_the_methods_of_the_interface(kind, interface):
    methods = [name for name, value in inspect.getmembers(interface, inspect.isfunction) if not name.startswith('_')]
    assert 'step' in methods
    for name in methods:
        expected = list(inspect.signature(getattr(interface, name)).parameters)
        assert list(inspect.signature(getattr(kind(), name)).parameters) == expected, name


def engine(devices, kvstore='local'):
    made = MXNetEngine(network(), DEVICES[devices], DATA, LABEL, kvstore)
    made.seed(5)
    made.start(optimizer())
    return made


def trained(devices, kvstore='local'):
    made = engine(devices, kvstore)
    outputs = [made.step(batch, seed=0) for batch in batches()]
    arguments, _ = made.parameters()
    return outputs, {name: value.asnumpy() for name, value in arguments.items()}, made


@pytest.fixture
def update_on_kvstore(request, monkeypatch):
    monkeypatch.setenv('MXNET_UPDATE_ON_KVSTORE', request.param)
    return request.param == '1'


@pytest.mark.parametrize('update_on_kvstore', ['0', '1'], indirect=True)
@pytest.mark.parametrize('kvstore', ['local', 'device'])
@pytest.mark.parametrize('devices', [2, 3])
def test_several_devices_train_like_one(devices, kvstore, update_on_kvstore):
    outputs, weights, several = trained(devices, kvstore)
    assert bool(several._module._update_on_kvstore) == update_on_kvstore
    expected_outputs, expected, _ = trained(1)
    np.testing.assert_allclose(outputs, expected_outputs, atol=2e-6)
    for name, value in expected.items():
        np.testing.assert_allclose(weights[name], value, atol=2e-6, err_msg=name)
    assert abs(expected['lambda_block'] - 1) > 0.01, 'λ must have moved'
    np.testing.assert_array_equal(several.lambdas()['lambda_block'], weights['lambda_block'])


@pytest.mark.parametrize('update_on_kvstore', ['0', '1'], indirect=True)
@pytest.mark.parametrize('devices', [1, 2])
def test_a_restored_engine_goes_on_bit_for_bit(devices, update_on_kvstore):
    """The learning rate drops right after the step that is restored from."""
    _, expected, _ = trained(devices)
    first = engine(devices)
    for batch in batches()[:2]:
        first.step(batch, seed=0)
    second = MXNetEngine(network(), DEVICES[devices], DATA, LABEL)
    second.seed(99)
    second.start(optimizer(), *first.parameters(), first.optimizer_state())
    for batch in batches()[2:]:
        second.step(batch, seed=0)
    for name, value in second.parameters()[0].items():
        np.testing.assert_array_equal(value.asnumpy(), expected[name], err_msg=name)


def test_predictions_leave_the_padding_out():
    made = engine(1)
    (whole,) = batches()[:1]
    padded = mx.io.DataBatch(whole.data, whole.label, pad=5)
    np.testing.assert_array_equal(made.predict(padded), made.predict(whole)[: BATCH - 5])


def in_kvstore(frame):
    while frame and frame.f_code.co_name != KVSTORE_CALLBACK:
        frame = frame.f_back
    return frame is not None


@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
@pytest.mark.parametrize('defect', ['does nothing', 'fails', 'takes raw gradients'])
def test_an_optimizer_that_does_not_work_inside_the_kvstore_is_found_out(defect, monkeypatch):
    """On a copy outside the kvstore everything is as it should be, so only comparing what came out can tell."""
    right = optimizers.APG.update_multi_precision

    def broken(self, index, weight, gradient, state):
        if not in_kvstore(sys._getframe()):
            right(self, index, weight, gradient, state)
        elif defect == 'fails':
            raise RuntimeError('swallowed by C++')
        elif defect == 'takes raw gradients':
            gradient.copyto(weight)

    monkeypatch.setattr(optimizers.APG, 'update_multi_precision', broken)
    with pytest.raises(TrainingError, match="the first update did not move .* inside kvstore 'local'"):
        trained(2)


def test_an_optimizer_that_works_is_asked_once():
    made = engine(2)
    asked = []
    expect = made._expected_update
    made._expected_update = lambda: asked.append(None) or expect()
    for batch in batches():
        made.step(batch, seed=0)
    assert len(asked) == 1
    assert set(expect()) == {'lambda_block', 'fc1_bias'}


@pytest.mark.parametrize('devices', [2, 3])
def test_moving_statistics_are_those_of_a_device_until_the_epoch_ends(devices):
    with mx.name.NameManager():
        data = mx.sym.BatchNorm(mx.sym.Flatten(mx.sym.Variable('data')), name='bn0')
        symbol = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(data, num_hidden=3, name='fc1'), name='softmax')
    made = MXNetEngine(symbol, DEVICES[devices], DATA, LABEL)
    made.start(mx.optimizer.create('apg', rescale_grad=1 / BATCH, sym=symbol, param_idx2name={}))
    batch = batches()[0]
    made.step(batch, seed=0)
    shares = batch.data[0].asnumpy().reshape(devices, BATCH // devices, -1).mean(axis=1)  # momentum 0.9, from 0
    _, saved = made.parameters()
    np.testing.assert_allclose(saved['bn0_moving_mean'].asnumpy(), 0.1 * shares.mean(axis=0), atol=1e-6)
    _, states = made.optimizer_state()
    np.testing.assert_allclose([array.asnumpy() for array in states['bn0_moving_mean']], 0.1 * shares, atol=1e-6)
    made.end_epoch()
    _, states = made.optimizer_state()
    for array in states['bn0_moving_mean']:
        np.testing.assert_array_equal(array.asnumpy(), saved['bn0_moving_mean'].asnumpy())
