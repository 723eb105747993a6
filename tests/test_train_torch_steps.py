"""Steps through the engines: five of PyTorch's beside five of MXNet's for every family, in every format, and recorded
as a card would record them.
"""

import logging

import numpy as np
import pytest
from helpers.mxnet_twin import BATCH, FAMILIES, half_dead, random_images, random_params, small_network, smooth

from graphs.strip import strip
from optimizers import APG
from runtime import mx
from runtime.errors import UserError
from train.engines.mxnet import MXNetEngine

torch = pytest.importorskip('torch')

from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402  (needs PyTorch)

from optimizers.torch_apg import APG as TorchAPG  # noqa: E402
from train.engines.torch import TorchEngine  # noqa: E402
from train.engines.torch_arithmetic import Arithmetic  # noqa: E402
from train.engines.torch_replay import Replayed  # noqa: E402

STEPS = 5


def optimizer(symbol):
    """A rate that warms up and drops, so that none is right for two steps on end."""
    schedule = mx.lr_scheduler.MultiFactorScheduler([3, 4], 0.5, 0.02, warmup_steps=2)
    made = APG(
        learning_rate=0.02,
        lr_scheduler=schedule,
        gamma=0.5,
        momentum=0.9,
        wd=1e-3,
        rescale_grad=1 / BATCH,
        sym=symbol,
        param_idx2name={},
    )
    made.set_wd_mult({name: 0.0 for name in symbol.list_arguments() if not name.endswith(('_weight', '_gamma'))})
    return made


def batches(shape):
    made = [random_images(shape, 'float32', seed=step) for step in range(STEPS)]
    return [mx.io.DataBatch([mx.nd.array(images)], [mx.nd.array(labels)], pad=1) for images, labels in made]


def started(engine, symbol, shape, params, *more):
    data, label = [mx.io.DataDesc('data', (BATCH, *shape))], [mx.io.DataDesc('softmax_label', (BATCH,))]
    made = (
        TorchEngine(symbol, None, data, label, *more)
        if engine == 'torch'
        else MXNetEngine(symbol, [mx.cpu()], data, label)
    )
    made.seed(1)
    return made, lambda: made.start(optimizer(symbol), *params)


def trained(engine, symbol, shape, params, *more):
    """(probabilities of every step, parameters and statistics after the last, all as NumPy arrays)"""
    made, start = started(engine, symbol, shape, params, *more)
    start()
    outputs = [np.array(made.step(batch, seed=0)) for batch in batches(shape)]
    return outputs, arrays(made)


def arrays(engine):
    arguments, states = engine.parameters()
    return {name: value.asnumpy() for name, value in {**arguments, **states}.items()}


def assert_close(found, expected, tolerance):
    """Equal to ``tolerance`` of the largest value."""
    for name, value in expected.items():
        np.testing.assert_allclose(
            found[name], value, rtol=0, atol=tolerance * max(np.abs(value).max(), 1e-2), err_msg=name
        )


