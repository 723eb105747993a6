"""APG in PyTorch against APG in MXNet, step by step, and with states that change engines in mid-run."""

import numpy as np
import pytest

from optimizers import APG as MXNetAPG
from runtime import mx
from runtime.errors import CheckpointError, UserError

torch = pytest.importorskip('torch')

from optimizers.torch_apg import APG  # noqa: E402  (needs PyTorch)

SHAPES = {
    'conv0_weight': (4, 3, 3, 3),
    'bn0_gamma': (4,),
    'bn0_beta': (4,),
    'fc1_weight': (5, 4),
    'fc1_bias': (5,),
    'lambda_block': (6,),
    'lambda_group': (3, 4),
}
# MXNet holds its settings in single precision; these lose nothing by it.
ETAS = [2**-3, 2**-3, 2**-6, 2**-6, 0.0, 2**-7, 2**-7]
EXACT = {'gamma': 2**-6, 'momentum': 0.875}


def start(seed=0):
    random = np.random.RandomState(seed)
    return {
        name: random.uniform(0, 0.3, shape) if 'lambda' in name else random.standard_normal(shape)
        for name, shape in SHAPES.items()
    }


def gradients(step):
    random = np.random.RandomState(100 + step)
    return {name: 3 * random.standard_normal(shape) for name, shape in SHAPES.items()}


class InMXNet:
    """The optimizer of the project with all parameters, driven by an Updater."""

    def __init__(self, values, dtype, wd_mult=None, lr_mult=None, **settings):
        self.names = list(values)
        self.arrays = {name: mx.nd.array(value, dtype=dtype) for name, value in values.items()}
        self.optimizer = MXNetAPG(param_idx2name=dict(enumerate(self.names)), **{**EXACT, **settings})
        self.optimizer.set_wd_mult(wd_mult or {})
        self.optimizer.set_lr_mult(lr_mult or {})
        self.optimizer.wd_mult.update({name: 0.0 for name in self.names if 'lambda' in name})
        self.updater = mx.optimizer.get_updater(self.optimizer)

    def step(self, index, eta):
        self.optimizer.lr = eta
        for key, (name, gradient) in enumerate(gradients(index).items()):
            self.updater(key, mx.nd.array(gradient, dtype=self.arrays[name].dtype), self.arrays[name])

    def values(self):
        return {name: array.asnumpy() for name, array in self.arrays.items()}

    def states(self):
        return {self.names[key]: state for key, state in self.updater.states.items()}


class InTorch:
    """The same in PyTorch."""

    def __init__(self, values, dtype, **settings):
        self.parameters = {
            name: torch.nn.Parameter(torch.tensor(value, dtype=getattr(torch, dtype))) for name, value in values.items()
        }
        self.optimizer = APG(self.parameters.items(), **{**EXACT, **settings})

    def step(self, index, eta):
        for group in self.optimizer.param_groups:
            group['lr'] = eta
        for name, gradient in gradients(index).items():
            self.parameters[name].grad = torch.tensor(gradient, dtype=self.parameters[name].dtype)
        self.optimizer.step()

    def values(self):
        return {name: parameter.detach().numpy() for name, parameter in self.parameters.items()}


def assert_same(found, expected, tolerance):
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=tolerance, atol=tolerance, err_msg=name)


GRID = [
    {},
    {'wd': 2**-7},
    {'momentum': 0.0},
    {'momentum': 0.0, 'wd': 2**-7},
    {'gamma': 0.0},
    {'gamma': 0.5},
    {'nonnegative': False, 'gamma': 2**-3},
    {'rescale_grad': 0.25},
    {'clip_gradient': 0.5, 'wd': 2**-7},
    {'clip_gradient': 0.5, 'rescale_grad': 0.25, 'wd': 2**-7, 'momentum': 0.5},
    {
        'wd': 2**-7,
        'wd_mult': {'fc1_weight': 0.0, 'fc1_bias': 2.0},
        'lr_mult': {'conv0_weight': 0.5, 'lambda_block': 2.0},
    },
]


