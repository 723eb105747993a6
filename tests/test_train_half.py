"""Training in half precision on the CPU: λ goes its float32 way, small gradients do not vanish, what overflows is left
out, files stay float32.
"""

import json
import logging
from collections import deque
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.tiny_runs import BATCHES, IMAGE_SHAPE, NOISE, checkpoint, log_lines, refused, save_network, train

from formats.params_file import load_params
from graphs.half import half
from graphs.memonger import recomputed
from runtime import mx
from runtime.errors import TrainingError
from symbols import resnet
from symbols.layers import batch_norm, classifier, convolution, input_images, relu
from train.data.datasets import load_dataset, train_iterator
from train.engines import loss_scale
from train.engines.loss_scale import STATE, LossScale, first_scale
from train.engines.mxnet import MXNetEngine
from train.engines.mxnet_half import HalfEngine

BATCH = 32
DATA, LABEL = [mx.io.DataDesc('data', (BATCH, *IMAGE_SHAPE))], [mx.io.DataDesc('softmax_label', (BATCH,))]


def network(kinds=('block', 'neuron')):
    with mx.name.NameManager():
        return resnet.network((1, 1), (16, 32), resnet.bottleneck_unit, True, 10, IMAGE_SHAPE, kinds, 'weight')


def plain_network():
    with mx.name.NameManager():
        return classifier(
            relu(batch_norm(convolution(input_images(IMAGE_SHAPE), 3, 8, 3, 'conv0'), 8, 'bn0'), 'relu0'), 10
        )


def optimizer(symbol, gamma=0.02, **settings):
    return mx.optimizer.create(
        'apg',
        **{
            'gamma': gamma,
            'momentum': 0.9,
            'wd': 1e-4,
            'learning_rate': 0.05,
            'rescale_grad': 1 / BATCH,
            'sym': symbol,
            'param_idx2name': {},
            **settings,
        },
    )


def single(symbol):
    return MXNetEngine(symbol, [mx.cpu()], DATA, LABEL)


def halved(symbol, devices=1, change=lambda symbol: symbol):
    return HalfEngine(
        change(half(symbol, wide_products=True)), [mx.cpu(number) for number in range(devices)], DATA, LABEL
    )


def started(engine, symbol, parameters=None, **settings):
    engine.seed(3)
    engine.start(optimizer(symbol, **settings), *(parameters or ()))
    return engine


def batches(count):
    """Handwritten digits, shuffled and shifted."""
    images = train_iterator(load_dataset('digits', image_shape=IMAGE_SHAPE), BATCH, seed=1)
    found, epoch = [], 0
    while len(found) < count:
        images.set_epoch(epoch)
        found, epoch = found + list(images), epoch + 1
    return found[:count]


def in_numpy(arrays):
    return {name: array.asnumpy() for name, array in arrays.items()}


def path_of_lambda(engine, data):
    """λ after each step, (steps, number of λ)."""
    path = []
    for batch in data:
        engine.step(batch, seed=0)
        path.append(np.concatenate([values.ravel() for _, values in sorted(engine.lambdas().items())]))
    return np.array(path)


@pytest.mark.parametrize(('gamma', 'end'), [(0.18, 0.25), (0.25, 0.0)])
def test_lambda_goes_the_way_of_single_precision(gamma, end):
    """26 λ over 50 steps, in which they go from 1 to about a quarter, or to 0: within 0.02 each and 0.002 in the mean.

    Training is chaotic, so that no rounding is without consequences: a float32 run whose first weights alone are
    rounded to float16 leaves its way as far.
    """
    symbol, data, settings = network(), batches(50), {'gamma': gamma, 'learning_rate': 0.01}
    one = started(single(symbol), symbol, **settings)
    rounded = [
        {name: value.astype('float16').astype('float32') for name, value in params.items()}
        for params in one.parameters()
    ]
    expected = path_of_lambda(one, data)
    twin = path_of_lambda(started(single(symbol), symbol, rounded, **settings), data)
    found = path_of_lambda(started(halved(symbol), symbol, **settings), data)
    assert found.dtype == np.float32
    assert expected[-1].mean() == pytest.approx(end, abs=0.02)
    np.testing.assert_allclose(found, expected, atol=0.02)
    assert np.abs(found - expected).mean() < min(0.002, 4 * np.abs(twin - expected).mean())


