"""Every rule for λ against a NumPy twin in float64, and what sets the rules apart in training."""

import numpy as np
import pytest
from helpers.apg_twin import Twin
from helpers.strip_networks import SHAPES, assert_same_function, random_parameters, small
from helpers.tiny_runs import checkpoint, log_lines, metrics, save_network, train

from formats.checkpoint_files import load_checkpoint
from graphs.scaled_parameters import scaled_parameters
from graphs.strip import strip
from optimizers import rules
from runtime import mx
from runtime.errors import GraphError
from symbols import get_symbol

STEPS = 12


class RuleTwin(Twin):
    """λ, or a weight in ``groups`` structures, under another rule than APG."""

    def __init__(self, rule, value, groups=1, **settings):
        super().__init__(value, True, **settings)
        self.rule, self.groups = rule, groups

    def _step_lambda(self, gradient, eta):
        getattr(self, self.rule)(gradient, eta)

    def ista(self, gradient, eta):
        z = self.value - eta * gradient
        self.value = np.maximum(
            np.sign(z) * np.maximum(np.abs(z) - eta * self.gamma, 0), 0 if self.nonnegative else -np.inf
        )

    def subgradient(self, gradient, eta):
        g = gradient + self.gamma * np.sign(self.value)
        self.moving = self.momentum * self.moving + g
        self.value = self.value - eta * (g + self.momentum * self.moving)

    def group_lasso(self, gradient, eta):
        z = self.value - eta * (gradient + self.wd * self.value)
        for part in np.split(z, self.groups):
            norm = np.linalg.norm(part)
            part *= max(1 - eta * self.gamma / norm, 0) if norm else 0
        self.moving = z - self.value + self.momentum * self.moving
        self.value = z + self.momentum * self.moving


def follow(optimizer, name, twin, shape, scale):
    """Move a parameter by ``optimizer`` and by ``twin`` along the same gradients, and compare every step."""
    updater, array = mx.optimizer.get_updater(optimizer), mx.nd.array(twin.value)
    random = np.random.default_rng(1)
    for step in range(STEPS):
        gradient = (scale * random.normal(size=shape)).astype(np.float32)
        eta = 0.3 if step < 7 else 0.03
        optimizer.lr = eta
        updater(name, mx.nd.array(gradient), array)
        np.testing.assert_allclose(array.asnumpy(), twin.step(gradient, eta), rtol=0, atol=3e-6)
    return array.asnumpy()


@pytest.mark.parametrize('clip', [None, 0.4])
@pytest.mark.parametrize('momentum', [0.0, 0.9])
@pytest.mark.parametrize('nonnegative', [True, False])
@pytest.mark.parametrize('rule', ['ista', 'subgradient'])
def test_lambda_rules_equal_their_twins(rule, momentum, nonnegative, clip):
    settings = {
        'gamma': 0.2,
        'momentum': momentum,
        'nonnegative': nonnegative,
        'clip_gradient': clip,
        'rescale_grad': 0.5,
    }
    start = np.random.default_rng(0).uniform(0.1, 0.5, 40).astype(np.float32)
    found = follow(rules.RULES[rule](**settings), 'lambda_block', RuleTwin(rule, start, **settings), start.shape, 1.0)
    if rule == 'subgradient':
        assert (found < 0).any()
        assert found.all()
    else:
        assert (found < 0).any() != nonnegative
        assert not found.all()


