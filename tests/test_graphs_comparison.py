"""What counts as the same: each output by its own spread, NaN never, the first class always."""

import numpy as np
import pytest
from helpers.strip_networks import random_parameters, small

from graphs.comparison import compare_outputs, noise
from graphs.predictor import Network
from graphs.proof import prove
from graphs.strip import strip
from runtime import mx
from runtime.errors import ProofError, UserError

SHAPES = {'data': (1, 3, 8, 8)}
IMAGES = noise(8, SHAPES)


def linear(outputs):
    """A network of several full connections side by side: dict name → (weight, bias)."""
    data = mx.sym.Flatten(mx.sym.Variable('data'))
    heads = [mx.sym.FullyConnected(data, num_hidden=len(bias), name=name) for name, (_, bias) in outputs.items()]
    params = {
        f'{name}_{role}': mx.nd.array(array)
        for name, arrays in outputs.items()
        for role, array in zip(('weight', 'bias'), arrays)
    }
    return Network(heads[0] if len(heads) == 1 else mx.sym.Group(heads), params, {})


def classifier(offset=0.0, factor=1.0, size=1.0):
    random = np.random.RandomState(3)
    weight = size * random.normal(size=(5, 192)) / 14
    return factor * weight, np.full(5, offset) + factor * size * random.normal(size=5)


def proven(before, after, tolerance=1e-4):
    return prove(linear(before), linear(after), IMAGES, tolerance)


def test_the_difference_is_that_of_numpy():
    before, after = {'fc': classifier()}, {'fc': classifier()}
    after['fc'][1][2] += 1e-5
    flat = IMAGES['data'].reshape(8, -1)
    logits = flat @ before['fc'][0].T + before['fc'][1]
    found = proven(before, after)
    assert found.largest == pytest.approx(1e-5, rel=0.1)
    assert found.relative == pytest.approx(1e-5 / np.sqrt((logits.std(axis=0) ** 2).mean()), rel=0.1)
    assert (found.images, found.agreement) == (8, 1)


def test_a_constant_in_one_network_is_a_difference():
    with pytest.raises(ProofError, match=r'fc by 1e\+06'):
        proven({'fc': classifier()}, {'fc': classifier(1e6)})


@pytest.mark.parametrize('offset', [0, 1e3, 1e6])
def test_a_constant_in_both_networks_hides_nothing(offset):
    with pytest.raises(ProofError, match='of its spread'):
        proven({'fc': classifier(offset)}, {'fc': classifier(offset, -1)})


def test_another_first_class_is_a_difference_however_small_the_numbers_differ():
    logits = np.array([[0.0, 1e-6, -1], [-1, 0, 1], [1, 0, -1]], np.float32)
    negated = logits.copy()
    negated[0, :2] = [1e-6, 0]
    tolerated = compare_outputs([logits], [negated])
    assert (tolerated.agreement, tolerated.is_within(1e-4)) == (1, True), 'a tie by rounding'
    strict = compare_outputs([logits], [negated], tolerance=1e-9)
    assert (strict.agreement, strict.is_within(1)) == (2 / 3, False)


@pytest.mark.parametrize('value', [np.nan, np.inf])
@pytest.mark.parametrize('both', [False, True])
def test_an_output_that_is_not_finite_proves_nothing(value, both):
    right, wrong = ({'fc': classifier(), 'more': classifier()} for _ in range(2))
    wrong['more'][1][0] = value
    if both and value == np.inf:
        return  # the same infinity in both is the same number
    with pytest.raises(ProofError, match='more is NaN'):
        proven(wrong if both else right, wrong)


def test_a_small_output_is_measured_beside_a_large_one():
    before = {'large': classifier(size=1e6), 'small': classifier(size=1e-2)}
    after = {**before, 'small': classifier(size=1e-2, factor=1.001)}
    with pytest.raises(ProofError, match='small by'):
        proven(before, after)
    found = proven(before, before)
    assert [output.name for output in found.outputs] == ['large', 'small']
    assert [output['name'] for output in found.as_dict()['outputs']] == ['large', 'small']


def test_other_shapes_and_other_numbers_of_outputs_are_no_match():
    one = np.zeros((2, 3), np.float32)
    assert compare_outputs([one], [one[:, :2]]).relative == np.inf
    assert compare_outputs([one, one], [one]).relative == np.inf
    assert compare_outputs([one], [one]).relative == 0


def test_outputs_that_are_no_classes_have_no_first_class():
    maps = np.random.RandomState(0).normal(size=(2, 3, 4, 4)).astype(np.float32)
    found = compare_outputs([maps], [maps + 1e-7])
    assert found.agreement is None
    assert found.is_within(1e-4)


def test_several_inputs_and_one_that_is_missing():
    names = ('data', 'more')
    symbol = mx.sym.FullyConnected(mx.sym.concat(*map(mx.sym.Variable, names)), num_hidden=2, name='fc')
    network = Network(symbol, {'fc_weight': mx.nd.ones((2, 5)), 'fc_bias': mx.nd.zeros(2)}, {})
    images = {'data': np.ones((3, 2), np.float32), 'more': np.ones((3, 3), np.float32)}
    assert prove(network, network, images, 0).largest == 0
    with pytest.raises(UserError, match="needs the input 'more'"):
        prove(network, network, {'data': images['data']}, 0)


def test_running_a_network_leaves_its_parameters_as_they_were():
    """BatchNorm with fix_gamma writes into its γ."""
    symbol = mx.sym.BatchNorm(mx.sym.Variable('data'), fix_gamma=True, name='bn')
    arg_params = {'bn_gamma': mx.nd.array([3, 4, 5]), 'bn_beta': mx.nd.zeros(3)}
    network = Network(symbol, arg_params, {'bn_moving_mean': mx.nd.zeros(3), 'bn_moving_var': mx.nd.ones(3)})
    prove(network, network, IMAGES, 0)
    assert arg_params['bn_gamma'].asnumpy().tolist() == [3, 4, 5]


def test_folding_the_normalisation_is_within_rounding():
    symbol = small('resnet-v1', 'weight')
    arg_params, aux_params = random_parameters(symbol)
    folded = strip(symbol, arg_params, aux_params, SHAPES, fold_bn=True)
    found = prove(Network(symbol, arg_params, aux_params), Network(*folded[:3]), IMAGES, 1e-4)
    assert 0 < found.relative < 2e-5
