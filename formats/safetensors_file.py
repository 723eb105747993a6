"""Safetensors files, checked against their own length before the library sees them. The safetensors package is
optional.
"""

import math
from typing import Any, Dict, Tuple

import numpy as np

from runtime.errors import CheckpointError
from runtime.reading import MB, open_regular, parsed_json, size_of

from .array_format import MAX_ELEMENTS, MAX_NDIM
from .optional import optional_module

# Some 100 bytes a tensor: enough for 100,000 of them, and read at once.
MAX_HEADER = 10 * MB
BITS = {
    'BOOL': 8,
    'U8': 8,
    'I8': 8,
    'F8_E4M3': 8,
    'F8_E5M2': 8,
    'I16': 16,
    'U16': 16,
    'F16': 16,
    'BF16': 16,
    'I32': 32,
    'U32': 32,
    'F32': 32,
    'F64': 64,
    'I64': 64,
    'U64': 64,
}


def load_safetensors(path: str) -> Dict[str, np.ndarray]:
    """Read a ``.safetensors`` file: a dict name → np.ndarray, sorted by name.

    Raises CheckpointError for a damaged file, or one with a dtype that NumPy lacks (bfloat16); MissingDependencyError
    without the safetensors package.
    """
    library = optional_module('safetensors.numpy', 'safetensors')
    _check(path)
    try:
        tensors = library.load_file(path)
    # The Rust library has exceptions of its own, and a KeyError for a dtype it cannot give to NumPy.
    except Exception as error:
        raise CheckpointError(
            f'{path}: safetensors cannot read it ({type(error).__name__}: {str(error)[:100]})'
        ) from None
    return {name: tensors[name] for name in sorted(tensors)}


def _check(path):
    """Raise CheckpointError unless the header describes exactly the bytes that follow it, without gap or overlap."""

    def require(condition, reason):
        if not condition:
            raise CheckpointError(f'{path}: {reason}')

    with open_regular(path, error=CheckpointError) as source:
        size = size_of(source)
        start = source.read(8)
        require(len(start) == 8, 'too short for a safetensors file')
        length = int.from_bytes(start, 'little')
        require(length <= min(size - 8, MAX_HEADER), f'the header would be {length} bytes long')
        header = source.read(length)
    try:
        text = header.decode('utf-8')
    except UnicodeDecodeError:
        raise CheckpointError(f'{path}: the header is not text') from None
    entries = parsed_json(text, f'{path}: the header', CheckpointError)
    require(isinstance(entries, dict), 'the header is no object')
    entries.pop('__metadata__', None)
    spans = []
    for name, entry in entries.items():
        begin, end, claimed = _span(entry)
        require(end - begin == claimed, f'{name!r} does not have as many bytes as its shape and dtype need')
        spans.append((begin, end))
    edge = 0
    for begin, end in sorted(spans):
        require(begin == edge, 'the tensors overlap or leave gaps')
        edge = end
    require(edge == size - 8 - length, 'the tensors do not fill the file')


def _span(entry: Any) -> Tuple[int, int, int]:
    """``(begin, end, bytes needed)`` of a tensor; (0, 0, -1), which never fits, for an entry that makes no sense."""
    try:
        begin, end = entry['data_offsets']
        shape, bits = entry['shape'], BITS[entry['dtype']]
    except (TypeError, KeyError, ValueError):
        return 0, 0, -1
    whole = (
        isinstance(shape, list)
        and len(shape) <= MAX_NDIM
        and all(type(number) is int and number >= 0 for number in (begin, end, *shape))
    )
    if not whole or math.prod(max(side, 1) for side in shape) > MAX_ELEMENTS:
        return 0, 0, -1
    return begin, end, math.prod(shape) * bits // 8
