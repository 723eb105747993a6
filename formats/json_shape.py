"""Whether a JSON value has the shape that its reader needs, checked before the reader uses it."""

from typing import Any, Optional

# The key of a pattern that stands for every key that it does not name.
ANY = '*'


def misfit(value: Any, pattern: Any, name: str = 'it') -> Optional[str]:
    """Why a JSON ``value`` does not fit ``pattern``, for example 'train.loss is no number'; None where it fits.

    A pattern is a type (``float`` takes integers too, ``bool`` is no number), a list of one pattern for every item, or
    a dict from keys to patterns. 'key?' may be missing. ``ANY`` stands for all other keys; without it, their values may
    be anything.
    """
    if isinstance(pattern, dict):
        return _misfit_of_object(value, pattern, name)
    if isinstance(pattern, list):
        if not isinstance(value, list):
            return f'{name} is no list'
        found = (misfit(part, pattern[0], f'{name}[{index}]') for index, part in enumerate(value))
        return next((reason for reason in found if reason), None)
    wanted = (int, float) if pattern is float else pattern
    if isinstance(value, wanted) and (pattern is bool or not isinstance(value, bool)):
        return None
    return f'{name} is no {({str: "text", float: "number", int: "whole number"}).get(pattern, pattern.__name__)}'


def _misfit_of_object(value, pattern, name):
    if not isinstance(value, dict):
        return f'{name} is no object'
    required = {key for key in pattern if not key.endswith('?') and key != ANY}
    missing = sorted(required.difference(value))
    if missing:
        return f'{name} has no {missing[0]!r}'
    for key, part in value.items():
        expected = pattern.get(key, pattern.get(f'{key}?', pattern.get(ANY)))
        reason = misfit(part, expected, key if name == 'it' else f'{name}.{key}') if expected is not None else None
        if reason:
            return reason
    return None
