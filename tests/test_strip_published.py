"""The structures that the paper found, reached by stripping our networks with λ = 0 where the paper says: params
without BN and MACs to every digit.
"""

import numpy as np
import pytest
from helpers.strip_networks import random_parameters, with_dead

from graphs.alive import AliveCounter
from graphs.strip import strip
from symbols import get_symbol


class Full:
    """A full network with its parameters."""

    def __init__(self, num_layers, num_classes, image):
        self.shapes = {'data': (1, *image)}
        self.symbol = get_symbol('resnet', num_layers, num_classes, image)
        self.arg_params, self.aux_params = random_parameters(self.symbol, self.shapes)

    def stripped(self, units, kept):
        """The report of stripping all units but those that ``kept`` lists for each stage, counted from 1."""
        alive = [unit + 1 in stage for stage, count in zip(kept, units) for unit in range(count)]
        arg_params = with_dead(self.arg_params, {'lambda_block': np.logical_not(alive)})
        report = strip(self.symbol, arg_params, self.aux_params, self.shapes).report
        lambdas = {'lambda_block': arg_params['lambda_block']}
        assert AliveCounter(self.symbol, self.shapes)(lambdas).macs == report['after']['macs']
        return report


@pytest.fixture(scope='module')
def resnet50():
    return Full(50, 1000, (3, 224, 224))


@pytest.mark.parametrize(
    ('depth', 'kept', 'params', 'macs'),
    [
        (41, ((), (1, 2, 3, 4), (1, 2, 3, 4, 5, 6), (1, 2, 3)), '25.307', '3.4726'),
        (32, ((), (1, 2, 3, 4), (1, 2, 4, 6), (1, 3)), '18.623', '2.8175'),
        (26, ((), (3,), (1, 2, 3, 4, 5, 6), (1,)), '15.592', '2.3294'),
    ],
)
def test_imagenet(resnet50, depth, kept, params, macs):
    report = resnet50.stripped((3, 4, 6, 3), kept)
    after = report['after']
    assert (f'{after["params_without_bn"] / 1e6:.3f}', f'{after["macs"] / 1e9:.4f}') == (params, macs)
    convolutions = sum(
        layer['op'] == 'Convolution' and layer['kept'] > 0 and not layer['name'].endswith('_sc')
        for layer in report['layers']
    )
    assert convolutions + 1 == depth


@pytest.mark.parametrize(
    ('classes', 'kept', 'macs', 'params'),
    [
        (10, ((2, 9, 18), range(1, 8), range(1, 19)), '53.530', '84.753'),
        (100, ((5, 6), range(1, 10), range(1, 19)), '55.334', '86.750'),
    ],
)
def test_cifar_164(classes, kept, macs, params):
    report = Full(164, classes, (3, 32, 32)).stripped((18, 18, 18), kept)
    share = {key: f'{100 * report["after"][key] / report["before"][key]:.3f}' for key in ('macs', 'params_without_bn')}
    assert share == {'macs': macs, 'params_without_bn': params}
