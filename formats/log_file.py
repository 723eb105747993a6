"""``PREFIX.log``, of which one line is read again: ``Run: {...}``, which says how a run was started."""

from typing import Any, Dict

from runtime.errors import DataError
from runtime.reading import MB, parsed_json, read_text

from .json_shape import misfit

MAX_BYTES = 256 * MB
MARK = ' Run: '


def read_run_line(path: str) -> Dict[str, Any]:
    """The ``Run:`` line of the last start of a run, a dict with its command, 'arguments' and 'versions'. Raises
    DataError where there is none.
    """
    starts = [line for line in read_text(path, MAX_BYTES).split('\n') if MARK in line]
    if not starts:
        raise DataError(f'{path}: no line says how the run was started')
    found = parsed_json(starts[-1].partition(MARK)[2], path)
    reason = misfit(found, {'arguments': dict, 'versions': dict})
    if reason:
        raise DataError(f'{path}: no line says how the run was started ({reason})')
    return found
