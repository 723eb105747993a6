"""Zeros that stay, a budget, and a network that shrinks while it trains."""

import json
import shutil

import numpy as np
import pytest
from helpers.strip_networks import random_parameters, with_dead
from helpers.tiny_runs import NOISE, log_lines, metrics, open_bytes, refused, save_network, train

from formats.symbol_file import load_symbol
from graphs.alive import AliveCounter
from graphs.comparison import Difference
from graphs.complexity import complexity
from graphs.lambdas import lambda_layout
from graphs.predictor import Network
from graphs.stripped_files import strip_with_proof, stripped_paths, write_stripped
from optimizers import APG
from runtime import mx
from tools import strip_params
from train.checkpoint import Checkpoints
from train.data.iterators import SyntheticIterator
from train.engines.mxnet import MXNetEngine
from train.rebuilds import Rebuilds
from train.resizing import ResizableEngine

FLAGS = [
    '--lr',
    '0.05',
    '--gamma',
    '0.3',
    '--num-epochs',
    '6',
    '--lr-step-epochs',
    '5',
    '--seed',
    '2',
    '--keep',
    '9',
    '--threads',
    '1',
]
BUDGET = ['--target-macs', '0.7', '--gamma', '0.001']


def engines():
    """Both engines, the second only where PyTorch is installed."""
    torch = pytest.mark.skipif(not _has_torch(), reason='needs PyTorch')
    return ['mxnet', pytest.param('torch', marks=torch)]


def _has_torch():
    try:
        import torch  # noqa: F401
    except ImportError:
        return False
    return True


def alive(prefix):
    return [record['alive']['macs'] for record in metrics(prefix)]


def files_of(prefix, epoch=6):
    return [
        prefix.parent.joinpath(f'{prefix.name}-{epoch:04d}.{ending}').read_bytes() for ending in ('params', 'states')
    ]


TWO_DEVICES = ['--cpus', '2', '--kv-store']


@pytest.mark.parametrize('rule', ['apg', 'ista', 'group-lasso'])
@pytest.mark.parametrize('more', [[], [*TWO_DEVICES, 'local'], [*TWO_DEVICES, 'device'], *engines()[1:]])
def test_what_is_dead_at_the_end_of_an_epoch_never_comes_back(more, rule, tmp_path):
    """Read from the metrics of a run, by every rule that has zeros. tests/test_optimizers_frozen.py tries gradients
    that no run has.
    """
    network, prefix = save_network(tmp_path, kinds=('neuron',)), tmp_path / 'run'
    gamma = {'apg': 0.3, 'ista': 3, 'group-lasso': 0.3}[rule]
    more = ['--engine', 'torch'] if more == 'torch' else more
    flags = [*FLAGS, '--lambda-rule', rule, '--gamma', gamma, '--freeze-dead', *more]
    assert train(network, prefix, *flags) == 0
    values = [
        np.concatenate([vector['values'] for vector in record['lambda_values'].values()]) for record in metrics(prefix)
    ]
    dead = [set(np.flatnonzero(epoch == 0)) for epoch in values]
    assert dead[-1], 'something must have died'
    assert all(before <= after for before, after in zip(dead, dead[1:]))
    assert alive(prefix) == sorted(alive(prefix), reverse=True)


@pytest.mark.parametrize('engine', engines())
@pytest.mark.parametrize('kinds', [('block',), ('neuron',), ('block', 'neuron')])
def test_a_budget_is_reached_and_the_network_shrinks(engine, kinds, tmp_path):
    network, prefix = save_network(tmp_path, kinds=kinds), tmp_path / 'run'
    assert train(network, prefix, *FLAGS, *BUDGET, '--engine', engine, '--shrink') == 0
    full = metrics(prefix)[0]['full']['macs']
    assert alive(prefix)[-1] <= 0.7 * full < alive(prefix)[0]
    assert alive(prefix) == sorted(alive(prefix), reverse=True)
    assert any('Rebuilt the network' in line for line in log_lines(prefix))
    assert any(' after the rebuild: ' in line and 'images/s' in line for line in log_lines(prefix))
    symbol, args, _ = mx.model.load_checkpoint(str(prefix), 6)
    assert complexity(symbol, {'data': (1, 3, 8, 8)}).macs == full, 'a checkpoint holds the whole network'
    left = np.concatenate([array.asnumpy().ravel() for name, array in args.items() if 'lambda' in name])
    assert np.count_nonzero(left) == sum(found['alive'] for found in metrics(prefix)[-1]['lambda'].values())


