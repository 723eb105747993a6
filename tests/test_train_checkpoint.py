"""What a run leaves on disk: complete, the same from the same seed, and enough to go on as if nothing had happened."""

import hashlib
import json
import os
import shutil
import signal

import mxnet
import numpy as np
import pytest
from helpers.tiny_runs import (
    BATCHES,
    checkpoint,
    manifests,
    metrics,
    open_bytes,
    save_network,
    train,
)

from runtime import mx
from train import build as plan
from train import train_cifar
from train.checkpoint import Checkpoints, State
from train.data.datasets import load_dataset, train_iterator
from train.engines.mxnet import MXNetEngine

# The learning rate drops after two epochs, with momentum in every parameter.
FLAGS = ['--lr-step-epochs', '2', '--lr', '0.1', '--gamma', '0.1', '--keep', '9']
EPOCHS = 4


@pytest.fixture(scope='module')
def network(tmp_path_factory):
    return save_network(tmp_path_factory.mktemp('network'))


@pytest.fixture(scope='module')
def reference(network, tmp_path_factory):
    """The prefix of a run that nothing interrupted."""
    prefix = str(tmp_path_factory.mktemp('reference') / 'run')
    assert train(network, prefix, *FLAGS, '--num-epochs', EPOCHS) == 0
    return prefix


@pytest.fixture
def run(reference, tmp_path):
    """The prefix of a copy of the reference, to be damaged."""
    shutil.copytree(os.path.dirname(reference), str(tmp_path / 'copy'))
    return str(tmp_path / 'copy' / 'run')


def manifest(prefix, epoch):
    with open(f'{prefix}-{epoch:04d}.json', encoding='utf-8') as source:
        return json.load(source)


def interrupt(monkeypatch, epoch, batch, number=signal.SIGTERM):
    """Have this process get a signal while it reads a certain batch."""
    make = train_cifar.train_iterator

    def interrupted(*args, **share):
        iterator = make(*args, **share)
        read = iterator._batch

        def read_and_signal(index):
            if (iterator.epoch, index) == (epoch, batch):
                os.kill(os.getpid(), number)
            return read(index)

        iterator._batch = read_and_signal
        return iterator

    monkeypatch.setattr(train_cifar, 'train_iterator', interrupted)
    return lambda: monkeypatch.setattr(train_cifar, 'train_iterator', make)


# What there is


def test_files_and_manifest(reference):
    folder = os.path.dirname(reference)
    labels = [f'{epoch:04d}' for epoch in range(1, EPOCHS + 1)]
    expected = {f'run-{label}.{ending}' for label in labels for ending in ('params', 'states', 'json')}
    assert set(os.listdir(folder)) == expected | {'run-symbol.json', 'run-metrics.jsonl', 'run.log'}
    found = manifest(reference, 3)
    assert (found['epoch'], found['batch'], found['num_update']) == (3, 0, 3 * BATCHES)
    assert found['arguments']['gamma'] == 0.1
    assert found['versions']['mxnet'] == mxnet.__version__
    assert set(found['files']) == {'run-0003.params', 'run-0003.states'}
    for name, facts in found['files'].items():
        data = open_bytes(os.path.join(folder, name))
        assert facts == {'bytes': len(data), 'sha256': hashlib.sha256(data).hexdigest()}


def test_stock_mxnet_reads_all_of_it(reference):
    symbol, arguments, states = mxnet.model.load_checkpoint(reference, EPOCHS)
    assert set(symbol.list_arguments()) - set(arguments) == {'data', 'softmax_label'}
    assert set(symbol.list_auxiliary_states()) == set(states)
    momentum = mxnet.nd.load(f'{reference}-{EPOCHS:04d}.states')
    assert len(momentum) == len(arguments)
    assert all(np.abs(array.asnumpy()).sum() > 0 for array in momentum.values())


