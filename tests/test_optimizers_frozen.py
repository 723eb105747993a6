"""With --freeze-dead no λ comes back and the MACs alive never rise, whatever the gradients are: every rule for λ, both
engines, every kvstore that runs in one process.
"""

from types import SimpleNamespace

import numpy as np
import pytest
from helpers.strip_networks import SHAPES, random_parameters, small
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs.alive import AliveCounter
from graphs.scaled_parameters import scaled_parameters
from optimizers import rules
from runtime import mx
from train.selection import Selection

SYMBOL = small('resnext', 'weight')  # blocks, and rows of groups
COUNT = AliveCounter(SYMBOL, SHAPES)
FACTORS = scaled_parameters(SYMBOL)
START = {
    name: array.asnumpy() for name, array in random_parameters(SYMBOL)[0].items() if 'lambda' in name or name in FACTORS
}
LAMBDAS = [name for name in START if 'lambda' in name]


class Updater:
    """MXNet's updater on one device; keys are names."""

    devices = 1

    def __init__(self, optimizer, start):
        self.optimizer, self.arrays = optimizer, {name: [mx.nd.array(array)] for name, array in start.items()}
        self.update = mx.optimizer.get_updater(optimizer)

    def step(self, gradients):
        for name, arrays in self.arrays.items():
            self.update(name, mx.nd.array(gradients[name]), arrays[0])

    def read(self, name):
        return self.arrays[name][0].asnumpy()

    def set_bounds(self, bounds):
        self.optimizer.bounds = {name: mx.nd.array(bound) for name, bound in bounds.items()}


class Store(Updater):
    """The optimizer inside a kvstore, which sums the gradients of several devices."""

    kind, devices = 'local', 1

    def __init__(self, optimizer, start):
        self.optimizer, self.store = optimizer, mx.kv.create(self.kind)
        self.store.set_optimizer(optimizer)
        self.arrays = {
            name: [mx.nd.array(array, mx.cpu(number)) for number in range(self.devices)]
            for name, array in start.items()
        }
        for name, arrays in self.arrays.items():
            self.store.init(name, arrays[0])

    def step(self, gradients):
        for name, arrays in self.arrays.items():
            self.store.push(name, [mx.nd.array(gradients[name] / len(arrays), array.context) for array in arrays])
            self.store.pull(name, out=arrays)


class LocalStoreOfTwo(Store):
    devices = 2


class DeviceStoreOfTwo(Store):
    kind, devices = 'device', 2


class UpdaterOfTwo(Store):
    """The store only sums, and an updater moves the parameters of each device; keys are numbers, as Module's are."""

    devices = 2

    def __init__(self, optimizer, start):
        super().__init__(optimizer, start)
        self.store = mx.kv.create(self.kind)
        for name, array in start.items():
            self.store.init(name, mx.nd.array(array))
        keys = [(name, number) for name in start for number in range(self.devices)]
        optimizer.idx2name = {key: name for key, (name, _) in enumerate(keys)}
        self.keys = {pair: key for key, pair in enumerate(keys)}
        self.update = mx.optimizer.get_updater(optimizer)

    def step(self, gradients):
        for name, arrays in self.arrays.items():
            sums = [mx.nd.array(gradients[name] / len(arrays), array.context) for array in arrays]
            self.store.push(name, sums)
            self.store.pull(name, out=sums)
            for number, (array, gradient) in enumerate(zip(arrays, sums)):
                self.update(self.keys[name, number], gradient, array)


class Torch:
    """The optimizer of --engine torch."""

    def __init__(self, optimizer, start):
        torch = pytest.importorskip('torch')
        from optimizers.torch_apg import APG

        self.tensor = torch.tensor
        self.arrays = {name: torch.nn.Parameter(self.tensor(array)) for name, array in start.items()}
        self.optimizer = APG(
            self.arrays.items(),
            lr=optimizer.lr,
            gamma=optimizer.gamma,
            momentum=optimizer.momentum,
            rule=optimizer.rule,
            structures=getattr(optimizer, 'structures', None),
        )

    def step(self, gradients):
        for name, parameter in self.arrays.items():
            parameter.grad = self.tensor(gradients[name])
        self.optimizer.step()

    def read(self, name):
        return self.arrays[name].detach().numpy().copy()

    def set_bounds(self, bounds):
        self.optimizer.bounds = {name: self.tensor(bound) for name, bound in bounds.items()}


