"""λ in Gluon: a block of the user's own, and ours as blocks, trained by gluon.Trainer in a loop of the test's own."""

import warnings

import numpy as np
import pytest
from helpers.strip_networks import predict

import optimizers  # noqa: F401  (registers apg)
from formats.checkpoint_files import load_checkpoint
from graphs.complexity import complexity
from interop.gluon_zoo import zoo_network
from runtime import mx
from runtime.errors import GraphError
from symbols import NETWORKS
from symbols.blocks import as_block, scaled_block

gluon, nn = mx.gluon, mx.gluon.nn
SMALL = (3, 16, 16)
DEPTHS = {'resnet': 20, 'resnet-v1': 20, 'resnext': 20, 'vgg': 16}


def batch(shape=SMALL, count=4, classes=10):
    random = np.random.RandomState(0)
    images, labels = random.normal(size=(count, *shape)), random.randint(classes, size=count)
    return mx.nd.array(images), mx.nd.array(labels)


def small_block(classes=10):
    """Two convolutions; only the first may lose channels to the sum behind it."""

    class Unit(gluon.HybridBlock):
        def __init__(self, width, **options):
            super().__init__(**options)
            with self.name_scope():
                self.body = nn.HybridSequential()
                self.body.add(nn.Conv2D(width, 3, padding=1, use_bias=False), nn.BatchNorm(), nn.Activation('relu'))
                self.body.add(nn.Conv2D(width, 3, padding=1, use_bias=False), nn.BatchNorm())

        def hybrid_forward(self, F, x):
            return F.relu(self.body(x) + x)

    net = nn.HybridSequential()
    net.add(nn.Conv2D(8, 3, padding=1, use_bias=False), Unit(8), nn.GlobalAvgPool2D(), nn.Flatten(), nn.Dense(classes))
    return net


def train(net, steps=1, gamma=0.01, rate=0.05, shape=SMALL, params=None):
    trainer = gluon.Trainer(
        params or net.collect_params(), 'apg', {'learning_rate': rate, 'gamma': gamma, 'momentum': 0.9, 'wd': 1e-4}
    )
    loss_of = gluon.loss.SoftmaxCrossEntropyLoss()
    images, labels = batch(shape)
    for _ in range(steps):
        with mx.autograd.record():
            loss = loss_of(net(images), labels)
        loss.backward()
        trainer.step(len(images))
    mx.nd.waitall()
    return float(loss.mean().asscalar())


def assert_strips(net, prefix, shape=SMALL):
    """Strip, load what was written by stock MXNet's format, and compare with the block itself."""
    images, _ = batch(shape)
    expected = net(images).asnumpy()
    proved = net.strip(str(prefix))
    found = predict(*load_checkpoint(str(prefix), 0), images.asnumpy())
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    return proved.report


def test_a_block_of_the_users_own(tmp_path):
    """The same function at first; then λ die, the report says how many, and they go."""
    block = small_block()
    block.initialize(mx.init.Xavier())
    images, _ = batch()
    expected = block(images).asnumpy()
    net = scaled_block(block, SMALL, ('channel', 'block'))
    assert (net(images).asnumpy() == expected).all()
    assert [(one.shape, one.wd_mult) for one in net.lambdas] == [((8,), 0), ((1,), 0)]
    assert net.report().startswith('9 of 9 structures alive; 100.0 % of the MACs')
    # The weights are the block's own: what trains one trains the other. λ loses about ηγ / (1 - μ) a step.
    before = block[0].weight.data().asnumpy()
    train(net, steps=6, gamma=0.0)
    assert (block[0].weight.data().asnumpy() != before).any()
    assert (net.lambdas[0].data().asnumpy() != 1).any()
    train(net, steps=12, gamma=2.0, rate=0.03)
    alive = [int((one.data().asnumpy() != 0).sum()) for one in net.lambdas]
    assert sum(alive) < 9
    net.lambdas[1].set_data(mx.nd.ones((1,)))
    net.lambdas[0].set_data(mx.nd.array([0, 1, 0, 1, 1, 0, 1, 1]))
    report = assert_strips(net, tmp_path / 'smaller')
    macs = 16 * 16 * 9 * (3 * 8 + 2 * 8 * 5) + 80
    assert report['after']['macs'] == macs
    assert net.report().startswith('6 of 9 structures alive')
    assert f'({macs:,} of ' in net.report()


