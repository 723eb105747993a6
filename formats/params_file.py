"""MXNet's ``.params`` files: arrays by name, read safely and written atomically, byte for byte as ``mx.nd.save`` would
write them.

Reading never hands the file to C++: ``array_format`` checks the whole layout against the file's length first, then each
array is read in Python, so a damaged or hostile file is a CheckpointError, and memory never exceeds the arrays plus the
largest one of them.
"""

import numpy as np

from runtime import mx
from runtime.errors import CheckpointError
from runtime.files import written_whole
from runtime.reading import open_regular, size_of

from . import array_format


def load_params(path):
    """Read a network's parameters: ``(arg_params, aux_params)``, two dicts name → mx.nd.NDArray.

    Raises CheckpointError for a file that is missing, damaged, or holds arrays whose names do not begin with ``arg:``
    or ``aux:``.
    """
    arrays = load_arrays(path)
    params = {'arg': {}, 'aux': {}}
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


def save_params(path, arg_params, aux_params):
    """Write a network's parameters (two dicts name → NDArray) atomically.

    The same parameters give the same bytes, whatever the order of the dicts. Raises OSError when the disk is full, and
    then leaves no file behind.
    """
    arrays = {f'arg:{name}': array for name, array in arg_params.items()}
    arrays.update((f'aux:{name}', array) for name, array in aux_params.items())
    save_arrays(path, arrays)


def load_arrays(path):
    """Read any file of named dense arrays: a dict name → mx.nd.NDArray on the CPU, in the file's order. Raises
    CheckpointError.
    """
    with open_regular(path, error=CheckpointError) as source:
        layout = array_format.read_layout(source, path, size_of(source))
        return {name: _read(source, record, path, name) for name, record in layout.items()}


def save_arrays(path, arrays):
    """Write a dict name → NDArray (or NumPy array) atomically, sorted by name, in the dtypes that MXNet has."""
    # BatchNorm's moving statistics are still on their way right after an update.
    mx.nd.waitall()
    names = sorted(arrays)
    with written_whole(path) as scratch, open(scratch, 'wb') as out:
        out.write(array_format.list_header(len(names)))
        for name in names:
            data = _on_host(arrays[name], path, name)
            out.write(array_format.array_header(data.shape, data.dtype))
            out.write(data.data if data.size else b'')
        out.write(array_format.name_list(names))


def require_finite(params, path):
    """Raise CheckpointError with tensor, index and value if a dict name → NDArray holds NaN or infinity."""
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
