"""The authors' graph and ours with ``--lambda-placement output`` are one network: names, outputs, gradients, strip."""

import numpy as np
import pytest
from helpers import authors_graph
from helpers.strip_networks import assert_same_function, random_parameters, strip_twice, with_dead
from helpers.training_step import drawn_values, ran

from graphs.alive import AliveCounter
from graphs.complexity import complexity
from graphs.strip import strip
from runtime import mx
from symbols import get_symbol, resnet, resnext

IMAGE = (3, 8, 8)
SHAPES = {'data': (2, *IMAGE)}
IMAGENET = {'data': (1, 3, 224, 224)}
UNITS50, WIDTHS50 = (3, 4, 6, 3), (256, 512, 1024, 2048)
FAMILIES = ('resnet', 'resnext')


def theirs(family):
    """A small network in the authors' graph."""
    if family == 'resnet':
        return authors_graph.resnet((2, 2), (16, 24), 5, small=True)
    return authors_graph.resnext((2, 1), (16, 32), 4, 5, small=True)


def ours(family, placement='output'):
    """The same network by our builders."""
    with mx.name.NameManager():
        if family == 'resnet':
            return resnet.network((2, 2), (16, 24), resnet.bottleneck_unit, True, 5, IMAGE, ('block',), placement)
        return resnext.network((2, 1), (16, 32), 4, True, 5, IMAGE, ('block', 'group'), placement)


def imagenet_twins(family):
    """(theirs, ours) of depth 50."""
    made = (
        authors_graph.resnet(UNITS50, WIDTHS50, 1000)
        if family == 'resnet'
        else authors_graph.resnext(UNITS50, WIDTHS50, 32, 1000)
    )
    return made, get_symbol(family, 50, 1000, '3,224,224', lambda_placement='output')


def signature(symbol, shapes):
    """Names and shapes of arguments and states, in order."""
    arguments, outputs, states = symbol.infer_shape(**shapes)
    return (list(zip(symbol.list_arguments(), arguments)), list(zip(symbol.list_auxiliary_states(), states)), outputs)


@pytest.mark.parametrize('family', FAMILIES)
def test_names_order_and_shapes_are_the_same(family):
    assert signature(theirs(family), SHAPES) == signature(ours(family), SHAPES)
    made, built = imagenet_twins(family)
    assert signature(made, IMAGENET) == signature(built, IMAGENET)


@pytest.mark.parametrize('dtype', ['float32', 'float64'])
@pytest.mark.parametrize('family', FAMILIES)
def test_outputs_and_gradients_are_the_same(family, dtype):
    symbols = (theirs(family), ours(family))
    values = drawn_values(symbols[1], IMAGE, seed=1)
    generator = np.random.default_rng(2)
    images, labels = generator.standard_normal((4, *IMAGE)), generator.integers(0, 5, 4)
    (outputs, gradients), (expected, expected_gradients) = (ran(one, values, images, labels, dtype) for one in symbols)
    assert np.array_equal(outputs, expected)
    assert gradients.keys() == expected_gradients.keys()
    largest = max(np.abs(gradient).max() for gradient in expected_gradients.values())
    for name, gradient in gradients.items():
        if family == 'resnet':
            assert np.array_equal(gradient, expected_gradients[name]), name
        else:
            # λ_group's gradient is a sum over a map, which the two graphs add up in another order.
            gap = np.abs(gradient - expected_gradients[name]).max() / largest
            assert gap <= {'float32': 1e-6, 'float64': 1e-14}[dtype] * (name == 'lambda_group'), name
    assert all(np.abs(gradient).max() > 1e-4 * largest for name, gradient in gradients.items() if 'lambda' in name)


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('seed', range(5))
def test_strip_leaves_the_same(family, seed):
    symbols = (theirs(family), ours(family))
    arg_params, aux_params = random_parameters(symbols[1], SHAPES)
    random = np.random.RandomState(seed)
    dead = {
        name: random.uniform(size=array.shape) < (0.4 if 'group' in name else 0.3)
        for name, array in arg_params.items()
        if 'lambda' in name
    }
    arg_params = with_dead(arg_params, dead)
    found, expected = (strip_twice(symbol, arg_params, aux_params) for symbol in symbols)
    assert assert_same_function(symbols[0], arg_params, aux_params, found)
    for key in ('before', 'after', 'layers'):
        assert found.report[key] == expected.report[key]
    for name, array in expected.arg_params.items():
        assert np.array_equal(array.asnumpy(), found.arg_params[name].asnumpy()), name
    alive = {name: report['alive'] for name, report in expected.report['lambdas'].items()}
    assert {name: report['alive'] for name, report in found.report['lambdas'].items()} == alive
    lambdas = {name: arg_params[name] for name in dead}
    counts = [AliveCounter(symbol, SHAPES)(lambdas) for symbol in symbols]
    assert counts[0] == counts[1]
    assert counts[0]._replace(lambdas=0).totals() == complexity(found.symbol, SHAPES).totals()


def test_resnet_32_of_the_paper():
    symbol = imagenet_twins('resnet')[0]
    arg_params, aux_params = random_parameters(symbol, IMAGENET)
    kept = ((), (1, 2, 3, 4), (1, 2, 4, 6), (1, 3))
    alive = [unit + 1 in stage for stage, count in zip(kept, UNITS50) for unit in range(count)]
    lambdas = with_dead(arg_params, {'lambda_block': np.logical_not(alive)})
    report = strip(symbol, lambdas, aux_params, IMAGENET).report
    assert (report['before']['lambdas'], report['after']['lambdas']) == (16, 0)
    after = report['after']
    assert (f'{after["params_without_bn"] / 1e6:.3f}', f'{after["macs"] / 1e9:.4f}') == ('18.623', '2.8175')
    found = AliveCounter(symbol, IMAGENET)({'lambda_block': lambdas['lambda_block']})
    assert (found.params, found.macs) == (after['params'], after['macs'])
