"""What a block contributes, held against the loss of the network from which strip has really removed it."""

import logging

import numpy as np
import pytest
from helpers.tiny_runs import save_network

from formats.symbol_file import load_symbol
from graphs.strip import strip
from optimizers import APG
from runtime import mx
from train.contribution import contributions
from train.data.iterators import SyntheticIterator
from train.engines.mxnet import MXNetEngine
from train.metrics import Tally
from train.resizing import ResizableEngine

SHAPE = (3, 8, 8)


def cross_entropy(symbol, args, aux, images, labels):
    """The loss of a network in training, by a plain executor of MXNet. With gradients: without them, MXNet fuses batch
    normalisation into convolutions, by the moving statistics.
    """
    arrays = {**args, 'data': mx.nd.array(images), 'softmax_label': mx.nd.array(labels)}
    arrays = {name: arrays[name] for name in symbol.list_arguments()}
    gradients = {name: array.zeros_like() for name, array in arrays.items()}
    states = {name: array.copy() for name, array in aux.items()}
    probabilities = symbol.bind(mx.cpu(), arrays, gradients, aux_states=states).forward(is_train=True)[0].asnumpy()
    return float(-np.log(probabilities[np.arange(len(labels)), labels.astype(int)]).mean())


@pytest.fixture
def engine(tmp_path):
    symbol = load_symbol(save_network(tmp_path, kinds=('block', 'neuron')))
    data = SyntheticIterator(16, SHAPE, 10, 64)
    names = [name for name in symbol.list_arguments() if name not in ('data', 'softmax_label')]
    made = ResizableEngine(
        symbol,
        {'data': (1, *SHAPE)},
        lambda smaller: MXNetEngine(smaller, [mx.cpu()], data.provide_data, data.provide_label),
        lambda smaller: APG(
            learning_rate=0.05, gamma=0.01, rescale_grad=1 / 16, param_idx2name=dict(enumerate(names)), sym=smaller
        ),
    )
    made.seed(0)
    made.start()
    made.note_importance(True)
    for batch in data:
        made.step(batch, seed=0)
    data.reset()
    return symbol, made, data


def test_a_block_contributes_what_the_loss_rises_without_it(engine):
    symbol, made, data = engine
    before = made.lambdas()
    frozen = {name: np.zeros(values.shape, bool) for name, values in before.items()}
    found = contributions(made, symbol, frozen, data, 4, lambda: Tally(0))
    args, aux = made.parameters()
    batch = data._batch(0)  # the same noise every time
    images, labels = batch.data[0].asnumpy(), batch.label[0].asnumpy()
    whole = cross_entropy(symbol, args, aux, images, labels)
    for block in range(2):
        values = before['lambda_block'].copy()
        values[block] = 0
        stripped = strip(
            symbol, {**args, 'lambda_block': mx.nd.array(values)}, aux, {'data': (1, *SHAPE)}, for_training=True
        )
        rise = cross_entropy(stripped.symbol, stripped.arg_params, stripped.aux_params, images, labels) - whole
        assert found['lambda_block'][block] == pytest.approx(rise, rel=1e-3, abs=1e-5)
    assert np.abs(found['lambda_block']).max() > 1e-3
    for name, values in made.lambdas().items():
        np.testing.assert_array_equal(values, before[name])
    for name, values in made.parameters()[1].items():
        np.testing.assert_array_equal(values.asnumpy(), aux[name].asnumpy(), err_msg=name)


def test_channels_contribute_by_their_gradients_and_dead_blocks_nothing(engine, caplog):
    symbol, made, data = engine
    caplog.set_level(logging.INFO)
    frozen = {name: np.zeros(values.shape, bool) for name, values in made.lambdas().items()}
    frozen['lambda_block'][0] = True
    found = contributions(made, symbol, frozen, data, 4, lambda: Tally(0))
    assert found['lambda_block'][0] == 0
    assert f'on 64 training images rises by: – {found["lambda_block"][1]:.3f}' in caplog.text
    channels = found['lambda_stage1_unit1_conv1']
    assert (channels >= 0).all()
    assert channels.any()
