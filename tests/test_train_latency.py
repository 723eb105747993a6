"""γ weighted by the time of each structure."""

import json

import numpy as np
import pytest
from helpers.strip_networks import SHAPES, small
from helpers.tiny_runs import NOISE, checkpoint, refused, save_network, train

from graphs.complexity import complexity
from train import latency, selection
from train.latency import LEAST, latency_weights


def macs(symbols, shapes):
    """A clock on which a network takes as long as it has MACs."""
    return [complexity(symbol, shapes).macs for symbol in symbols]


def test_a_block_weighs_what_the_network_is_slower_with_it():
    symbol = small('resnet', 'weight', ('block',))
    found = latency_weights(symbol, SHAPES, macs)['lambda_block']
    # The MACs of a bottleneck block by the text-book: 1x1 to a quarter, 3x3, 1x1 back; the first of a stage halves the
    # map in its 3x3, and its shortcut stays.
    assert found.max() == 1
    sides, widths, inputs = [8, 8, 8, 4], [16, 16, 24, 24], [16, 16, 16, 24]
    expected = [
        side**2 * before * width // 4 + out**2 * (9 * (width // 4) ** 2 + width // 4 * width)
        for side, out, width, before in zip(sides, [8, 8, 4, 4], widths, inputs)
    ]
    np.testing.assert_allclose(found, np.array(expected) / max(expected))


def test_channels_of_a_layer_and_groups_of_a_block_weigh_alike():
    for family in ('resnet-v1', 'resnext'):
        symbol = small(family, 'weight')
        found = latency_weights(symbol, SHAPES, macs)
        shapes = dict(zip(symbol.list_arguments(), symbol.infer_shape(**SHAPES)[0]))
        for name, weights in found.items():
            assert weights.shape == shapes[name]
            rows = weights.reshape(len(weights), -1) if 'group' in name else [weights]
            assert 'block' in name or all(len(set(row)) == 1 for row in rows)
            assert ((weights >= LEAST) & (weights <= 1)).all()


def test_time_is_measured():
    weights = latency_weights(small('resnet', 'weight', ('block',)), SHAPES)['lambda_block']
    assert weights.max() == 1
    assert (weights >= LEAST).all()


def test_nothing_to_measure_weighs_alike():
    weights = latency_weights(small('resnet', 'weight', ('block',)), SHAPES, lambda symbols, shapes: [1.0, 1.0])
    np.testing.assert_array_equal(weights['lambda_block'], 1)


def test_a_resumed_run_keeps_what_was_measured(tmp_path, monkeypatch):
    network, flags = save_network(tmp_path), ['--gamma-weight', 'latency', '--gamma', 0.1]
    monkeypatch.setattr(selection, 'latency_weights', lambda *network: {'lambda_block': np.array([0.3, 1.0])})
    for name, parts in (('whole', [2]), ('parts', [1, 2])):
        for epochs in parts:
            resume = ['--resume'] if epochs == 2 and len(parts) == 2 else []
            assert train(network, tmp_path / name, *flags, '--num-epochs', epochs, *resume) == 0
            if len(parts) == 2:
                monkeypatch.setattr(selection, 'latency_weights', lambda *network: pytest.fail('measured again'))
    assert checkpoint(tmp_path / 'parts', 2) == checkpoint(tmp_path / 'whole', 2)
    assert json.loads((tmp_path / 'parts-0002.json').read_text())['selection']['latency'] == {
        'lambda_block': [0.3, 1.0]
    }
    assert latency.TURNS > 2


@pytest.mark.parametrize(
    ('flags', 'words'),
    [
        (['--kv-store', 'dist_sync'], 'use --kv-store local or device on one machine'),
        (['--lambda-rule', 'group-lasso'], 'group-lasso penalises weights'),
        (['--optimizer', 'nag'], 'needs --optimizer apg'),
    ],
)
@pytest.mark.parametrize('weight', ['macs', 'latency'])
def test_what_has_no_weighted_gamma_is_refused(flags, words, weight, tmp_path, capfd):
    """With parameter servers the weights never reached the servers, and with group lasso nothing read them."""
    line = refused(capfd, tmp_path, '--network', save_network(tmp_path), *NOISE, '--gamma-weight', weight, *flags)
    assert words in line