def test_the_statistics_saved_are_those_after_the_last_update(network, tmp_path):
    """They arrive late in MXNet. One batch from their start, mean 0 and variance 1, tells what they must be: 0.9 of it
    and 0.1 of the batch's.
    """
    assert train(network, tmp_path / 'run', '--num-epochs', 1, '--num-examples', 32, '--lr', 0) == 0
    symbol, arguments, states = mxnet.model.load_checkpoint(str(tmp_path / 'run'), 1)
    data = train_iterator(load_dataset('synthetic', image_shape=(3, 8, 8), num_examples=32), 32, seed=0).next().data[0]
    stem = mx.nd.Convolution(
        data, arguments['conv0_weight'], num_filter=16, kernel=(3, 3), pad=(1, 1), no_bias=True
    ).asnumpy()
    np.testing.assert_allclose(
        states['stage1_unit1_bn1_moving_mean'].asnumpy(), 0.1 * stem.mean(axis=(0, 2, 3)), atol=1e-5
    )
    np.testing.assert_allclose(
        states['stage1_unit1_bn1_moving_var'].asnumpy(), 0.9 + 0.1 * stem.var(axis=(0, 2, 3)), rtol=1e-4
    )


def test_two_runs_of_one_seed_write_the_same_bytes(network, reference, tmp_path):
    assert train(network, tmp_path / 'again', *FLAGS, '--num-epochs', EPOCHS) == 0
    assert train(network, tmp_path / 'other', *FLAGS, '--num-epochs', 1, '--seed', 1) == 0
    for epoch in range(1, EPOCHS + 1):
        assert checkpoint(tmp_path / 'again', epoch) == checkpoint(reference, epoch)
    assert checkpoint(tmp_path / 'other', 1)[0] != checkpoint(reference, 1)[0]


def states_after(folder, accuracies, keep):
    """Save an epoch with each of these validation accuracies; the labels that are left."""
    checkpoints, best = Checkpoints(str(folder / 'run'), keep), None
    symbol, array = mx.sym.Variable('weight'), {'weight': mx.nd.ones(3)}
    for epoch, accuracy in enumerate(accuracies, start=1):
        best = best if best and best[0] >= accuracy else [accuracy, epoch]
        checkpoints.save(symbol, State(epoch, 0, array, {}, (epoch, {}), {}, best, {}), {})
    return manifests(folder)


@pytest.mark.parametrize(
    ('accuracies', 'keep', 'left'),
    [
        ([0.1, 0.5, 0.2, 0.3, 0.4], 2, ['0002', '0004', '0005']),
        ([0.1, 0.2, 0.3, 0.4, 0.5], 2, ['0004', '0005']),
        ([0.5, 0.4, 0.3, 0.2, 0.1], 1, ['0001', '0005']),
        ([0.5, 0.4], 3, ['0001', '0002']),
    ],
)
def test_the_last_and_the_best_are_kept(tmp_path, accuracies, keep, left):
    assert states_after(tmp_path, accuracies, keep) == left
    for ending in ('params', 'states'):
        assert sorted(name for name in os.listdir(str(tmp_path)) if name.endswith(ending)) == [
            f'run-{label}.{ending}' for label in left
        ]


# Going on


def on_kvstore(monkeypatch):
    """Let the optimizer run inside a kvstore on a single device, where MXNet would leave the kvstore out."""

    def engine(symbol, contexts, data_shapes, label_shapes, kvstore, group):
        made = MXNetEngine(symbol, contexts, data_shapes, label_shapes, mx.kv.create(kvstore), group)
        engines.append(made)
        return made

    engines = []
    monkeypatch.setattr(plan, 'MXNetEngine', engine)
    return lambda: all(made._module._update_on_kvstore for made in engines)


