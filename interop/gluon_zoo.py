"""GluonCV's networks, whether PyTorch is installed beside it or not."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any, Dict, Optional

from runtime import mx
from runtime.errors import CheckpointError, MissingDependencyError, UnknownNetworkError


def zoo_network(name: str, **options: Any) -> mx.gluon.Block:
    """GluonCV's network ``name`` as a Gluon block; nothing is fetched (``pretrained=False``) and parameters are not
    initialised.

    ``options``, such as ``classes=10``, are GluonCV's own. Raises UnknownNetworkError for a name that GluonCV does not
    have, MissingDependencyError where GluonCV is not installed.
    """
    zoo = _model_zoo()
    try:
        return zoo.get_model(name, pretrained=False, **options)
    except ValueError:
        raise UnknownNetworkError(
            f'GluonCV has no network {name!r}; its names look like resnet50_v2, resnext50_32x4d, vgg16_bn'
        ) from None


def zoo_structure(block: mx.gluon.Block) -> Dict[str, str]:
    """For each parameter of a Gluon block: its name behind the block's own prefix → its name by structure, as
    ``save_parameters`` writes it.
    """
    return {
        parameter.name[len(block.prefix) :]: name for name, parameter in block._collect_params_with_prefix().items()
    }


def zoo_file(name: str) -> str:
    """The ``.params`` file with GluonCV's weights for its network ``name``, fetched into MXNet's cache where it is not
    there yet.

    Raises UnknownNetworkError where GluonCV has no weights for it, CheckpointError where they cannot be fetched.
    """
    zoo = _model_zoo()
    try:
        # It announces a download on stdout, which belongs to the results.
        with contextlib.redirect_stdout(sys.stderr):
            return zoo.model_store.get_model_file(name)
    except ValueError as error:
        raise UnknownNetworkError(
            f'{name}: no checkpoint or file has this name, and GluonCV has no weights for it ({error})'
        ) from None
    except Exception as error:
        raise CheckpointError(
            f'the weights of {name} could not be fetched ({type(error).__name__}); name a .params file that you have'
        ) from None


def zoo_file_on_disk(name: str) -> Optional[str]:
    """The path of GluonCV's weights for its network ``name`` in MXNet's cache; None where they are not there."""
    store = _model_zoo().model_store
    try:
        file_name = f'{name.lower()}-{store.short_hash(name.lower())}.params'
    except ValueError:
        return None
    root = os.path.join(os.environ.get('MXNET_HOME', os.path.join('~', '.mxnet')), 'models')
    path = os.path.join(os.path.expanduser(root), file_name)
    return path if os.path.exists(path) else None


def _model_zoo():
    """``gluoncv.model_zoo``. GluonCV refuses to be imported where it finds PyTorch 2, which it does not need here: the
    import of PyTorch is made to fail meanwhile.
    """
    try:
        with _hidden('torch'):
            from gluoncv import model_zoo
    except ImportError:
        raise MissingDependencyError('GluonCV is not installed: pip install gluoncv==0.10.5.post0') from None
    return model_zoo


@contextlib.contextmanager
def _hidden(module):
    """Let ``import module`` fail as it does where the module is not installed."""
    known = {name: loaded for name, loaded in sys.modules.items() if name == module}
    sys.modules[module] = None
    try:
        yield
    finally:
        del sys.modules[module]
        sys.modules.update(known)
