"""Several devices, workers and servers train the network that one process trains; interrupted and resumed, they train
it still.
"""

import signal

import pytest
from helpers.clustered_runs import cluster
from helpers.tiny_runs import DIGITS, checkpoint, log_lines, manifests, metrics, save_network, train

FLAGS = ['--num-epochs', '3', '--lr-step-epochs', '2', '--gamma', '0.05', '--disp-batches', '5']
OF_TWO = [*DIGITS, *FLAGS, '--batch-size', '32']


@pytest.fixture(scope='module')
def network(tmp_path_factory):
    """Two residual blocks with batch normalisation."""
    return save_network(tmp_path_factory.mktemp('network'))


@pytest.fixture(scope='module')
def reference(network, tmp_path_factory):
    """One process with two devices, which get the images that two workers get: 66 steps of 64 images."""
    prefix = str(tmp_path_factory.mktemp('reference') / 'run')
    assert train(network, prefix, *FLAGS, '--batch-size', '64', '--cpus', '2', data=DIGITS) == 0
    return prefix


def check_equal(prefix, reference):
    assert checkpoint(prefix, 3) == checkpoint(reference, 3)
    assert len(metrics(prefix)) == 3
    for line, expected in zip(metrics(prefix), metrics(reference)):
        assert line['lambda_values'] == expected['lambda_values']
        assert line['validation_images'] == 360
        for kind in ('train', 'validation'):
            assert line[kind] == pytest.approx(
                expected[kind], abs=1e-6
            )  # losses are summed in another order, in float32


def test_two_devices_resume_in_the_middle_of_an_epoch(network, reference, tmp_path, monkeypatch):
    prefix = str(tmp_path / 'run')
    flags = [*FLAGS, '--batch-size', '64', '--cpus', '2']
    stop_after(30, monkeypatch)
    assert train(network, prefix, *flags, data=DIGITS) == 128 + signal.SIGTERM
    assert manifests(tmp_path)[-1] == 'stopped-0001-8'
    monkeypatch.undo()
    assert train(network, prefix, *flags, '--resume', data=DIGITS) == 0
    check_equal(prefix, reference)


def stop_after(steps, monkeypatch):
    from train.engines.mxnet import MXNetEngine

    step, done = MXNetEngine.step, []

    def stopping(self, *args):
        done.append(None)
        if len(done) == steps:
            signal.raise_signal(signal.SIGTERM)
        return step(self, *args)

    monkeypatch.setattr(MXNetEngine, 'step', stopping)


def test_two_workers_and_a_server_interrupted_and_resumed_are_one_process_with_two_devices(
    network, reference, tmp_path
):
    # The run is over in seconds: on a busy machine it may be so before the signal comes, and is then begun anew.
    for attempt in range(5):
        folder = tmp_path / str(attempt)
        prefix = str(folder / 'run')
        with cluster(network, prefix, *OF_TWO) as run:
            run.wait_for('Epoch[0] Batch [0-5]')
            run.process.send_signal(signal.SIGINT)
            code = run.ends()
            assert not run.outlived_by()
        if code:
            break
    assert code == 128 + signal.SIGINT
    assert manifests(folder)[-1].startswith('stopped-')
    with cluster(network, prefix, *OF_TWO, '--resume') as run:
        assert run.ends() == 0, run.said
        assert not run.outlived_by()
        assert {'Node[0]', 'Node[1]'} <= set(run.said.split())
    check_equal(prefix, reference)
    assert all('Node[0]' in line for line in log_lines(prefix))


def test_large_arrays_in_pieces_on_two_servers_and_another_number_of_workers_resume_too(network, reference, tmp_path):
    prefix = str(tmp_path / 'run')
    with cluster(network, prefix, *OF_TWO, '--num-epochs', '2', servers=2, MXNET_KVSTORE_BIGARRAY_BOUND='100') as run:
        assert run.ends() == 0, run.said
    assert train(network, prefix, *FLAGS, '--batch-size', '64', '--cpus', '2', '--resume', data=DIGITS) == 0
    check_equal(prefix, reference)