def test_a_block_that_is_initialised_later(tmp_path):
    net = scaled_block(zoo_network('cifar_resnet20_v1'), (3, 32, 32))
    net.initialize(mx.init.Xavier())
    net.hybridize()
    assert all((one.data().asnumpy() == 1).all() for one in net.lambdas)
    train(net, shape=(3, 32, 32))
    net.lambdas[0].set_data(mx.nd.zeros(net.lambdas[0].shape))
    report = assert_strips(net, tmp_path / 'smaller', (3, 32, 32))
    assert report['after']['macs'] < report['before']['macs']


def test_what_it_exports_is_a_checkpoint(tmp_path):
    """Gluon's own export, for the tools."""
    net = scaled_block(small_block(), SMALL)
    net.initialize(mx.init.Xavier())
    images, _ = batch()
    expected = net(images).asnumpy()
    net.export(str(tmp_path / 'net'))
    symbol, arg_params, aux_params = load_checkpoint(str(tmp_path / 'net'), 0)
    assert 'lambda' in ' '.join(arg_params)
    found = predict(symbol, arg_params, aux_params, images.asnumpy())
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize('family', NETWORKS)
def test_our_families_as_blocks(family, tmp_path):
    scale = {'resnext': 'block,group', 'vgg': 'channel'}.get(family, 'block,channel')
    shape = (3, 32, 32) if family == 'vgg' else SMALL
    net = as_block(family, DEPTHS[family], 10, shape, scale)
    net.initialize(mx.init.Xavier())
    images, _ = batch(shape)
    assert net(images).shape == (4, 10)
    assert net._full.macs == complexity(net.symbol, {'data': (1, *shape)}).macs
    before = {name: parameter.data().asnumpy() for name, parameter in net.params.items()}
    train(net, shape=shape)
    assert all((one.data().asnumpy() != before[one.name]).any() for one in net.lambdas)
    random = np.random.RandomState(1)
    for one in net.lambdas:
        dead = random.uniform(size=one.shape) < 0.4
        dead.flat[0] = False
        one.set_data(mx.nd.array(np.where(dead, 0, one.data().asnumpy())))
    report = assert_strips(net, tmp_path / 'smaller', shape)
    assert report['after']['macs'] < report['before']['macs']
    assert f'({report["after"]["macs"]:,} of {report["before"]["macs"]:,})' in net.report()


@pytest.mark.parametrize(('gamma', 'has_lambda', 'count'), [(0.01, False, 1), (0.0, False, 0), (0.01, True, 0)])
def test_apg_warns_once_of_a_block_without_lambda(gamma, has_lambda, count):
    block = small_block()
    block.initialize(mx.init.Xavier())
    net = scaled_block(block, SMALL) if has_lambda else block
    assert not has_lambda or net.report().startswith('8 of 8')  # before it has seen any image
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        train(net, steps=3, gamma=gamma)
    assert len([one for one in said if "'lambda' in its name" in str(one.message)]) == count


def test_mistakes():
    class Two(gluon.HybridBlock):
        def hybrid_forward(self, F, x):
            return x, F.relu(x)

    with pytest.raises(GraphError, match='several outputs'):
        scaled_block(Two(), SMALL)
    with pytest.raises(GraphError, match='no structure of the kinds group'):
        scaled_block(small_block(), SMALL, ('group',))
    scaled = scaled_block(small_block(), SMALL)
    with pytest.raises(GraphError, match='has λ already'):
        scaled_block(scaled, SMALL)


def test_an_excluded_layer():
    block = small_block()
    name = block[1].body[0].name
    with pytest.raises(GraphError, match='no structure'):
        scaled_block(block, SMALL, exclude=[name])
