"""An optimizer that fails inside a kvstore must end the training, not be ignored."""

import subprocess
import sys

import pytest
from helpers.cluster import Cluster
from helpers.kvstores import KEYS, store_with, train
from helpers.schedules import batches, initial, module, moved

import optimizers  # noqa: F401  (registers 'apg')
from optimizers.stopping import stops_training
from runtime import mx
from runtime.errors import TrainingError


@pytest.mark.parametrize('kind', ['local', 'device'])
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
def test_a_key_without_a_name_ends_training_on_a_kvstore(kind):
    with pytest.raises(TrainingError, match='inside the kvstore: APG does not know the name of parameter 3'):
        train(store_with(mx.optimizer.create('apg'), kind))
    assert sys.gettrace() is None


@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
def test_so_does_an_error_in_a_later_update():
    class Failing(optimizers.APG):
        @stops_training
        def update_multi_precision(self, index, weight, grad, state):
            super().update_multi_precision(index, weight, grad, state)
            if self.num_update == 3 and index == KEYS[2]:
                raise ValueError('out of luck')

    optimizer = Failing(param_idx2name={key: f'fc{key}_weight' for key in KEYS})
    with pytest.raises(TrainingError, match='out of luck'):
        train(store_with(optimizer))
    assert optimizer.num_update == 3


@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
def test_module_stops_in_the_step_that_failed():
    made = module(2, 'device', initial())
    made._kvstore.set_optimizer(mx.optimizer.create('apg', lambda_name=None))
    with pytest.raises(TrainingError, match='inside the kvstore'):
        moved(made, batches()[:1])


def test_outside_a_kvstore_the_error_is_raised_as_it_is():
    @stops_training
    def fails():
        raise KeyError('itself')

    with pytest.raises(KeyError, match='itself'):
        fails()


TRAINING_SCRIPT = """
from runtime import mx
from runtime.cli import run
import optimizers
from helpers.kvstores import store_with, train

def main(argv):
    train(store_with(mx.optimizer.create('apg')), 60)
    print('trained to the end')
    return 0

run(main)
"""


def test_a_script_ends_with_exit_code_2_and_says_why(tmp_path):
    done = subprocess.run(
        [sys.executable, '-c', TRAINING_SCRIPT],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=__file__.rsplit('/', 1)[0],
    )
    assert done.returncode == 2
    assert 'trained' not in done.stdout
    assert done.stderr.splitlines()[-1].startswith(
        'error: the optimizer failed inside the kvstore: APG does not know the name of parameter 3'
    )


DIST_WORKER = """
from train.distributed.role import serve
serve()  # a server or the scheduler stays in here
from runtime import mx
import optimizers
from train.distributed.parameter_servers import ParameterServers
store = ParameterServers('dist_sync', address_key=1000).store
store.set_optimizer(mx.optimizer.create('apg'))
store.init(3, mx.nd.ones((2,)))
while True:
    store.push(3, mx.nd.ones((2,)))
    store.pull(3, mx.nd.ones((2,)))
"""


def test_a_parameter_server_ends_with_exit_code_2_and_says_why():
    with Cluster(DIST_WORKER, workers=1) as cluster:
        _, complaint = cluster.server.communicate(timeout=150)
        assert cluster.server.returncode == 2
    assert (
        'error: the optimizer failed on this parameter server: APG does not know the name of parameter 3' in complaint
    )
