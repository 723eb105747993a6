"""AliveCounter counts what strip leaves: random graphs, λ in every form that it may be written in, random λ dead."""

import numpy as np
import pytest
from helpers.random_graphs import Drawing
from helpers.strip_networks import SHAPES, random_parameters, with_dead

from graphs.alive import NOTHING, AliveCounter
from graphs.complexity import complexity
from graphs.strip import strip
from runtime import mx
from runtime.errors import NothingLeftError

GROUPS, CASES = 8, 40  # 320 cases, cut into tests that processes share


def drawn(seed):
    """A random symbol, its parameters with random λ dead, and those among them that are λ."""
    with mx.name.NameManager():
        symbol = Drawing(seed).symbol()
    arg_params, aux_params = random_parameters(symbol, seed=seed)
    random = np.random.RandomState(seed)
    share = random.choice([0.15, 0.4, 0.8])
    dead = {name: random.uniform(size=array.shape) < share for name, array in arg_params.items() if 'lambda' in name}
    return symbol, with_dead(arg_params, dead), aux_params, sorted(dead)


def positive(params):
    """The parameters as the counter takes those that it is not given: positive, and moving means 0."""
    return {name: mx.nd.abs(array) * (not name.endswith('mean')) for name, array in params.items()}


def stripped_complexity(symbol, arg_params, aux_params):
    try:
        return complexity(strip(symbol, arg_params, aux_params, SHAPES).symbol, SHAPES)
    except NothingLeftError:
        return NOTHING


def same(found, expected):
    return [found._replace(lambdas=0).totals(), found.layers] == [expected.totals(), expected.layers]


@pytest.mark.parametrize('group', range(GROUPS))
def test_the_count_is_that_of_the_stripped_network(group):
    cut = 0
    for seed in range(group * CASES, (group + 1) * CASES):
        symbol, arg_params, aux_params, names = drawn(seed)
        if seed % 2:
            arg_params, aux_params = positive(arg_params), positive(aux_params)
        given = {name: arg_params[name] for name in names} if seed % 2 else {**arg_params, **aux_params}
        if seed % 4 < 2:
            given = {name: array.asnumpy() for name, array in given.items()}
        expected = stripped_complexity(symbol, arg_params, aux_params)
        found = AliveCounter(symbol, SHAPES)(given)
        assert same(found, expected), f'case {seed}'
        assert found == NOTHING or found.lambdas == sum((arg_params[name].asnumpy() != 0).sum() for name in names)
        cut += expected.macs < complexity(symbol, SHAPES).macs
    assert cut > CASES // 3, 'too few of the networks become smaller'
