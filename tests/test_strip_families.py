"""Stripping every family under random patterns of dead structures: the same function, the smallest network, and nothing
left to strip.
"""

import numpy as np
import pytest
from helpers.strip_networks import (
    SHAPES,
    assert_same_function,
    images,
    predict,
    random_parameters,
    small,
    strip_twice,
    with_dead,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs.alive import AliveCounter
from graphs.complexity import complexity
from runtime.errors import NothingLeftError

FAMILIES = ('resnet', 'resnet-basic', 'resnet-v1', 'resnext', 'resnext-neuron', 'vgg')
EXAMPLES = 17  # for each family and placement: 204 in all


class Case:
    """One network, its parameters, and what counts its structure alive; made once for all patterns."""

    def __init__(self, family, placement):
        self.symbol = small(family, placement)
        self.arg_params, self.aux_params = random_parameters(self.symbol)
        self.alive = AliveCounter(self.symbol, SHAPES)
        self.lambdas = {name: array.shape for name, array in self.arg_params.items() if 'lambda' in name}


@pytest.fixture(scope='module')
def cases():
    made = {}

    def case(*which):
        if which not in made:
            made[which] = Case(*which)
        return made[which]

    return case


@pytest.mark.parametrize('placement', ['weight', 'output'])
@pytest.mark.parametrize('family', FAMILIES)
def test_any_pattern(family, placement, cases):
    case, telling = cases(family, placement), []

    @settings(max_examples=EXAMPLES, database=None)
    @given(st.integers(0, 2**32 - 1), st.sampled_from([0.15, 0.5, 0.85]))
    def check(seed, share):
        random = np.random.RandomState(seed)
        dead = {name: random.uniform(size=shape) < share for name, shape in case.lambdas.items()}
        arg_params = with_dead(case.arg_params, dead)
        alive = case.alive({**arg_params, **case.aux_params})
        try:
            stripped = strip_twice(case.symbol, arg_params, case.aux_params)
        except NothingLeftError:
            outputs = predict(case.symbol, arg_params, case.aux_params, images(2))
            assert np.abs(outputs[0] - outputs[1]).max() < 1e-6
            assert alive.macs == 0
            return
        telling.append(assert_same_function(case.symbol, arg_params, case.aux_params, stripped))
        left = complexity(stripped.symbol, SHAPES)
        assert alive._replace(lambdas=0).totals() == left.totals()
        assert not [name for name in stripped.symbol.list_arguments() if 'lambda' in name or 'label' in name]

    check()
    assert sum(telling) >= EXAMPLES // 3, 'too few of these networks depend on their input for this to test anything'


@pytest.mark.parametrize('placement', ['weight', 'output'])
@pytest.mark.parametrize('family', ['resnet', 'resnet-basic', 'resnet-v1'])
def test_dead_blocks_go_without_changing_a_bit(family, placement, cases, monkeypatch):
    # Merged operators round a sum differently from the same operators one by one.
    monkeypatch.setenv('MXNET_SUBGRAPH_BACKEND', 'NONE')
    case = cases(family, placement)
    ones = {name: array * 0 + 1 if 'lambda' in name else array for name, array in case.arg_params.items()}
    for pattern in range(2 ** case.lambdas['lambda_block'][0]):
        dead = np.array([pattern >> block & 1 for block in range(case.lambdas['lambda_block'][0])], bool)
        arg_params = with_dead(ones, {'lambda_block': dead})
        stripped = strip_twice(case.symbol, arg_params, case.aux_params)
        assert_same_function(case.symbol, arg_params, case.aux_params, stripped, tolerance=0)
        kept = {layer['name']: layer['kept'] for layer in stripped.report['layers']}
        for block, (stage, unit) in enumerate(_units(case.symbol)):
            assert (kept[f'stage{stage}_unit{unit}_conv1'] == 0) == dead[block]


@pytest.mark.parametrize('fold_bn', [False, True])
@pytest.mark.parametrize('family', FAMILIES)
def test_folding_and_training_keep_the_function(family, fold_bn, cases):
    case = cases(family, 'output')
    random = np.random.RandomState(5)
    arg_params = with_dead(
        case.arg_params, {name: random.uniform(size=shape) < 0.4 for name, shape in case.lambdas.items()}
    )
    stripped = strip_twice(case.symbol, arg_params, case.aux_params, fold_bn=fold_bn, for_training=not fold_bn)
    assert_same_function(case.symbol, arg_params, case.aux_params, stripped)
    assert ('softmax_label' in stripped.symbol.list_arguments()) == (not fold_bn)
    plain = strip_twice(case.symbol, arg_params, case.aux_params)
    if fold_bn:
        assert len(stripped.aux_params) < len(plain.aux_params)
        assert complexity(stripped.symbol, SHAPES).macs == complexity(plain.symbol, SHAPES).macs


def _units(symbol):
    """(stage, unit) of every residual block, in order."""
    names = [name for name in symbol.list_arguments() if name.endswith('_conv1_weight')]
    return [(int(name[5]), int(name.split('unit')[1][0])) for name in names]