def test_a_budget_ends_within_one_structure_of_its_target(tmp_path):
    """One channel more would be above the target."""
    network, prefix = save_network(tmp_path, kinds=('neuron',)), tmp_path / 'run'
    assert train(network, prefix, *FLAGS, *BUDGET, '--shrink') == 0
    full, left = metrics(prefix)[0]['full']['macs'], alive(prefix)[-1]
    dearest = 8 * 8 * 9 * 8 + 2 * 8 * 8 * 32  # more than any channel of the two blocks costs
    assert 0.7 * full - dearest <= left <= 0.7 * full


@pytest.mark.parametrize('engine', engines())
@pytest.mark.parametrize('epoch', [1, 2, 3, 4])
def test_a_run_goes_on_to_the_bit_whatever_it_was_about_to_do(engine, epoch, tmp_path):
    """Resumed before, in and after the epochs in which structures fade and the network is rebuilt."""
    network = save_network(tmp_path, kinds=('block', 'neuron'))
    flags = [*FLAGS, *BUDGET, '--engine', engine, '--shrink']
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    assert train(network, whole, *flags) == 0
    for path in tmp_path.glob('whole*'):
        name = path.name.replace('whole', 'parts')
        if not any(f'-{later:04d}.' in name for later in range(epoch + 1, 7)):
            shutil.copy(str(path), str(tmp_path / name))
    assert train(network, parts, *flags, '--resume') == 0
    assert files_of(parts) == files_of(whole)
    assert [record['alive'] for record in metrics(parts)] == [record['alive'] for record in metrics(whole)]


def test_shrinking_changes_nothing_but_rounding(tmp_path):
    network = save_network(tmp_path, kinds=('block',))
    ends = []
    for name, more in (('stays', []), ('shrinks', ['--shrink'])):
        assert train(network, tmp_path / name, *FLAGS, *BUDGET, *more) == 0
        ends.append(Checkpoints(str(tmp_path / name)).load())
    for name, array in ends[0].arg_params.items():
        if 'lambda' in name:
            np.testing.assert_allclose(ends[1].arg_params[name].asnumpy(), array.asnumpy(), atol=0.02)
    without = [end.selection.pop('rebuilt_without') for end in ends]
    assert ends[0].selection == ends[1].selection
    assert without == [{}, ends[1].selection['frozen']]


def test_a_run_with_a_budget_ends_in_a_stripped_network(tmp_path, capsys):
    """The same as the tool makes of the last checkpoint; graph and parameters byte for byte."""
    network, prefix, out = save_network(tmp_path, kinds=('block', 'neuron')), tmp_path / 'run', tmp_path / 'by-hand'
    assert train(network, prefix, *FLAGS, *BUDGET, '--shrink', '--quiet') == 0
    assert strip_params.main([f'{prefix}:6', '--out', str(out)]) == 0
    written = [path.replace(str(out), f'{prefix}-stripped') for path in stripped_paths(str(out))]
    by_hand = stripped_paths(str(out))
    assert [open_bytes(path) for path in written[:2]] == [open_bytes(path) for path in by_hand[:2]]
    reports = [json.loads(open_bytes(path)) for path in (written[2], by_hand[2])]
    for report in reports:
        report.pop('sha256')  # the sums, by the names of the files
    last = metrics(prefix)[-1]
    assert reports[0] == reports[1]
    assert reports[0]['after']['macs'] == last['alive']['macs']
    share = 100 * last['alive']['macs'] / last['full']['macs']
    now = 100 * last['validation']['accuracy']
    said = f'Reached {share:.1f} % of the MACs (target 70 %), accuracy '
    assert any(said in line and line.endswith(f' -> {now:.1f} % now.') for line in log_lines(prefix))
    assert f'python tools/strip_params.py {prefix}:6' in log_lines(prefix)[-1]
    assert said in capsys.readouterr().err


