"""Which parameters are λ, also in a Gluon class whose name begins with Lambda."""

import numpy as np
import pytest

import optimizers  # noqa: F401  # registers apg
from graphs.lambda_names import is_lambda
from graphs.strip import strip
from runtime import mx


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('lambda_block', True),
        ('lambda', True),
        ('net0_lambda', True),
        ('lambda0_conv1', True),
        ('stage1_unit1_lambda', True),
        ('lambda_conv1_1', True),
        ('conv0_weight', False),
        ('lambdanet0_conv0_weight', False),
        ('lambdanet0_lambda', True),
        ('mylambdanet3_stage1_lambdablock2_bias', False),
        ('lambdanet0_lambda_scale', True),
    ],
)
def test_names(name, expected):
    assert is_lambda(name) is expected


def test_another_name_of_factors():
    assert is_lambda('conv0_gate', 'gate')
    assert not is_lambda('gatenet0_conv0_weight', 'gate')
    assert is_lambda('x_scale_a_0', 'scale_a')


class LambdaNet(mx.gluon.HybridBlock):
    """One convolution with λ; all parameters are called lambdanet0_..."""

    def __init__(self):
        super().__init__(prefix='lambdanet0_')
        with self.name_scope():
            self.conv = mx.gluon.nn.Conv2D(4, 3, in_channels=3)
            self.head = mx.gluon.nn.Dense(5, in_units=4)
            self.scale = self.params.get('lambda', shape=(1, 4, 1, 1), init='ones')

    def hybrid_forward(self, F, x, scale):
        return self.head(F.mean(F.relu(F.broadcast_mul(self.conv(x), scale)), axis=(2, 3)))


def test_a_class_called_lambda_net_is_trained_and_stripped():
    mx.random.seed(0)
    net = LambdaNet()
    net.initialize(mx.init.Normal(0.3))
    trainer = mx.gluon.Trainer(net.collect_params(), 'apg', {'learning_rate': 0.1, 'gamma': 1e3, 'wd': 0})
    before = net.conv.weight.data().asnumpy()
    with mx.autograd.record():
        net(mx.nd.ones((1, 3, 6, 6))).sum().backward()
    trainer.step(1)
    assert (net.scale.data().asnumpy() == 0).all(), 'γ is large, so every λ dies'
    assert (net.conv.weight.data().asnumpy() != 0).any(), 'a weight is not shrunk by γ'
    assert np.abs(net.conv.weight.data().asnumpy() - before).max() < 10
    net.scale.set_data(mx.nd.array([1, 0, 1, 0]).reshape((1, 4, 1, 1)))
    symbol = net(mx.sym.Variable('data'))
    arg_params = {name: parameter.data() for name, parameter in net.collect_params().items()}
    arg_params['lambdanet0_conv0_weight'][0, 0, 0, 0] = 0.01
    stripped = strip(symbol, arg_params, {}, {'data': (1, 3, 6, 6)}, threshold=0.1)
    assert list(stripped.report['lambdas']) == ['lambdanet0_lambda']
    assert {layer['name']: layer['kept'] for layer in stripped.report['layers']}['lambdanet0_conv0_fwd'] == 2
    assert 0.01 in stripped.arg_params['lambdanet0_conv0_weight'].asnumpy()
