"""The ground floor: MXNet, imported once and with all cores, under the name ``mx``.

Every module of this project takes MXNet from here (``from runtime import mx``), because the one setting that decides its speed is read only once, while
the library loads.
"""
import os


def usable_cores():
    """The number of processor cores that this process may run on."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# Left unset, MXNet trains on one thread however many cores there are.
os.environ.setdefault('OMP_NUM_THREADS', str(usable_cores()))

# It says so at every bind otherwise.
os.environ.setdefault('MXNET_SUBGRAPH_VERBOSE', '0')

# A parameter server serves inside its import of MXNet, half loaded, where no optimizer of ours could be unpickled: it is let loose when MXNet is whole.
_role = os.environ.pop('DMLC_ROLE', None)

import mxnet as mx  # noqa: E402  (the environment must stand before MXNet is loaded)

if _role is not None:
    os.environ['DMLC_ROLE'] = _role
    from .parameter_server import serve

    serve()  # in a worker it returns at once

__all__ = ['mx', 'usable_cores']