def test_what_the_optimizer_sees_is_single_precision():
    symbol = network()
    engine = started(halved(symbol), symbol)
    (batch,) = batches(1)
    assert engine.step(batch, seed=0).dtype == np.float32
    group = engine._module._exec_group
    assert {array.dtype for arrays in group.param_arrays + group.grad_arrays for array in arrays} == {np.float32}
    arg_params, aux_params = engine.parameters()
    assert {array.dtype for array in [*arg_params.values(), *aux_params.values()]} == {np.float32}
    assert set(arg_params) == set(symbol.list_arguments()) - {'data', 'softmax_label'}
    _, states = engine.optimizer_state()
    assert {state.dtype for name, state in states.items() if 'lambda' in name} == {np.float32}
    assert states[STATE] == [2048.0, 1.0, 0.0]


def vanishing():
    """(symbol, parameters) whose gradients below the classifier are of the order of 1e-8, below what float16 has."""
    symbol = plain_network()
    arg_params, aux_params = started(single(symbol), symbol).parameters()
    arg_params['fc1_weight'] *= 1e-6
    return symbol, (arg_params, aux_params)


def gradient_of(engine, symbol, parameters, name='conv0_weight'):
    started(engine, symbol, parameters)
    engine._gradients(batches(1)[0])
    group = engine._module._exec_group
    return group.grad_arrays[group.param_names.index(name)][0].asnumpy()


def test_small_gradients_vanish_unless_the_loss_is_scaled(monkeypatch):
    symbol, parameters = vanishing()
    expected = gradient_of(single(symbol), symbol, parameters)
    assert 0 < np.abs(expected).max() < 1e-5
    found = gradient_of(halved(symbol), symbol, parameters)
    np.testing.assert_allclose(found, expected, atol=0.1 * np.abs(expected).max())
    monkeypatch.setattr(loss_scale, 'FIRST', float(BATCH))
    lost = gradient_of(halved(symbol), symbol, parameters)
    assert np.abs(lost - expected).max() > 0.5 * np.abs(expected).max()


def overflowing(symbol, **known):
    engine = started(halved(symbol, **known), symbol)
    engine._scale.state = [2.0**22, 7.0, 0.0]
    return engine


def test_a_step_that_overflows_is_left_out_and_said(caplog):
    symbol, data = network(), batches(3)
    engine = overflowing(symbol)
    before = in_numpy(engine.parameters()[0])
    with caplog.at_level(logging.INFO):
        engine.step(data[0], seed=0)
    assert caplog.messages == [
        'Gradients overflow float16: the step is left out, 1 so far; the loss is now scaled by 2.09715e+06'
    ]
    for name, value in in_numpy(engine.parameters()[0]).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    assert engine.optimizer_state()[0] == 1, 'the schedule goes on'
    while engine._scale.skipped < 30 and engine._scale.state[1] == 0:
        engine.step(data[1], seed=0)
    left_out = engine._scale.skipped
    assert left_out > 1
    assert engine.optimizer_state()[0] == left_out + 1
    assert any((value != before[name]).any() for name, value in in_numpy(engine.parameters()[0]).items())


def test_where_others_wait_a_step_that_overflows_gives_zeros():
    symbol = network()
    engine = overflowing(symbol)
    engine._group = SimpleNamespace(size=2)
    assert engine._gradients(batches(1)[0])
    assert not any(array.asnumpy().any() for arrays in engine._module._exec_group.grad_arrays for array in arrays)
    assert engine._scale.skipped == 1


def test_the_scale_falls_at_once_and_rises_with_patience(monkeypatch):
    monkeypatch.setattr(loss_scale, 'PATIENCE', 3)
    scale = LossScale(64)
    assert scale.value == 1024
    followed = []
    for are_finite in [False, True, True, True, True, True, True, False, True]:
        scale.learn(are_finite)
        followed.append(scale.value)
    assert followed == [512, 512, 512, 1024, 1024, 1024, 2048, 1024, 1024]
    again = LossScale(64)
    again.state = scale.state
    assert (again.state, again.skipped) == (scale.state, 2)