WAYS = [Updater, Store, LocalStoreOfTwo, DeviceStoreOfTwo, UpdaterOfTwo, Torch]


def selection(gamma):
    args = SimpleNamespace(
        target_macs=None,
        target_params=None,
        freeze_dead=True,
        optimizer='apg',
        gamma=gamma,
        gamma_weight='none',
        num_epochs=9,
    )
    return Selection(args, SYMBOL, SHAPES)


def with_zeros(rule, dead):
    """The parameters at the start, with what makes each structure of ``dead`` (dict name of λ → mask) dead."""
    start = {name: array.copy() for name, array in START.items()}
    for name, mask in dead.items():
        if rule != 'group-lasso':
            start[name][mask] = 0
            continue
        for parameter, factors in FACTORS.items():
            if name in factors:
                start[parameter][mask.reshape(-1)[factors[name]]] = 0
    return start


def random_gradients(seed, scale, shift):
    """Normal numbers of one scale, all pushed the same way; for some seeds they are 0."""
    random = np.random.RandomState(seed)
    return {
        name: (scale * (random.normal(size=array.shape) + shift) * (random.uniform() < 0.9)).astype(np.float32)
        for name, array in START.items()
    }


EPOCHS = st.lists(
    st.lists(
        st.tuples(st.integers(0, 2**31 - 1), st.sampled_from([0.01, 1.0, 100.0]), st.sampled_from([-2.0, 0.0, 2.0])),
        min_size=1,
        max_size=3,
    ),
    min_size=2,
    max_size=4,
)


@pytest.mark.parametrize('way', WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize('rule', sorted(rules.RULES))
@settings(max_examples=5)
@given(
    epochs=EPOCHS,
    gamma=st.sampled_from([0.0, 0.1, 3.0]),
    momentum=st.sampled_from([0.0, 0.9]),
    seed=st.integers(0, 2**31 - 1),
)
def test_no_lambda_comes_back_and_macs_never_rise(rule, way, epochs, gamma, momentum, seed):
    random, chosen = np.random.RandomState(seed), selection(gamma)
    dead = {name: random.uniform(size=START[name].shape) < 0.3 for name in LAMBDAS}
    optimizer = rules.create(rule, SYMBOL, gamma=gamma, momentum=momentum, learning_rate=0.1, param_idx2name={})
    moved = way(optimizer, with_zeros(rule, dead))
    macs = np.inf
    for epoch, steps in enumerate([[], *epochs]):
        for step in steps:
            moved.step(random_gradients(*step))
        # A kvstore that is dropped while its updates are on the way crashes the process.
        mx.nd.waitall()
        lambdas = optimizer.magnitudes(LAMBDAS, moved.read)
        for name, mask in chosen.frozen.items():
            assert not lambdas[name][mask].any(), f'{name} came back'
            assert not np.signbit(lambdas[name][mask]).any(), 'a zero is +0, so that all its bytes are 0'
        now = COUNT({name: values != 0 for name, values in lambdas.items()}).macs
        assert now <= macs
        macs = now
        chosen.end_epoch(epoch, lambdas, measure=None)
        moved.set_bounds(chosen.bounds(0.0))
    assert all((chosen.frozen[name] >= mask).all() for name, mask in dead.items())


@pytest.mark.parametrize('way', WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize('rule', sorted(rules.RULES))
def test_what_is_not_frozen_moves(rule, way):
    """Otherwise the test above would hold for an optimizer that does nothing."""
    optimizer = rules.create(rule, SYMBOL, gamma=0.1, momentum=0.9, learning_rate=0.1, param_idx2name={})
    moved = way(optimizer, START)
    moved.step(random_gradients(1, 1.0, 2.0))
    for name in LAMBDAS if rule != 'group-lasso' else FACTORS:
        assert (moved.read(name) != START[name]).any()