def test_a_stripped_network_of_another_run_is_not_replaced(tmp_path, capfd):
    network, path = save_network(tmp_path), tmp_path / 'run-stripped-0000.params'
    path.write_bytes(b'another')
    flags = ['--network', network, '--model-prefix', tmp_path / 'run', *NOISE, *FLAGS, *BUDGET]
    assert str(path) in refused(capfd, tmp_path, *flags)


@pytest.mark.parametrize('kinds', [('block',), ('block', 'neuron')])
def test_shrinking_makes_no_other_stripped_network(kinds, tmp_path):
    """The whole network strips to the same files as the one that was rebuilt, given the same λ and weights. (The report
    beside them counts λ inside dead blocks as dead only after a rebuild.)
    """
    symbol, shapes = load_symbol(save_network(tmp_path, kinds=kinds)), {'data': (1, 3, 8, 8)}
    args, aux = random_parameters(symbol, {**shapes, 'softmax_label': (1,)})
    frozen = {name: np.zeros(array.shape, bool) for name, array in args.items() if 'lambda' in name}
    for mask in frozen.values():
        mask[0] = True
    data = SyntheticIterator(4, (3, 8, 8), 10, 8)
    engine = ResizableEngine(
        symbol,
        shapes,
        lambda smaller: MXNetEngine(smaller, [mx.cpu()], data.provide_data, data.provide_label),
        lambda smaller: APG(learning_rate=0.1, param_idx2name={}, sym=smaller),
    )
    engine.start(with_dead(args, frozen), aux)
    whole = strip_with_proof(Network(symbol, *engine.parameters()), shapes)
    engine.shrink(frozen)
    write_stripped(str(tmp_path / 'whole'), whole)
    write_stripped(str(tmp_path / 'shrunk'), strip_with_proof(Network(symbol, *engine.parameters()), shapes))
    for first, second in zip(*(stripped_paths(str(tmp_path / name))[:2] for name in ('whole', 'shrunk'))):
        assert open_bytes(first) == open_bytes(second)
    smaller = engine._smaller.symbol
    of_shrunk = strip_with_proof(Network(smaller, *engine._engine.parameters()), shapes)
    assert of_shrunk.report['after'] == whole.report['after']
    for name, array in of_shrunk.network.arg_params.items():
        np.testing.assert_allclose(array.asnumpy(), whole.network.arg_params[name].asnumpy(), rtol=1e-6)


@pytest.mark.parametrize(
    ('flags', 'words'),
    [
        (['--target-macs', '0'], 'a share'),
        (['--target-macs', '1.5'], 'a share'),
        (['--target-macs', 'half'], 'a share'),
        (['--target-macs', '0.5', '--optimizer', 'nag'], 'needs --optimizer apg'),
        (['--target-macs', '0.5', '--target-params', '0.5'], 'two budgets'),
        (['--target-macs', '0.5', '--lambda-rule', 'subgradient'], 'needs --lambda-rule'),
        (['--shrink'], '--shrink needs --freeze-dead'),
        (['--target-macs', '0.5', '--shrink', '--lambda-placement', 'output'], '--lambda-placement weight'),
        (['--target-macs', '0.01'], 'cannot be reached'),
        (['--target-macs', '0.7', '--num-epochs', '2'], 'more epochs'),
        (['--freeze-dead', '--kv-store', 'dist_sync'], 'use --kv-store local or device on one machine'),
        (['--target-macs', '0.5', '--kv-store', 'dist_async'], 'use --kv-store local or device on one machine'),
        (['--target-params', '0.5', '--kv-store', 'horovod'], 'use --kv-store local or device on one machine'),
    ],
)
def test_what_cannot_be_selected_is_refused_in_one_line(flags, words, tmp_path, capfd):
    line = refused(capfd, tmp_path, '--network', save_network(tmp_path), *NOISE, '--num-epochs', '6', *flags)
    assert words in line