def test_no_scale_helps_a_network_that_overflows_anyhow():
    scale = LossScale(64)
    with pytest.raises(
        TrainingError, match=r'not finite in float16, even at the smallest loss scale \(25 steps skipped\); lower --lr'
    ):
        deque(map(scale.learn, [False] * 100))


@pytest.mark.parametrize('batch_size', [1, 48, 64, 100])
def test_scaling_rounds_nothing(batch_size):
    mantissa, _ = np.frexp(first_scale(batch_size))
    assert mantissa == 0.5
    assert 0.5 < first_scale(batch_size) * batch_size / 2**16 <= 1


def test_several_devices_and_recomputation_change_nothing_but_rounding():
    symbol, data = plain_network(), batches(4)
    expected = started(halved(symbol), symbol)
    again = started(halved(symbol, change=recomputed), symbol)
    several = started(halved(symbol, devices=2), symbol)
    for batch in data:
        one, two, three = (engine.step(batch, seed=0) for engine in (expected, again, several))
        np.testing.assert_array_equal(two, one)
        np.testing.assert_allclose(three, one, atol=0.1)  # batch normalisation is by device
    assert several._scale.state == expected._scale.state
    np.testing.assert_array_equal(again.predict(data[0]), expected.predict(data[0]))


HALF = ['--dtype', 'float16']


def test_files_are_single_precision_and_a_run_may_change_its_type(tmp_path):
    network, prefix = save_network(tmp_path), tmp_path / 'run'
    assert train(network, prefix, *HALF, '--num-epochs', 1) == 0
    params = load_params(f'{prefix}-0001.params')
    assert {array.dtype for arrays in params for array in arrays.values()} == {np.float32}
    assert train(network, prefix, '--num-epochs', 2, '--resume') == 0
    assert train(network, prefix, *HALF, '--memonger', 1, '--num-epochs', 3, '--resume') == 0
    resumed = [line for line in log_lines(prefix) if 'Resumed after' in line]
    assert len(resumed) == 2


def scale_after(prefix):
    """The state of the scale in the manifest of the second epoch."""
    with open(f'{prefix}-0002.json', encoding='utf-8') as manifest:
        return json.load(manifest)['optimizer_state'][STATE]['list']


def test_a_resumed_run_goes_on_bit_for_bit(tmp_path, monkeypatch):
    """Across changes of the scale, which is part of the state."""
    monkeypatch.setattr(loss_scale, 'PATIENCE', BATCHES - 2)
    network = save_network(tmp_path)
    assert train(network, tmp_path / 'whole', *HALF, '--num-epochs', 2) == 0
    assert train(network, tmp_path / 'parts', *HALF, '--num-epochs', 1) == 0
    assert train(network, tmp_path / 'parts', *HALF, '--num-epochs', 2, '--resume') == 0
    assert checkpoint(tmp_path / 'parts', 2) == checkpoint(tmp_path / 'whole', 2)
    assert scale_after(tmp_path / 'parts') == scale_after(tmp_path / 'whole') == [4 * first_scale(BATCH), 4.0, 0.0]


def test_bfloat16_is_refused(tmp_path, capfd):
    line = refused(capfd, tmp_path, *NOISE, '--dtype', 'bfloat16', '--model-prefix', tmp_path / 'run')
    assert line.startswith('error: --dtype bfloat16 needs --engine torch')


def test_recomputation_is_mxnets(tmp_path, capfd):
    line = refused(capfd, tmp_path, *NOISE, '--engine', 'torch', '--memonger', 1, '--model-prefix', tmp_path / 'run')
    assert line == 'error: --memonger 1 needs --engine mxnet'


def test_a_loss_that_cannot_be_scaled_is_refused(tmp_path, capfd):
    scores = mx.sym.FullyConnected(mx.sym.Variable('data'), num_hidden=10)
    loss = mx.sym.SVMOutput(scores, mx.sym.Variable('softmax_label'))
    loss.save(str(tmp_path / 'other-symbol.json'))
    line = refused(capfd, tmp_path, '--network', tmp_path / 'other-symbol.json', '--optimizer', 'nag', *NOISE, *HALF)
    assert 'scales the loss of a SoftmaxOutput' in line
