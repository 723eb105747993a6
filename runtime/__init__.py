"""MXNet, imported once and with all cores, under the name ``mx``.

Every module of this project takes MXNet from here (``from runtime import mx``), because the one setting that decides
its speed is read only once, while the library loads. It loads when something of ``mx`` is first used: ``--help`` and
processes that only decode images save its second and its 150 MB. So that an import of ours does not use it,
modules with ``mx`` in annotations begin with ``from __future__ import annotations``.
"""

import importlib
import os
from typing import TYPE_CHECKING

from .lazy import LazyModule


def usable_cores() -> int:
    """The number of processor cores that this process may run on."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# Whether the user has decided about the number of threads.
THREADS_GIVEN = 'OMP_NUM_THREADS' in os.environ

# Left unset, MXNet trains on one thread however many cores there are.
os.environ.setdefault('OMP_NUM_THREADS', str(usable_cores()))

# It says so at every bind otherwise.
os.environ.setdefault('MXNET_SUBGRAPH_VERBOSE', '0')


def _load_mxnet(name):
    """MXNet. Started as a parameter server or scheduler, it would serve inside its import, with a server that unpickles
    what the network sends. Ours is train.distributed.server, which the training scripts start.
    """
    role = os.environ.pop('DMLC_ROLE', None)
    try:
        return importlib.import_module(name)
    finally:
        if role is not None:
            os.environ['DMLC_ROLE'] = role


if TYPE_CHECKING:
    import mxnet as mx
else:
    mx = LazyModule('mxnet', _load_mxnet)

__all__ = ['THREADS_GIVEN', 'mx', 'usable_cores']
