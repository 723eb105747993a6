"""A file that a reader must refuse."""

import time

import pytest

from runtime.errors import CheckpointError


def refused(load, path, data, reason='.'):
    """``load`` of these bytes ends within a second, in a CheckpointError that names the file and matches ``reason``."""
    path.write_bytes(data)
    start = time.process_time()
    with pytest.raises(CheckpointError, match=reason) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert time.process_time() - start < 1