def test_the_smallest_possible_share_can_be_had(tmp_path, capfd):
    """The share that the error names is one that a run reaches."""
    network, prefix = save_network(tmp_path, kinds=('block', 'neuron')), tmp_path / 'run'
    line = refused(capfd, tmp_path, '--network', network, *NOISE, '--num-epochs', '6', '--target-macs', '0.01')
    smallest = line.split()[-1]
    assert train(network, prefix, *FLAGS, '--gamma', '0.001', '--target-macs', smallest) == 0
    assert alive(prefix)[-1] / metrics(prefix)[-1]['full']['macs'] <= float(smallest)


def test_another_budget_is_another_run(tmp_path, capfd):
    network, prefix = save_network(tmp_path), tmp_path / 'run'
    assert train(network, prefix, *FLAGS, *BUDGET) == 0
    line = refused(
        capfd,
        tmp_path,
        '--network',
        network,
        '--model-prefix',
        prefix,
        *NOISE,
        *FLAGS,
        '--target-macs',
        '0.6',
        '--gamma',
        '0.001',
        '--resume',
    )
    assert '--target-macs 0.7 (now 0.6)' in line


class _Rebuilt:
    """In the place of an engine: notes what it is to be rebuilt without."""

    def __init__(self):
        self.calls = []

    def shrink(self, dead):
        self.calls.append({name: mask.tolist() for name, mask in dead.items()})
        return Difference(1, 0.0, 0.0, 1.0, ())


def test_the_network_is_rebuilt_when_a_tenth_is_dead_or_nothing_more_dies(tmp_path):
    symbol, shapes = load_symbol(save_network(tmp_path, kinds=('neuron',), width=64)), {'data': (1, 3, 8, 8)}
    shapes_of = dict(zip(symbol.list_arguments(), symbol.infer_shape(**shapes)[0]))
    sizes = {vector.name: int(np.prod(shapes_of[vector.name])) for vector in lambda_layout(symbol)}
    full, count = complexity(symbol, shapes).macs, AliveCounter(symbol, shapes)

    def dead(number):
        return {name: np.arange(size) < number for name, size in sizes.items()}

    def left(number):
        return count({name: ~mask for name, mask in dead(number).items()}).macs

    enough = next(number for number in range(16) if left(number) <= 0.9 * full)
    assert left(enough + 1) > 0.9 * left(enough), 'one channel more must be less than a tenth'
    engine = _Rebuilt()
    rebuilds = Rebuilds(engine, symbol, shapes)
    assert not rebuilds.rebuild_if_it_pays(1, dead(enough - 1), is_final=False)
    assert rebuilds.rebuild_if_it_pays(2, dead(enough), is_final=False)
    state = json.loads(json.dumps(rebuilds.state()))
    assert not rebuilds.rebuild_if_it_pays(3, dead(enough + 1), is_final=False)
    assert rebuilds.rebuild_if_it_pays(4, dead(enough + 1), is_final=True)
    assert not rebuilds.rebuild_if_it_pays(5, dead(enough + 1), is_final=True)
    name = next(iter(sizes))
    assert [sum(call[name]) for call in engine.calls] == [enough, enough + 1]

    # A resumed run gets the network that a run which was not stopped has: the last channel waits, or goes at once.
    for is_final, expected in ((False, enough), (True, enough + 1)):
        resumed = _Rebuilt()
        Rebuilds(resumed, symbol, shapes).load(3, state, dead(enough + 1), is_final)
        assert [sum(call[name]) for call in resumed.calls] == [expected]