@pytest.mark.parametrize('settings', GRID, ids=str)
@pytest.mark.parametrize(('dtype', 'tolerance'), [('float64', 1e-9), ('float32', 1e-5)])
def test_every_step_is_mxnets(settings, dtype, tolerance):
    theirs, ours = InMXNet(start(), dtype, **settings), InTorch(start(), dtype, **settings)
    for index, eta in enumerate(ETAS):
        theirs.step(index, eta)
        ours.step(index, eta)
        assert_same(ours.values(), theirs.values(), tolerance)
    if settings.get('nonnegative', True) and settings.get('gamma') != 0:
        assert (ours.values()['lambda_group'] == 0).any()


@pytest.mark.parametrize('settings', [{'wd': 2**-7}, {'momentum': 0.0}], ids=str)
def test_states_go_from_mxnet_to_pytorch_and_back(settings):
    straight = InMXNet(start(), 'float64', **settings)
    for index, eta in enumerate(ETAS):
        straight.step(index, eta)
    first = InMXNet(start(), 'float64', **settings)
    for index in (0, 1, 2):
        first.step(index, ETAS[index])
    second = InTorch(first.values(), 'float64', lr=ETAS[2], **settings)
    second.optimizer.load_mxnet_state(first.states())
    for index in (3, 4):
        second.step(index, ETAS[index])
    third = InMXNet(second.values(), 'float64', **settings)
    states = second.optimizer.mxnet_state()
    third.updater.states.update({key: states[name] for key, name in enumerate(third.names)})
    third.updater.states_synced.update(dict.fromkeys(range(len(third.names)), True))
    for index in (5, 6):
        third.step(index, ETAS[index])
    assert_same(third.values(), straight.values(), 1e-9)


def test_the_state_of_a_fresh_optimizer_is_mxnets():
    states = InTorch(start(), 'float32', lr=0.1).optimizer.mxnet_state()
    assert set(states) == set(SHAPES)
    assert not states['lambda_block'].asnumpy().any()
    assert states['fc1_weight'][1] == 1
    assert not states['fc1_weight'][0].asnumpy().any()


def test_parameters_without_a_gradient_stay():
    ours = InTorch(start(), 'float64', wd=0.1)
    ours.optimizer.step()
    assert_same(ours.values(), start(), 0)


def test_gradients_are_left_as_they_are():
    ours = InTorch(start(), 'float64', wd=0.1, clip_gradient=0.1)
    ours.step(0, 0.1)
    assert_same({name: parameter.grad.numpy() for name, parameter in ours.parameters.items()}, gradients(0), 0)


def test_pytorchs_own_state_dict_resumes():
    straight, ours = (InTorch(start(), 'float64', wd=0.01) for _ in range(2))
    for index in range(4):
        straight.step(index, 0.1)
        if index < 2:
            ours.step(index, 0.1)
    resumed = InTorch(ours.values(), 'float64', wd=0.01)
    resumed.optimizer.load_state_dict(ours.optimizer.state_dict())
    for index in (2, 3):
        resumed.step(index, 0.1)
    assert_same(resumed.values(), straight.values(), 0)


@pytest.mark.parametrize(
    'settings', [{'gamma': -1}, {'gamma': float('nan')}, {'momentum': 1}, {'momentum': -0.1}], ids=str
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(UserError, match=next(iter(settings))):
        InTorch(start(), 'float32', **settings)


@pytest.mark.parametrize(
    ('name', 'state', 'message'),
    [
        ('lambda_block', mx.nd.zeros(7), 'lambda_block has shape'),
        ('fc1_weight', ([mx.nd.zeros((5, 4)), 1.0], mx.nd.zeros((5, 4))), 'half precision'),
    ],
)
def test_a_state_that_does_not_fit_is_named(name, state, message):
    with pytest.raises(CheckpointError, match=message):
        InTorch(start(), 'float32').optimizer.load_mxnet_state({name: state})
