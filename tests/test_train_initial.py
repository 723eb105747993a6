"""How the parameters of a network start that do not say it."""

import pytest
from helpers.tiny_runs import NOISE, metrics, train

from graphs.lambdas import with_initial_lambda
from runtime import mx


def network(**factor):
    """A convolution whose channels are multiplied by ``lambda_a``, and a classifier."""
    x = mx.sym.Convolution(mx.sym.Variable('data'), num_filter=4, kernel=(3, 3), pad=(1, 1), name='c')
    x = mx.sym.broadcast_mul(x, mx.sym.Variable('lambda_a', shape=(1, 4, 1, 1), **factor))
    x = mx.sym.FullyConnected(mx.sym.Activation(x, act_type='relu'), num_hidden=10, name='f')
    return mx.sym.SoftmaxOutput(x, mx.sym.Variable('softmax_label'), name='softmax')


def start_of(symbol):
    return symbol.attr_dict()['lambda_a']['__init__']


def test_a_lambda_that_says_nothing_starts_at_1():
    assert start_of(with_initial_lambda(network(), 1)) == mx.init.Constant(1).dumps()


def test_a_lambda_keeps_its_own_start_unless_another_is_asked_for():
    own = network(init=mx.init.Constant(0.3))
    assert with_initial_lambda(own, 1) is own
    assert start_of(with_initial_lambda(own, 0.5)) == mx.init.Constant(0.5).dumps()


@pytest.mark.parametrize('engine', ['mxnet', 'torch'])
def test_a_run_starts_such_a_lambda_at_1(engine, tmp_path):
    if engine == 'torch':
        pytest.importorskip('torch')
    network().save(str(tmp_path / 'n-symbol.json'))
    prefix = str(tmp_path / 'run')
    assert train(str(tmp_path / 'n-symbol.json'), prefix, '--lr', '1e-6', '--num-epochs', '1', '--engine', engine) == 0
    (record,) = metrics(prefix)
    assert record['lambda_values']['lambda_a']['values'] == pytest.approx([1] * 4, abs=1e-3)


@pytest.mark.parametrize('engine', ['mxnet', 'torch'])
def test_another_parameter_that_says_nothing_is_one_line(engine, refusal, tmp_path):
    if engine == 'torch':
        pytest.importorskip('torch')
    x = mx.sym.broadcast_mul(mx.sym.Variable('data'), mx.sym.Variable('slope', shape=(1, 3, 1, 1)))
    symbol = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(x, num_hidden=10, name='f'), name='softmax')
    symbol.save(str(tmp_path / 'n-symbol.json'))
    flags = ['--optimizer', 'nag', '--engine', engine, '--model-prefix', str(tmp_path / 'run')]
    line = refusal('--network', str(tmp_path / 'n-symbol.json'), *NOISE, *flags)
    assert "does not say how parameter 'slope' starts" in line
