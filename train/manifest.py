"""The manifest of a checkpoint: JSON with a sum over all of it, and the optimizer's states as JSON."""

import hashlib
import json
import os
from typing import Any, Dict

from runtime import mx
from runtime.errors import CheckpointError
from runtime.files import sha256
from runtime.reading import MB, read_json

LARGEST = 64 * MB  # bytes of a manifest: a hundred times those of the largest networks


def sealed(manifest: Dict[str, Any]) -> Dict[str, Any]:
    """``manifest`` with a sum over all the rest of it, so that a damaged one is told from a true one."""
    return dict(manifest, sha256=hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest())


def read_manifest(path: str) -> Dict[str, Any]:
    """The manifest at ``path``. Raises CheckpointError where there is none, or it is damaged."""
    if not os.path.lexists(path):
        raise CheckpointError(f'{path}: no such checkpoint')
    manifest = read_json(path, LARGEST, CheckpointError)
    try:
        rest = {name: value for name, value in manifest.items() if name != 'sha256'}
        if sealed(rest)['sha256'] != manifest.get('sha256'):
            raise ValueError('its sha256 does not fit')
        return manifest
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f'{path}: damaged, or not a manifest of this trainer ({error})') from None


def check_sum(path: str, facts: Dict[str, Any]) -> None:
    """Raise CheckpointError unless the file is there and has the sum that its manifest says."""
    if not os.path.exists(path):
        raise CheckpointError(f'{path}: no such file, but its manifest names it')
    found = sha256(path)
    if found != facts['sha256']:
        raise CheckpointError(f'{path}: damaged, its sha256 is {found}, its manifest says {facts["sha256"]}')


def flatten(state: Any, name: str, arrays: Dict[str, mx.nd.NDArray]) -> Any:
    """``state`` as JSON, its arrays moved to ``arrays`` under names that begin with ``name``."""
    if isinstance(state, mx.nd.NDArray):
        arrays[name] = state
        return {'array': name}
    if isinstance(state, (list, tuple)):
        return {type(state).__name__: [flatten(part, f'{name}/{index}', arrays) for index, part in enumerate(state)]}
    return state if state is None else float(state)


def unflatten(tree: Any, arrays: Dict[str, mx.nd.NDArray]) -> Any:
    """The state that ``flatten`` was given."""
    if not isinstance(tree, dict):
        return tree
    ((kind, content),) = tree.items()
    if kind == 'array':
        return arrays[content]
    parts = [unflatten(part, arrays) for part in content]
    return tuple(parts) if kind == 'tuple' else parts