@pytest.mark.parametrize('momentum', [0.0, 0.9])
@pytest.mark.parametrize(('groups', 'gamma'), [(1, 6.0), (4, 2.0), (8, 1.0), (4, 0.0)])
def test_group_lasso_equals_its_twin(groups, gamma, momentum):
    settings = {'gamma': gamma, 'momentum': momentum, 'wd': 0.05, 'clip_gradient': 0.5, 'rescale_grad': 0.5}
    start = np.random.default_rng(0).normal(size=(8, 3, 1, 1)).astype(np.float32)
    optimizer = rules.GroupLasso(
        structures={'conv_weight': {'lambda_block': np.repeat(range(groups), 8 // groups)}}, **settings
    )
    found = follow(optimizer, 'conv_weight', RuleTwin('group_lasso', start, groups, **settings), start.shape, 0.3)
    assert (gamma > 0) == (not found.all())


def test_group_lasso_without_penalty_is_nag():
    settings = {'gamma': 0.0, 'momentum': 0.9, 'wd': 0.05}
    start = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    optimizer = rules.GroupLasso(
        structures={'conv_weight': {'lambda_block': np.zeros(4, int)}}, learning_rate=0.1, **settings
    )
    updater, array, twin = mx.optimizer.get_updater(optimizer), mx.nd.array(start), Twin(start, False, **settings)
    for gradient in np.random.default_rng(1).normal(size=(STEPS, 4, 3)):
        updater('conv_weight', mx.nd.array(gradient), array)
        np.testing.assert_allclose(array.asnumpy(), twin.step(gradient, 0.1), rtol=0, atol=3e-6)


def test_group_lasso_leaves_lambda_alone_and_moves_other_weights_as_ever():
    optimizer = rules.GroupLasso(structures={}, learning_rate=0.1, gamma=5.0, wd=0.1)
    updater, lambda_, weight = mx.optimizer.get_updater(optimizer), mx.nd.ones((3,)), mx.nd.ones((3,))
    twin = Twin(np.ones(3), False, wd=0.1)
    for _ in range(3):
        updater('lambda_block', mx.nd.ones((3,)), lambda_)
        updater('conv_weight', mx.nd.ones((3,)), weight)
        twin.step(np.ones(3), 0.1)
    np.testing.assert_array_equal(lambda_.asnumpy(), 1)
    np.testing.assert_allclose(weight.asnumpy(), twin.value, rtol=1e-5)


def test_nested_structures_shrink_from_the_inside():
    entries = {'lambda_group': np.array([0, 0, 1, 1]), 'lambda_neuron': np.arange(4)}
    optimizer = rules.GroupLasso(structures={'bn_gamma': entries}, learning_rate=1.0, gamma=1.0, momentum=0.0)
    weight = mx.nd.array([4.0, 5.0, 1.5, 0.5])
    mx.optimizer.get_updater(optimizer)('bn_gamma', mx.nd.zeros((4,)), weight)
    np.testing.assert_allclose(weight.asnumpy(), [3 * (1 - 1 / 5), 4 * (1 - 1 / 5), 0, 0], rtol=1e-6)


def test_numbers_whose_squares_are_zero_are_no_zeros():
    array = mx.nd.array([[3e-30], [4e-30]])
    np.testing.assert_allclose(rules.shrink_groups(array, 1, 2.5e-30).asnumpy(), [[1.5e-30], [2e-30]], rtol=1e-5)
    assert not rules.shrink_groups(array, 1, 6e-30).asnumpy().any()


@pytest.mark.parametrize('family', ['resnet', 'resnet-basic', 'resnet-v1', 'resnext', 'resnext-neuron', 'vgg'])
def test_what_lambda_multiplies_is_found(family):
    """With λ at 1 and the parameters of dead structures 0, the network computes what it computes with λ at 0, and
    strips to the same.
    """
    symbol = small(family, 'weight')
    arg_params, aux_params = random_parameters(symbol)
    random, dead, by_lambda, by_weight = np.random.RandomState(3), {}, dict(arg_params), dict(arg_params)
    for name in [name for name in arg_params if 'lambda' in name]:
        dead[name] = random.uniform(size=arg_params[name].shape) < 0.4
        by_weight[name] = mx.nd.ones(dead[name].shape)
        by_lambda[name] = mx.nd.array(~dead[name])
    for parameter, factors in scaled_parameters(symbol).items():
        array = by_weight[parameter].asnumpy()
        for name, entries in factors.items():
            array[dead[name].ravel()[entries]] = 0
        by_weight[parameter] = mx.nd.array(array)
    first, second = (strip(symbol, params, aux_params, SHAPES) for params in (by_lambda, by_weight))
    assert_same_function(symbol, by_lambda, aux_params, second)
    assert first.report['after'] == second.report['after']
    assert first.report['after']['macs'] < first.report['before']['macs']
    magnitudes = rules.GroupLasso(structures=scaled_parameters(symbol)).magnitudes(
        list(dead), lambda name: by_weight[name].asnumpy()
    )
    for name, mask in dead.items():
        assert not magnitudes[name][mask].any()
        assert magnitudes[name].any()
        assert (
            magnitudes[name][~mask].all() or family == 'resnext-neuron'
        )  # a group is dead, too, when all of its neurons are


def test_feature_maps_have_no_group_lasso():
    with pytest.raises(GraphError, match='--lambda-placement weight'):
        rules.create('group-lasso', get_symbol('resnet', 20, 10, '3,32,32', lambda_placement='output'))


# γ at which a block of the tiny network dies within five epochs, or none ever does.
@pytest.mark.parametrize(('rule', 'gamma'), [('ista', 3), ('subgradient', 0.3), ('group-lasso', 1)])
def test_the_trainer_follows_every_rule(tmp_path, rule, gamma):
    network, prefix = save_network(tmp_path), tmp_path / 'run'
    assert train(network, prefix, '--lambda-rule', rule, '--gamma', gamma, '--num-epochs', 5) == 0
    last = metrics(prefix)[-1]
    assert (last['lambda']['block']['alive'] < 2) == (rule != 'subgradient')
    symbol, arg_params, aux_params = load_checkpoint(str(prefix), 5)
    after = strip(symbol, arg_params, aux_params, {'data': (1, 3, 8, 8)}).report['after']
    assert after['macs'] == last['alive']['macs']
    assert any('--threshold' in line for line in log_lines(prefix)) == (rule == 'subgradient')


@pytest.mark.parametrize('rule', ['ista', 'subgradient', 'group-lasso'])
def test_every_rule_resumes_bit_for_bit(tmp_path, rule):
    network, flags = save_network(tmp_path), ['--lambda-rule', rule, '--gamma', 0.1]
    assert train(network, tmp_path / 'whole', *flags, '--num-epochs', 2) == 0
    assert train(network, tmp_path / 'parts', *flags, '--num-epochs', 1) == 0
    assert train(network, tmp_path / 'parts', *flags, '--num-epochs', 2, '--resume') == 0
    assert checkpoint(tmp_path / 'parts', 2) == checkpoint(tmp_path / 'whole', 2)
