"""How hypothesis behaves in every test here, what tests are called, how many threads they compute with, and runs that
tests of the trainer may spoil.
"""

import functools
import os
import shutil

import hypothesis
import pytest

# In toy networks a second thread mostly waits for the first, and uses up a core that another test could use: five times
# the processor time.
os.environ.setdefault('OMP_NUM_THREADS', '1')

# `make test` judges a change: it must say the same twice, and on a slow or busy machine too. Searching with fresh
# random cases is `make fuzz`'s business.
hypothesis.settings.register_profile(
    'steady', deadline=None, derandomize=True, print_blob=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile('steady')

from helpers import image_batches  # noqa: E402  (MXNet reads the number of threads when it is loaded)
from helpers.tiny_runs import refused, train  # noqa: E402


def pytest_make_parametrize_id(config, val, argname):
    """A test's name holds no file contents: archives carry the time they were made, and the processes of a parallel run
    must agree on the names.
    """
    return argname if isinstance(val, bytes) else None


@pytest.fixture(scope='module')
def trained(network, tmp_path_factory):
    """The prefix of a run of two epochs of the module's own ``network``."""
    prefix = str(tmp_path_factory.mktemp('trained') / 'run')
    assert train(network, prefix, '--num-epochs', 2) == 0
    return prefix


@pytest.fixture
def run(trained, tmp_path):
    """The prefix of a run of two epochs that may be spoilt."""
    shutil.copytree(os.path.dirname(trained), str(tmp_path / 'copy'))
    return str(tmp_path / 'copy' / 'run')


@pytest.fixture
def refusal(tmp_path, capfd):
    """``refused``, of a script that must leave ``tmp_path`` as it was."""
    return functools.partial(refused, capfd, tmp_path)


@pytest.fixture(scope='module')
def rec(tmp_path_factory):
    """A record file of 30 images of 3 classes."""
    return image_batches.save_images(tmp_path_factory.mktemp('images'))


@pytest.fixture
def open_images():
    """``image_batches.open_images``; what it opened is closed after the test."""
    opened = []

    def open_them(*flags, **options):
        opened.append(image_batches.open_images(*flags, **options))
        return opened[-1]

    yield open_them
    for data in opened:
        data.pool.close()


@pytest.fixture
def images(open_images, rec):
    """Training and validation on the same 30 images, decoded by two processes."""
    return open_images('--data-train', rec, '--data-val', rec, processes=2)