def test_predictions_by_the_statistics_of_the_batch_are_those_of_mxnet_and_of_a_step():
    symbol, shape = small_network('resnet')
    params = random_params(symbol, shape, 'float32')
    batch, found = batches(shape)[0], []
    for engine in ('mxnet', 'torch'):
        made, start = started(engine, symbol, shape, params)
        start()
        before = arrays(made)
        found.append(np.array(made.predict_by_batch(batch)))
        assert_close(arrays(made), before, 0)
        np.testing.assert_allclose(found[-1], np.array(made.step(batch, seed=0))[: BATCH - 1], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(*found, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize('is_stripped', [False, True], ids=['full', 'stripped'])
@pytest.mark.parametrize('family', FAMILIES)
def test_five_steps_are_those_of_mxnet(family, is_stripped):
    symbol, shape = small_network(family)
    params = random_params(symbol, shape, 'float32')
    if is_stripped:
        # Half of each vector of λ goes; what is stripped for training keeps none, and trains on as an ordinary network.
        symbol, *params = strip(symbol, *half_dead(*params), {'data': (1, *shape)}, for_training=True)[:3]
    symbol = smooth(symbol)
    outputs, weights = trained('torch', symbol, shape, params)
    expected_outputs, expected = trained('mxnet', symbol, shape, params)
    np.testing.assert_allclose(outputs, expected_outputs, atol=1e-4)
    assert_close(weights, expected, 1e-4)
    assert any(np.abs(expected[name] - before.asnumpy()).max() > 1e-3 for name, before in params[0].items()), (
        'weights must have moved'
    )


class Trace:
    """A ``CudaRecorder`` for the CPU: what is recorded are PyTorch's elementary operations with the tensors they were
    given.

    As on a card, recording leaves everything as it was, a number of Python's is recorded as it is then, and to read one
    out of a tensor is an error.
    """

    def __init__(self, tensors):
        self.tensors, self.operations = tensors, 0

    def warm_up(self, function):
        return function()

    def record(self, function):
        before = [(tensor, tensor.detach().clone()) for tensor in self.tensors()]
        traced = make_fx(lambda: function())()
        with torch.no_grad():
            for tensor, value in before:
                tensor.copy_(value)
        self.operations += sum(node.op == 'call_function' for node in traced.graph.nodes)
        output = torch.empty(0)

        def replay():
            with torch.no_grad():
                result = traced()
                output.resize_(result.shape).copy_(result)

        return replay, output


@pytest.mark.parametrize(
    'arithmetic', [Arithmetic(), Arithmetic(dtype='bfloat16', channels_last=True)], ids=['float32', 'bfloat16']
)
def test_a_step_can_be_recorded_and_replayed(arithmetic):
    """Five steps, the last two of them replayed, at rates that no other step has; and predictions of which the last are
    replayed.
    """
    symbol, shape = small_network('vgg')
    params = random_params(symbol, shape, 'float32')
    engines = []
    for is_recorded in (False, True):
        engine, start = started('torch', symbol, shape, params, arithmetic)
        if is_recorded:
            trace = Trace(
                lambda engine=engine: [
                    *engine._net.parameters(),
                    *engine._net.buffers(),
                    *(state['moving'] for state in engine._optimizer.state.values()),
                ]
            )
            engine._recorder = trace
        start()
        engines.append(engine)
    for batch in batches(shape):
        plain, replayed = (engine.step(batch, seed=0).clone() for engine in engines)
        torch.testing.assert_close(replayed, plain, rtol=1e-3, atol=1e-5)
    assert trace.operations > 100
    for batch in batches(shape):
        plain, replayed = (engine.predict(batch).clone() for engine in engines)
        assert len(replayed) == BATCH - 1
        torch.testing.assert_close(replayed, plain, rtol=1e-3, atol=1e-5)
    assert_close(arrays(engines[1]), arrays(engines[0]), 1e-4)
    assert [engine.optimizer_state()[0] for engine in engines] == [STEPS, STEPS]


def test_a_rate_in_a_tensor_moves_parameters_as_a_number_does():
    ends = []
    for as_rate in (float, torch.tensor):
        torch.manual_seed(0)
        named = [
            ('lambda_block', torch.nn.Parameter(torch.rand(6))),
            ('conv0_weight', torch.nn.Parameter(torch.randn(4, 3))),
        ]
        apg = TorchAPG(named, lr=as_rate(0.125), gamma=0.5, wd=0.25)
        for _ in range(3):
            for _, parameter in named:
                parameter.grad = torch.randn_like(parameter)
            apg.step()
        ends.append(
            [parameter.detach() for _, parameter in named]
            + [state[0].asnumpy() for state in (apg.mxnet_state()['conv0_weight'],)]
        )
    torch.testing.assert_close(ends[1], ends[0])
    assert 0 < (ends[0][0] == 0).sum() < 6


class Refuses:
    def warm_up(self, function):
        return function()

    def record(self, function):
        raise RuntimeError('operation not permitted when stream is capturing\nand ten lines more')


def test_what_cannot_be_recorded_is_said_once_and_computed(caplog):
    double = Replayed(lambda tensor: tensor * 2, Refuses())
    with caplog.at_level(logging.WARNING):
        assert [double(torch.tensor(value)).item() for value in range(7)] == [0, 2, 4, 6, 8, 10, 12]
    (line,) = caplog.messages
    assert line.endswith('launched one by one: operation not permitted when stream is capturing')


@pytest.mark.parametrize(
    'arithmetic',
    [Arithmetic(dtype='bfloat16'), Arithmetic(dtype='float16', channels_last=True)],
    ids=['bfloat16', 'float16'],
)
def test_half_precision_rounds_features_and_nothing_else(arithmetic):
    symbol, shape = small_network('resnet-basic')
    params = random_params(symbol, shape, 'float32')
    engine, start = started('torch', symbol, shape, params, arithmetic)
    start()
    seen = {}
    convolution = torch.nn.functional.conv2d
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, 'conv2d', lambda *inputs: note(seen, convolution(*inputs), inputs[1]))
        outputs = [engine.step(batch, seed=0).clone() for batch in batches(shape)]
    assert seen == {'features': {getattr(torch, arithmetic.dtype)}, 'weights': {torch.float32}}, (
        'λ times weight comes in float32'
    )
    assert {tensor.dtype for tensor in (*engine._net.parameters(), *engine._net.buffers(), *outputs)} == {torch.float32}
    assert {state['moving'].dtype for state in engine._optimizer.state.values()} == {torch.float32}
    expected_outputs, expected = trained('torch', symbol, shape, params)
    np.testing.assert_allclose(outputs[0], expected_outputs[0], atol=0.02)
    assert np.abs(outputs[0].numpy() - expected_outputs[0]).max() > 1e-6, 'it must have been rounded'
    assert_close(engine.lambdas(), {name: expected[name] for name in engine.lambdas()}, 0.02)


def note(seen, features, weights):
    seen.setdefault('features', set()).add(features.dtype)
    seen.setdefault('weights', set()).add(weights.dtype)
    return features


def test_channels_last_lays_out_everything_and_changes_nothing():
    symbol, shape = small_network('resnet')
    params = random_params(symbol, shape, 'float32')
    engine, start = started('torch', smooth(symbol), shape, params, Arithmetic(channels_last=True))
    start()
    for batch in batches(shape):
        engine.step(batch, seed=0)
    weight = engine._net.arg.stage1_unit1_conv2_weight
    for tensor in (weight, engine._optimizer.state[weight]['moving'], engine._on_device(batch)[0]):
        assert tensor.is_contiguous(memory_format=torch.channels_last)
    assert_close(arrays(engine), trained('torch', smooth(symbol), shape, params)[1], 1e-4)


def test_a_momentum_that_is_loaded_is_laid_out_like_its_weight():
    symbol, shape = small_network('vgg')
    params = random_params(symbol, shape, 'float32')
    engine, start = started('torch', symbol, shape, params)
    start()
    engine.step(batches(shape)[0], seed=0)
    other, _ = started('torch', symbol, shape, params, Arithmetic(channels_last=True))
    other.start(optimizer(symbol), *engine.parameters(), engine.optimizer_state())
    momenta = [state['moving'] for parameter, state in other._optimizer.state.items() if parameter.dim() == 4]
    assert all(moving.is_contiguous(memory_format=torch.channels_last) for moving in momenta)
    assert momenta
    assert_same_state(other.optimizer_state(), engine.optimizer_state())


def assert_same_state(found, expected):
    assert found[0] == expected[0]
    for name, state in expected[1].items():
        # A momentum stands for the same whatever rate it is scaled by.
        mine, other = (
            part[0].asnumpy() / part[1] if isinstance(part, list) else part.asnumpy()
            for part in (found[1][name], state)
        )
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-7, err_msg=name)


def test_tf32_is_off_unless_allowed():
    symbol, shape = small_network('vgg')
    for allowed in (True, False):
        started('torch', symbol, shape, None, Arithmetic(allow_tf32=allowed))
        assert torch.backends.cuda.matmul.allow_tf32 == torch.backends.cudnn.allow_tf32 == allowed


def test_what_a_device_cannot_do_is_refused(monkeypatch):
    with pytest.raises(UserError, match='needs a card'):
        TorchEngine.check(None, Arithmetic(cuda_graphs='on'))
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: (7, 0))
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda device: 'an older card')
    with pytest.raises(UserError, match='an older card has none; take float16'):
        TorchEngine.check('0', Arithmetic(dtype='bfloat16'))
    assert TorchEngine.check('0', Arithmetic()) == torch.device('cuda', 0)
