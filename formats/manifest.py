"""The manifest of a checkpoint: JSON with a sum over all of it, and the sums of the files that belong to it."""

import hashlib
import json
import os
from typing import Any, Dict

from runtime.errors import CheckpointError
from runtime.files import sha256
from runtime.reading import MB, read_json

LARGEST = 64 * MB  # bytes of a manifest: a hundred times those of the largest networks


def sealed(manifest: Dict[str, Any]) -> Dict[str, Any]:
    """``manifest`` with its own SHA-256 sum under 'sha256', by which ``read_manifest`` notices damage."""
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
    """Raise CheckpointError unless the file ``path`` exists and its SHA-256 sum is ``facts['sha256']``."""
    if not os.path.exists(path):
        raise CheckpointError(f'{path}: no such file, but its manifest names it')
    found = sha256(path)
    if found != facts['sha256']:
        raise CheckpointError(f'{path}: damaged, its sha256 is {found}, its manifest says {facts["sha256"]}')


def sums(manifest: Dict[str, Any]) -> Dict[str, Any]:
    """What ``manifest`` says of each file, by the file's ending ('.params'). Its name does not matter: the run may have
    been copied or renamed.
    """
    return {os.path.splitext(name)[1]: facts for name, facts in manifest['files'].items()}
