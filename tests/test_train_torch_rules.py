"""Every rule for λ, and label smoothing, through both engines: the same λ after each step, the same gradients."""

import numpy as np
import pytest
from helpers.mxnet_twin import BATCH, random_images, random_params, small_network, smooth

from graphs.losses import smoothed
from optimizers import rules
from runtime import mx
from train.engines.mxnet import MXNetEngine

torch = pytest.importorskip('torch')

from train.engines.torch import TorchEngine  # noqa: E402  (needs PyTorch)

STEPS = 6
CLASSES = 10
TOLERANCE = 1e-4  # of the largest value: rounding in float32, over six steps


def optimizer(rule, symbol, **settings):
    made = rules.create(rule, symbol, rescale_grad=1 / BATCH, param_idx2name={}, **settings)
    made.set_wd_mult({name: 0.0 for name in symbol.list_arguments() if not name.endswith(('_weight', '_gamma'))})
    return made


def engines(symbol, shape, rule, **settings):
    """(MXNet's engine, PyTorch's) with the same parameters and optimizer."""
    data, label = [mx.io.DataDesc('data', (BATCH, *shape))], [mx.io.DataDesc('softmax_label', (BATCH,))]
    params = random_params(symbol, shape, 'float32')
    made = MXNetEngine(symbol, [mx.cpu()], data, label), TorchEngine(symbol, None, data, label)
    for engine in made:
        engine.start(optimizer(rule, symbol, **settings), *params)
    return made


def batches(shape):
    for step in range(STEPS):
        images, labels = random_images(shape, 'float32', seed=step)
        yield mx.io.DataBatch([mx.nd.array(images)], [mx.nd.array(labels)], pad=0)


def assert_close(found, expected, what):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(
            found[name], value, rtol=0, atol=TOLERANCE * max(np.abs(value).max(), 1e-2), err_msg=f'{name}, {what}'
        )


def arrays(engine):
    arguments, _ = engine.parameters()
    return {name: value.asnumpy() for name, value in arguments.items()}


@pytest.mark.parametrize('momentum', [0.9, 0.0])
@pytest.mark.parametrize('rule', sorted(rules.RULES))
def test_lambda_is_that_of_mxnet_after_every_step(rule, momentum):
    symbol, shape = small_network('resnet')
    symbol = smooth(symbol)
    schedule = {'lr_scheduler': mx.lr_scheduler.MultiFactorScheduler([3, 5], 0.5, 0.05), 'learning_rate': 0.05}
    mxnet, pytorch = engines(symbol, shape, rule, gamma=2.0, momentum=momentum, wd=1e-3, clip_gradient=1.0, **schedule)
    before, moved = mxnet.lambdas(), False
    for engine in (mxnet, pytorch):
        engine.note_importance(True)
    for number, batch in enumerate(batches(shape)):
        if number == 2:  # as --gamma-weight and a budget do
            bounds = {
                name: np.where(np.arange(value.size) % 2, np.inf, 0.0).reshape(value.shape).astype(np.float32)
                for name, value in before.items()
            }
            for engine in (mxnet, pytorch):
                engine.set_gamma(
                    1.0,
                    {name: np.linspace(0.5, 1, value.size).reshape(value.shape) for name, value in before.items()}
                    if rule in ('apg', 'ista')
                    else None,
                )
                engine.set_bounds(bounds)
        expected = mxnet.step(batch, seed=0)
        np.testing.assert_allclose(np.array(pytorch.step(batch, seed=0)), expected, atol=TOLERANCE)
        assert_close(pytorch.lambdas(), mxnet.lambdas(), f'step {number}')
        moved |= any((value != before[name]).any() for name, value in mxnet.lambdas().items())
    assert moved
    assert any((value == 0).any() for value in mxnet.lambdas().values()), 'the bounds hold'
    assert_close(pytorch.importance(), mxnet.importance(), 'importance')
    assert_close(arrays(pytorch), arrays(mxnet), 'the end')


@pytest.mark.parametrize('amount', [0.0, 0.1, 0.5])
def test_label_smoothing_has_the_loss_and_the_gradients_of_mxnet(amount):
    symbol, shape = small_network('resnet')
    symbol = smoothed(smooth(symbol), amount, CLASSES)
    rate = 1.0  # a weight changes by its gradient
    mxnet, pytorch = engines(symbol, shape, 'apg', gamma=0.0, momentum=0.0, learning_rate=rate)
    before, batch = arrays(mxnet), next(batches(shape))
    probabilities = mxnet.step(batch, seed=0)
    np.testing.assert_allclose(np.array(pytorch.step(batch, seed=0)), probabilities, atol=TOLERANCE)

    labels = batch.label[0].asnumpy().astype(int)
    targets = np.full((BATCH, CLASSES), amount / CLASSES)
    targets[np.arange(BATCH), labels] += 1 - amount
    # PyTorch has the loss as a number, MXNet its gradients alone; logarithms of probabilities are logits too.
    loss = pytorch._net.loss(torch.from_numpy(np.log(probabilities.astype(np.float64))), torch.from_numpy(labels))
    assert float(loss) == pytest.approx(-(targets * np.log(probabilities)).sum(), rel=1e-6)

    gradients = [
        {name: (before[name] - value) / rate for name, value in arrays(engine).items()} for engine in (mxnet, pytorch)
    ]
    assert_close(gradients[1], gradients[0], 'gradient')
    for gradient in gradients:
        np.testing.assert_allclose(gradient['fc1_bias'], (probabilities - targets).mean(axis=0), atol=1e-4)
