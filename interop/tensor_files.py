"""Files of named tensors of MXNet, PyTorch and safetensors, as dicts name → NumPy array, read by ``formats``."""

import functools
import os
from typing import Dict

import numpy as np

from formats.params_file import load_arrays
from formats.safetensors_file import load_safetensors
from formats.torch_file import load_torch_state
from runtime.errors import CheckpointError

from .gluon_zoo import zoo_network, zoo_structure

TORCH_ENDINGS = ('.pth', '.pt', '.th')
SAFETENSORS_ENDING = '.safetensors'
PARAMS_ENDING = '.params'
_MXNET_PREFIXES = ('arg:', 'aux:')
# GluonCV's networks that are ours as well.
_ZOO = ('resnet50_v2', 'resnet101_v2', 'resnet152_v2', 'resnext50_32x4d', 'resnext101_32x4d', 'vgg16_bn')


def is_file_of_tensors(source: str) -> bool:
    """Whether ``source`` is, by its ending, a file for ``read_tensors``, and not the name of a network."""
    return source.endswith(PARAMS_ENDING) or is_state_dict(source)


def is_state_dict(source: str) -> bool:
    """Whether ``source`` is, by its ending, a state dict of PyTorch."""
    return source.endswith((SAFETENSORS_ENDING, *TORCH_ENDINGS))


def read_tensors(path: str) -> Dict[str, np.ndarray]:
    """The tensors of a ``.params``, ``.pth``, ``.pt``, ``.th`` or ``.safetensors`` file.

    Raises CheckpointError for a file that is damaged, empty, or of another ending.
    """
    ending = os.path.splitext(path)[1]
    if ending in TORCH_ENDINGS:
        tensors = _module_names(load_torch_state(path))
    elif ending == SAFETENSORS_ENDING:
        tensors = _module_names(load_safetensors(path))
    elif ending == PARAMS_ENDING:
        tensors = _gluon_names({_bare(name): array.asnumpy() for name, array in load_arrays(path).items()})
    else:
        raise CheckpointError(
            f'{path}: unknown kind of file; known endings are '
            f'{", ".join((PARAMS_ENDING, *TORCH_ENDINGS, SAFETENSORS_ENDING))}'
        )
    if not tensors:
        raise CheckpointError(f'{path}: holds no tensors')
    return tensors


def _bare(name):
    return name[4:] if name.startswith(_MXNET_PREFIXES) else name


def _module_names(tensors):
    """The names of a ``TorchGraph`` ('arg.conv0_weight') as MXNet has them; those of anything else as they are."""
    if all(name.startswith(('arg.', 'aux.')) for name in tensors):
        return {name[4:].replace('%2E', '.').replace('%25', '%'): array for name, array in tensors.items()}
    return tensors


def _gluon_names(tensors):
    """Names such as ``resnetv20_stage1_conv0_weight``, as Gluon's ``export`` and its old ``save_params`` write them, as
    those of ``save_parameters``.
    """
    prefix = os.path.commonprefix(list(tensors))
    prefix = prefix[: prefix.rfind('_') + 1]
    bare = {name[len(prefix) :] for name in tensors}
    if not prefix or '.' in prefix:
        return tensors
    for network in _ZOO:
        structure = _structure(network)
        if structure.keys() == bare:
            return {structure[name[len(prefix) :]]: array for name, array in tensors.items()}
    return tensors


@functools.lru_cache(maxsize=None)
def _structure(network):
    return zoo_structure(zoo_network(network))
