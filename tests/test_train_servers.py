"""Before the first step it is proved that the servers run the optimizer; and what cannot be asked of a group is refused
in one line.
"""

import sys

import numpy as np
import pytest
from helpers.clustered_runs import Launched, cluster
from helpers.tiny_runs import DIGITS, metrics, save_network

from runtime.errors import MissingDependencyError, UserError
from train import train_cifar
from train.build import make_optimizer, network
from train.distributed.server_states import Updater

FLAGS = [*DIGITS, '--num-epochs', '1', '--batch-size', '16', '--gamma', '0.05']

# The servers' copy of this project is another one than the workers'.
SERVER_WITH = """
import os, sys
if os.environ['DMLC_ROLE'] == 'server':
    import importlib.abc, importlib.machinery
    class Other(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path, target=None):
            if name == '{module}':
                {other}
    sys.meta_path.insert(0, Other())
sys.argv = sys.argv[1:]
import runpy
runpy.run_path(sys.argv[0], run_name='__main__')
"""
NO_APG = """
                import optimizers.rules
                del optimizers.rules.RULES['apg']
"""
OTHER_RULE = """
                import pathlib
                finder = importlib.machinery.PathFinder.find_spec(name, path)
                class Loader(importlib.machinery.SourceFileLoader):
                    def get_data(self, path):
                        if not path.endswith('.py'):
                            return b''
                        source = pathlib.Path(path).read_bytes()
                        return source.replace(b'lambda_ *= self.momentum', b'lambda_ *= 0')
                return importlib.machinery.ModuleSpec(name, Loader(name, finder.origin), origin=finder.origin)
"""


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    return save_network(tmp_path_factory.mktemp('network'))


@pytest.mark.parametrize(
    ('module', 'other', 'message'),
    [
        (
            'train.fit',
            NO_APG,
            "error: parameter server 0 refused a request of the workers: unknown rule 'apg'",
        ),
        ('optimizers.apg', OTHER_RULE, 'error: a first update did not move lambda_probe by the rule of the optimizer'),
    ],
)
def test_servers_with_another_optimizer_are_found_out_before_the_first_step(module, other, message, tiny, tmp_path):
    command = [
        sys.executable,
        '-c',
        SERVER_WITH.format(module=module, other=other),
        train_cifar.__file__,
        '--network',
        tiny,
        '--kv-store',
        'dist_sync',
        *FLAGS,
        '--model-prefix',
        tmp_path / 'run',
        '--disp-batches',
        '1',
    ]
    with Launched(['-n', 1], command) as run:
        assert run.ends() == 2
        assert message in run.said
        assert 'Batch [' not in run.said
        assert not run.outlived_by()
    assert list(tmp_path.iterdir()) == []


def test_asynchronous_workers_with_compressed_gradients_and_two_servers_learn(tiny, tmp_path):
    prefix = str(tmp_path / 'run')
    flags = [
        *DIGITS,
        '--num-epochs',
        '4',
        '--batch-size',
        '16',
        '--gamma',
        '0.01',
        '--lr',
        '0.05',
        '--gc-type',
        '2bit',
        '--gc-threshold',
        '0.02',
    ]
    with cluster(tiny, prefix, *flags, '--kv-store', 'dist_async', servers=2) as run:
        assert run.ends() == 0, run.said
    first, *_, last = [line['train']['cross-entropy'] for line in metrics(prefix)]
    assert last < first - 0.1


def parsed(*flags):
    parser = train_cifar.training_parser('')
    train_cifar.add_data_args(parser)
    return parser.parse_args(list(flags))


class Pair:
    """A group of two, as far as the optimizer asks."""

    size = 2

    def __init__(self, updates_per_step):
        self.updates_per_step = updates_per_step


@pytest.mark.parametrize(('updates', 'images', 'drop'), [(1, 32, 100), (2, 16, 200)])
def test_the_schedule_counts_updates_and_a_gradient_is_the_mean_of_what_is_summed(updates, images, drop, tiny):
    args = parsed('--network', tiny, '--batch-size', '16', '--lr-step-epochs', '10', '--lr', '0.1')
    optimizer = make_optimizer(args, network(args, (3, 8, 8), 10), 10, Pair(updates))
    assert optimizer.rescale_grad == 1 / images
    assert optimizer.lr_scheduler.step == [drop]
    assert optimizer.lr_scheduler.base_lr == 0.1
    args.scale_lr = True
    assert make_optimizer(args, network(args, (3, 8, 8), 10), 10, Pair(updates)).lr_scheduler.base_lr == 0.2


@pytest.mark.parametrize(
    ('flags', 'error', 'message'),
    [
        (['--kv-store', 'dist_sync'], UserError, 'needs parameter servers; start the run with train/launch.py'),
        (['--kv-store', 'dist_sync', '--engine', 'torch'], UserError, 'needs --engine mxnet'),
        (['--gc-type', '2bit'], UserError, '--gc-type 2bit needs --kv-store device, dist_sync'),
        (['--batch-size', '15', '--cpus', '2'], UserError, 'cannot be divided into equal shares for 2 devices'),
    ],
)
def test_what_cannot_be_is_refused(flags, error, message, tiny):
    from train.build import check_arguments

    with pytest.raises(error, match=message):
        check_arguments(parsed('--network', tiny, *flags), (3, 8, 8), 10)


def test_horovod_that_is_not_installed_is_named(monkeypatch, tiny):
    from train.build import check_arguments

    monkeypatch.setitem(sys.modules, 'horovod', None)
    with pytest.raises(MissingDependencyError, match='--kv-store horovod needs Horovod'):
        check_arguments(parsed('--network', tiny, '--kv-store', 'horovod'), (3, 8, 8), 10)


@pytest.mark.parametrize('is_compressed', [False, True])
@pytest.mark.parametrize(('whole', 'servers'), [(100, 3), (1601, 2), (64, 3)])
def test_pieces_on_servers_cover_an_array(whole, servers, is_compressed):
    """Without knowledge of the rule: pieces of whatever sizes they have must follow one another."""
    updater, array, pieces = Updater.__new__(Updater), np.arange(whole), []
    for server in range(servers):
        updater.resume(server, servers, is_compressed, {})
        sizes = [size for size in range(whole) if fits(updater, whole, size)]
        assert len(sizes) == 1
        pieces.append(array[updater._share(whole, sizes[0])])
    np.testing.assert_array_equal(np.concatenate(pieces), array)


def fits(updater, whole, size):
    try:
        updater._share(whole, size)
    except ValueError:
        return False
    return True
