"""The optimizer's states as JSON, for the manifest of a checkpoint."""

from __future__ import annotations

from typing import Any, Dict

from runtime import mx


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
