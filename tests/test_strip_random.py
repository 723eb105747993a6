"""Random graphs of every kind of layer, λ at random places and random channels dead, strip to the same function."""

import numpy as np
from helpers.random_graphs import Drawing
from helpers.strip_networks import SHAPES, images, predict, random_parameters, strip_twice, with_dead
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs.alive import AliveCounter
from graphs.graph import Graph
from graphs.onednn_workaround import guard_sums
from runtime import mx
from runtime.errors import NothingLeftError

EXAMPLES = 60


@settings(max_examples=EXAMPLES)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.3, 0.6, 0.95]),
    st.sampled_from([{}, {'fold_bn': True}, {'for_training': True}]),
)
def test_any_graph(seed, share, options):
    with mx.name.NameManager():
        symbol = Drawing(seed).symbol()
    arg_params, aux_params = random_parameters(symbol, seed=seed)
    random = np.random.RandomState(seed)
    dead = {name: random.uniform(size=array.shape) < share for name, array in arg_params.items() if 'lambda' in name}
    arg_params = with_dead(arg_params, dead)
    data = images()
    expected = logits(symbol, arg_params, aux_params, data)
    try:
        stripped = strip_twice(symbol, arg_params, aux_params, **options)
    except NothingLeftError:
        assert np.abs(expected - expected[:1]).max() <= 1e-6 * np.abs(expected).max()
        return
    assert np.abs(logits(*stripped[:3], data) - expected).max() <= 2e-5 * max(1, np.abs(expected).max())
    assert stripped.report['after']['macs'] <= stripped.report['before']['macs']
    assert not [name for name in stripped.symbol.list_arguments() if 'lambda' in name]
    assert AliveCounter(symbol, SHAPES)({**arg_params, **aux_params}).macs == stripped.report['after']['macs']


def logits(symbol, arg_params, aux_params, data):
    """What stands in front of the softmax, by the operators as they are: see ``graphs.onednn_workaround``."""
    graph = Graph.from_symbol(symbol.get_internals()['fc1_output'])
    guard_sums(graph)
    return predict(graph.to_symbol(), arg_params, aux_params, data)
