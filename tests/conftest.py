"""How hypothesis behaves in every test here, what tests are called, and how many threads they compute with."""
import os

import hypothesis

# In toy networks a second thread mostly waits for the first, and uses up a core that another test could use: five times the processor time.
os.environ.setdefault('OMP_NUM_THREADS', '1')

# `make test` judges a change: it must say the same twice, and on a slow or busy machine too. Searching with fresh random cases is `make fuzz`'s business.
hypothesis.settings.register_profile('steady', deadline=None, derandomize=True, print_blob=True, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile('steady')


def pytest_make_parametrize_id(config, val, argname):
    """A test's name holds no file contents: archives carry the time they were made, and the processes of a parallel run must agree on the names."""
    return argname if isinstance(val, bytes) else None
