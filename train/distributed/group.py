"""The workers that train one network together, and where its optimizer runs: one process alone, MXNet's parameter
servers, or Horovod.
"""

import argparse
import contextlib
import os
from typing import Iterator

from runtime.cli import report
from runtime.errors import UserError
from train.compute_arguments import SERVER_STORES

from .horovod import Horovod, require_horovod
from .secret import run_secret
from .workers import ALONE, Alone, Workers, compression_of

__all__ = ['ALONE', 'Alone', 'check_group', 'group_of']


@contextlib.contextmanager
def group_of(args: argparse.Namespace) -> Iterator[Alone]:
    """The group of ``--kv-store``, of which this process is one. After an error in the block, this process ends at
    once, since MXNet would wait for the other workers.
    """
    if args.kv_store not in (*SERVER_STORES, 'horovod'):
        yield Alone(args.kv_store, compression_of(args))
        return
    try:
        group = _group_of_several(args)
        yield group
        group.finish()
    except BaseException as error:
        os._exit(report(error))


def _group_of_several(args: argparse.Namespace) -> Workers:
    if args.kv_store == 'horovod':
        return Horovod(args.dist_timeout)
    from .parameter_servers import ParameterServers  # loads MXNet, so not before the command line is read

    return ParameterServers(args.kv_store, args.dist_timeout, compression_of(args))


def check_group(args: argparse.Namespace) -> None:
    """Raise UserError where ``--kv-store`` does not fit the other arguments or the environment, or needs a package that
    is not installed.
    """
    if args.gc_type != 'none' and args.kv_store not in (*SERVER_STORES, 'device'):
        raise UserError(
            f'--gc-type {args.gc_type} needs --kv-store device, {" or ".join(SERVER_STORES)}; {args.kv_store} sums '
            f'gradients as they are'
        )
    if args.engine == 'torch' and args.kv_store not in ('local', 'device'):
        raise UserError(f'--kv-store {args.kv_store} needs --engine mxnet')
    if args.kv_store in SERVER_STORES:
        if os.environ.get('DMLC_ROLE') != 'worker':
            raise UserError(
                f'--kv-store {args.kv_store} needs parameter servers; start the run with train/launch.py -n 2 COMMAND'
            )
        if args.lambda_rule == 'group-lasso':
            raise UserError(
                f'--lambda-rule group-lasso needs whole weights, and servers (--kv-store {args.kv_store}) have '
                f'pieces; take --kv-store horovod'
            )
        run_secret()
    if args.kv_store == 'horovod':
        require_horovod()
        run_secret()
