"""``--round-to``: dead channels are kept up to a multiple, and the function stays the same."""

import json

import numpy as np
import pytest
from helpers.random_graphs import Drawing
from helpers.strip_networks import (
    KINDS,
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

from formats.checkpoint_files import load_checkpoint, save_model
from graphs import speed
from graphs.graph import Graph
from graphs.onednn_workaround import guard_sums
from graphs.strip import strip
from runtime import mx
from runtime.errors import NothingLeftError, UserError
from tools import strip_params

LAYERS = ('Convolution', 'FullyConnected')


def randomly_dead(arg_params, seed, share):
    random = np.random.RandomState(seed)
    dead = {name: random.uniform(size=array.shape) < share for name, array in arg_params.items() if 'lambda' in name}
    return with_dead(arg_params, dead)


def widths(report):
    return {layer['name']: (layer['kept'], layer['channels']) for layer in report['layers'] if layer['op'] in LAYERS}


@pytest.mark.parametrize('family', ['resnet', 'resnet-v1', 'resnext', 'vgg'])
@pytest.mark.parametrize('multiple', [3, 4])
def test_a_family(family, multiple):
    kinds = tuple({*KINDS[family], 'neuron'})
    symbol = small(family, 'weight', kinds)
    arg_params, aux_params = random_parameters(symbol)
    arg_params = randomly_dead(arg_params, multiple, 0.5)
    fewest = strip(symbol, arg_params, aux_params, SHAPES)
    rounded = strip_twice(symbol, arg_params, aux_params, round_to=multiple)
    assert_same_function(symbol, arg_params, aux_params, rounded)
    few = widths(fewest.report)
    for name, (kept, channels) in widths(rounded.report).items():
        assert kept % multiple == 0 or kept == channels, name
        assert kept >= few[name][0]
        assert (kept == 0) == (few[name][0] == 0), 'a block that is dead goes whatever is rounded'
    if family == 'vgg':
        assert any(kept > few[name][0] for name, (kept, _) in widths(rounded.report).items())
        assert any(kept < channels for kept, channels in widths(rounded.report).values())


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 3, 8]))
def test_any_graph(seed, multiple):
    with mx.name.NameManager():
        symbol = Drawing(seed).symbol()
    arg_params, aux_params = random_parameters(symbol, seed=seed)
    arg_params = randomly_dead(arg_params, seed, 0.6)
    try:
        stripped = strip_twice(symbol, arg_params, aux_params, round_to=multiple)
    except NothingLeftError:
        return
    data = images()
    graph = Graph.from_symbol(symbol.get_internals()['fc1_output'])
    guard_sums(graph)
    expected = predict(graph.to_symbol(), arg_params, aux_params, data)
    graph = Graph.from_symbol(stripped.symbol.get_internals()['fc1_output'])
    guard_sums(graph)
    found = predict(graph.to_symbol(), stripped.arg_params, stripped.aux_params, data)
    assert np.abs(found - expected).max() <= 2e-5 * max(1, np.abs(expected).max())
    for name, (kept, channels) in widths(stripped.report).items():
        assert kept % multiple == 0 or kept == channels, name


@pytest.fixture
def checkpoint(tmp_path):
    symbol = small('vgg', 'weight')
    arg_params, aux_params = random_parameters(symbol)
    save_model(str(tmp_path / 'full'), 3, symbol, randomly_dead(arg_params, 0, 0.5), aux_params)
    return tmp_path


def strip_it(folder, *options):
    argv = [f'{folder / "full"}:3', '--out', str(folder / 'net'), '--force', *options]
    assert strip_params.main(argv) == 0
    return json.loads((folder / 'net-structure.json').read_text())


def test_the_tool_rounds(checkpoint, capsys):
    assert strip_it(checkpoint, '--round-to', '2')['round_to'] == 2
    symbol, arg_params, _ = load_checkpoint(str(checkpoint / 'net'), 0)
    counts = [arg_params[name].shape[0] for name in symbol.list_arguments() if name.endswith('conv_weight')]
    assert all(count % 2 == 0 for count in counts)
    with pytest.raises(UserError, match='--round-to'):
        strip_it(checkpoint, '--round-to', '0')


@pytest.mark.parametrize('fastest', speed.CANDIDATES)
def test_auto_takes_the_fastest(checkpoint, fastest, monkeypatch, capsys):
    def measured(networks, shapes):
        return {name: 1.0 if name in (fastest, 'before') else 2.0 for name in networks}

    monkeypatch.setattr(speed, 'milliseconds', measured)
    monkeypatch.setattr(strip_params, 'milliseconds', measured)
    assert strip_it(checkpoint, '--round-to', 'auto')['round_to'] == fastest
    out = capsys.readouterr().out
    assert f'a multiple of {fastest}, the fastest; tried 1: ' in out
    assert 'SLOWER' in out


def test_time_is_set_against_the_full_network_with_everything_folded(checkpoint, monkeypatch, capsys):
    seen = {}

    def measured(networks, shapes):
        seen.update(networks)
        return {'before': 2.0, 'after': 1.0}

    monkeypatch.setattr(strip_params, 'milliseconds', measured)
    strip_it(checkpoint, '--time')
    out = capsys.readouterr().out
    assert '50.00%' in out
    assert 'SLOWER' not in out
    operators = {node.op for node in Graph.from_symbol(seen['before'].symbol).nodes()}
    assert not operators & {'BatchNorm', 'broadcast_mul', 'dot'}
    full, _, _ = load_checkpoint(str(checkpoint / 'full'), 3)
    whole = dict(zip(full.list_arguments(), full.infer_shape(**SHAPES)[0]))
    assert all(seen['before'].arg_params[name].shape == whole[name] for name in whole if name.endswith('conv_weight'))


def test_milliseconds_are_measured():
    symbol = small('vgg', 'weight')
    network = speed.Network(symbol, *random_parameters(symbol))
    found = speed.milliseconds({'one': network, 'two': network}, {'data': (1, 3, 8, 8)})
    assert all(0 < time < 1000 for time in found.values())
