"""MXNet's ``.params`` files: arrays by name, read safely and written atomically, byte for byte as ``mx.nd.save`` would
write them.

MXNet's C++ reader never sees the file: ``array_format`` first checks the whole layout against the file's length, then
each array is read in Python. So a damaged or hostile file is a CheckpointError, and the memory needed is that of the
arrays plus the largest one of them.
"""

from __future__ import annotations

from typing import Dict, Mapping, Tuple, Union

import numpy as np

from runtime import mx
from runtime.errors import CheckpointError
from runtime.files import written_whole
from runtime.reading import open_regular, size_of

from . import array_format

Array = Union['mx.nd.NDArray', np.ndarray]


def load_params(path: str) -> Tuple[Dict[str, mx.nd.NDArray], Dict[str, mx.nd.NDArray]]:
    """Read a network's parameters: ``(arg_params, aux_params)``, two dicts name → NDArray.

    Raises CheckpointError for a file that is missing, damaged, or holds arrays whose names do not begin with ``arg:``
    or ``aux:``.
    """
    arrays = load_arrays(path)
    params: Dict[str, Dict[str, mx.nd.NDArray]] = {'arg': {}, 'aux': {}}
    for key, array in arrays.items():
        kind, colon, name = key.partition(':')
        if kind not in params or not colon or not name:
            raise CheckpointError(
                f'{path}: the name {key!r} does not begin with arg: or aux:, so this is no checkpoint of a symbol'
            )
        params[kind][name] = array
    both = sorted(params['arg'].keys() & params['aux'].keys())
    if both:
        raise CheckpointError(f'{path}: {both[0]!r} is both an argument and an auxiliary state')
    return params['arg'], params['aux']


def save_params(path: str, arg_params: Mapping[str, Array], aux_params: Mapping[str, Array]) -> None:
    """Write a network's parameters (two dicts name → NDArray or NumPy array) atomically.

    The same parameters give the same bytes, whatever the order of the dicts. Raises as ``save_arrays``.
    """
    arrays = {f'arg:{name}': array for name, array in arg_params.items()}
    arrays.update((f'aux:{name}', array) for name, array in aux_params.items())
    save_arrays(path, arrays)


def load_arrays(path: str) -> Dict[str, mx.nd.NDArray]:
    """Read any file of named dense arrays: a dict name → NDArray on the CPU, in the file's order. Raises
    CheckpointError for a file that is missing or damaged.
    """
    with open_regular(path, error=CheckpointError) as source:
        layout = array_format.read_layout(source, path, size_of(source))
        return {name: _read(source, record, path, name) for name, record in layout.items()}


def save_arrays(path: str, arrays: Mapping[str, Array]) -> None:
    """Write a dict name → NDArray or NumPy array atomically, sorted by name.

    Raises CheckpointError for a dtype that MXNet does not have, OSError when the disk is full; then no file is left
    behind.
    """
    # MXNet computes asynchronously: right after an update, BatchNorm's moving statistics may not be there yet.
    mx.nd.waitall()
    names = sorted(arrays)
    with written_whole(path) as scratch, open(scratch, 'wb') as out:
        out.write(array_format.list_header(len(names)))
        for name in names:
            data = _on_host(arrays[name], path, name)
            out.write(array_format.array_header(data.shape, data.dtype))
            out.write(data.data if data.size else b'')
        out.write(array_format.name_list(names))


def require_finite(params: Mapping[str, mx.nd.NDArray], path: str) -> None:
    """Raise CheckpointError with tensor, index and value if a dict name → NDArray holds NaN or infinity. ``path`` is
    the file that the message names.
    """
    for name, array in params.items():
        values = array.asnumpy()
        if not np.issubdtype(values.dtype, np.floating):
            continue
        finite = np.isfinite(values)
        if not finite.all():
            index = tuple(int(i) for i in np.unravel_index(int(np.argmin(finite)), values.shape))
            raise CheckpointError(f'{path}: {name}{list(index)} is {values[index]}')


def _read(source, record, path, name):
    source.seek(record.offset)
    values = np.fromfile(source, record.dtype, int(np.prod(record.shape, dtype=np.int64)))
    if values.size != np.prod(record.shape):
        raise CheckpointError(f'{path}: the file shrank while {name!r} was read')
    if not record.shape:
        # Only NumPy-mode files hold scalars; outside that mode MXNet has no such shape, so a scalar becomes a vector of
        # one.
        return mx.nd.array(values.reshape(1), dtype=record.dtype)
    return mx.nd.array(values.reshape(record.shape), dtype=record.dtype)


def _on_host(array, path, name):
    data = np.ascontiguousarray(array.asnumpy() if isinstance(array, mx.nd.NDArray) else array)
    if data.dtype not in array_format.DTYPE_FLAGS:
        raise CheckpointError(f'{path}: {name!r} has dtype {data.dtype}, which MXNet does not have')
    return data
