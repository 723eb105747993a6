"""Values as bytes, for messages between the processes of a run: JSON for the structure, and MXNet's ``.params`` format
for the arrays.

Reading cannot run code: what comes out are None, numbers, text, lists, tuples, dicts, arrays and ``State``, nothing
else. In the JSON, a container is a dict with one entry, whose key says what it is; an array is its position in the list
of arrays.
"""

import io
import json
import struct
from typing import Any, List

import numpy as np

from formats import array_format
from runtime import mx
from runtime.errors import CheckpointError, TrainingError
from train.checkpoint import State

LENGTH = struct.Struct('<Q')  # of the JSON, which comes first


def encode(value: Any) -> bytes:
    """``value`` as bytes. Raises TypeError for a value that a message cannot hold."""
    arrays: List[np.ndarray] = []
    structure = json.dumps(_to_structure(value, arrays)).encode()
    parts = [LENGTH.pack(len(structure)), structure, array_format.list_header(len(arrays))]
    for array in arrays:
        parts += [array_format.array_header(array.shape, array.dtype), array.tobytes()]
    return b''.join([*parts, array_format.name_list([str(number) for number in range(len(arrays))])])


def decode(data: bytes) -> Any:
    """The value that ``encode`` was given. Raises TrainingError for bytes that it cannot have made."""
    try:
        (length,) = LENGTH.unpack_from(data)
        begin = LENGTH.size + length
        source = io.BytesIO(data[begin:])
        layout = array_format.read_layout(source, 'message', len(data) - begin)
        arrays = [
            np.frombuffer(data, record.dtype, int(np.prod(record.shape)), begin + record.offset)
            .reshape(record.shape)
            .copy()
            for record in layout.values()
        ]
        return _from_structure(json.loads(data[LENGTH.size : begin]), arrays)
    except (struct.error, ValueError, TypeError, KeyError, IndexError, RecursionError, CheckpointError) as error:
        raise TrainingError(
            f'a message between two processes of the run cannot be read ({error}); both must have the same version '
            f'of this '
            'project'
        ) from None


def _to_structure(value, arrays):
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, State):
        return {'state': [_to_structure(part, arrays) for part in value]}
    if type(value) in (list, tuple):
        return {type(value).__name__: [_to_structure(part, arrays) for part in value]}
    if isinstance(value, dict):
        return {'dict': [[_to_structure(key, arrays), _to_structure(entry, arrays)] for key, entry in value.items()]}
    if isinstance(value, mx.nd.NDArray):
        return {'mxnet': _position(value.asnumpy(), arrays)}
    if isinstance(value, np.generic) or isinstance(value, np.ndarray) and not value.shape:
        return {'number': _position(np.reshape(value, 1), arrays)}  # the format has no arrays without a dimension
    if isinstance(value, np.ndarray):
        return {'numpy': _position(value, arrays)}
    raise TypeError(f'a message cannot hold {type(value).__name__}')


def _position(array, arrays):
    if array.dtype not in array_format.DTYPE_FLAGS:
        raise TypeError(f'a message cannot hold arrays of {array.dtype}')
    arrays.append(array)
    return len(arrays) - 1


def _from_structure(structure, arrays):
    if structure is None or isinstance(structure, (bool, int, float, str)):
        return structure
    ((kind, content),) = structure.items()
    if kind == 'dict':
        return {_from_structure(key, arrays): _from_structure(entry, arrays) for key, entry in content}
    if kind in ('list', 'tuple', 'state'):
        parts = [_from_structure(part, arrays) for part in content]
        return State(*parts) if kind == 'state' else parts if kind == 'list' else tuple(parts)
    array = arrays[content]
    if kind == 'number':
        return array[0]
    if kind == 'mxnet':
        return mx.nd.array(array, dtype=array.dtype)
    if kind == 'numpy':
        return array
    raise ValueError(f'unknown kind {kind!r}')