@pytest.mark.parametrize('kvstore', [False, True])
@pytest.mark.parametrize('dropout', [0, 0.3])
@pytest.mark.parametrize(('number', 'epoch', 'batch'), [(signal.SIGTERM, 1, 2), (signal.SIGINT, 2, 0)])
def test_resumed_equals_uninterrupted(tmp_path, monkeypatch, kvstore, dropout, number, epoch, batch):
    """Stopped before and after the learning rate drops, at the end of epoch 1."""
    network = save_network(tmp_path, dropout=dropout)
    is_on_kvstore = on_kvstore(monkeypatch) if kvstore else None
    flags = [*FLAGS, '--num-epochs', 3]
    assert train(network, tmp_path / 'whole', *flags) == 0
    stop_interrupting = interrupt(monkeypatch, epoch, batch, number)
    assert train(network, tmp_path / 'resumed', *flags) == 128 + number
    assert f'stopped-{epoch:04d}-{batch + 1}' in manifests(tmp_path)
    stop_interrupting()
    assert train(network, tmp_path / 'resumed', *flags, '--resume') == 0
    for done in range(1, 4):
        assert checkpoint(tmp_path / 'resumed', done) == checkpoint(tmp_path / 'whole', done)
        assert manifest(tmp_path / 'resumed', done)['best'] == manifest(tmp_path / 'whole', done)['best']
    assert [without_time(line) for line in metrics(tmp_path / 'resumed')] == [
        without_time(line) for line in metrics(tmp_path / 'whole')
    ]
    assert not any('stopped' in name for name in os.listdir(str(tmp_path))), 'of no use any more'
    stopped_in = metrics(tmp_path / 'resumed')[epoch]
    trained_since = (BATCHES - batch - 1) * 32
    assert stopped_in['samples_per_second'] * stopped_in['seconds'] == pytest.approx(trained_since), (
        'what was done before the stop took no time after it'
    )
    if kvstore:
        assert is_on_kvstore()


def without_time(line):
    return {name: value for name, value in line.items() if name not in ('seconds', 'samples_per_second')}


def test_more_epochs_are_the_same_as_asking_for_them_at_once(network, reference, tmp_path):
    """The first run ends where the learning rate drops."""
    assert train(network, tmp_path / 'run', *FLAGS, '--num-epochs', 2) == 0
    assert train(network, tmp_path / 'run', *FLAGS, '--num-epochs', EPOCHS, '--resume') == 0
    assert checkpoint(tmp_path / 'run', EPOCHS) == checkpoint(reference, EPOCHS)


def test_an_earlier_epoch_leads_to_the_same_end(network, run, reference):
    assert train(network, run, *FLAGS, '--num-epochs', EPOCHS, '--load-epoch', 1) == 0
    assert checkpoint(run, EPOCHS) == checkpoint(reference, EPOCHS)
    assert [line['epoch'] for line in metrics(run)] == list(range(EPOCHS))


def test_a_signal_in_the_last_batch_finishes_the_epoch(network, reference, tmp_path, monkeypatch):
    stop_interrupting = interrupt(monkeypatch, 1, BATCHES - 1)
    assert train(network, tmp_path / 'run', *FLAGS, '--num-epochs', EPOCHS) == 128 + signal.SIGTERM
    assert manifests(tmp_path) == ['0001', '0002']
    assert len(metrics(tmp_path / 'run')) == 2
    stop_interrupting()
    assert train(network, tmp_path / 'run', *FLAGS, '--num-epochs', EPOCHS, '--resume') == 0
    assert checkpoint(tmp_path / 'run', EPOCHS) == checkpoint(reference, EPOCHS)


def test_stopped_twice_in_one_epoch(network, reference, tmp_path, monkeypatch):
    """Also before there is any other checkpoint. Each stop supersedes the one before, and never writes over it."""
    for batch, label in ((1, 'stopped-0000-2'), (4, 'stopped-0000-5')):
        stop_interrupting = interrupt(monkeypatch, 0, batch)
        resume = ['--resume'] if batch > 1 else []
        assert train(network, tmp_path / 'run', *FLAGS, '--num-epochs', EPOCHS, *resume) == 128 + signal.SIGTERM
        assert manifests(tmp_path) == [label]
        stop_interrupting()
    assert train(network, tmp_path / 'run', *FLAGS, '--num-epochs', EPOCHS, '--resume') == 0
    assert checkpoint(tmp_path / 'run', EPOCHS) == checkpoint(reference, EPOCHS)


def test_a_second_signal_is_not_waited_for(network, tmp_path, monkeypatch):
    make = train_cifar.train_iterator

    def impatient(*args, **share):
        iterator = make(*args, **share)
        iterator._batch = lambda index: [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)]
        return iterator

    monkeypatch.setattr(train_cifar, 'train_iterator', impatient)
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a process in the background of a shell ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            train(network, tmp_path / 'run', *FLAGS)
    finally:
        signal.signal(signal.SIGINT, before)
