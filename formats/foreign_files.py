"""Weights from other frameworks: PyTorch, safetensors and ONNX files, each checked against its own length before a
library sees it.

``load_torch_state`` needs no PyTorch and executes nothing. The safetensors and onnx packages are optional.
"""

import importlib
import json
import math
import os

import numpy as np

from runtime.errors import CheckpointError, MissingDependencyError

from .array_format import MAX_ELEMENTS, MAX_NDIM, require_regular_file
from .onnx_scan import check_structure
from .torch_file import load_torch_state

__all__ = ['load_onnx', 'load_safetensors', 'load_torch_state']

# Some 100 bytes a tensor: enough for 100,000 of them, and read at once.
MAX_HEADER = 10_000_000
# Protobuf's own limit for a message.
MAX_ONNX = 2**31 - 1
SAFETENSORS_BITS = {
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


def load_safetensors(path):
    """Read a ``.safetensors`` file: a dict name → np.ndarray, sorted by name.

    Raises CheckpointError for a damaged file, or one with a dtype that NumPy lacks (bfloat16); MissingDependencyError
    without the safetensors package.
    """
    library = _optional('safetensors.numpy', 'safetensors')
    size = require_regular_file(path)
    _check_safetensors(path, size)
    try:
        tensors = library.load_file(path)
    # The Rust library has exceptions of its own, and a KeyError for a dtype it cannot give to NumPy.
    except Exception as error:
        raise CheckpointError(
            f'{path}: safetensors cannot read it ({type(error).__name__}: {str(error)[:100]})'
        ) from None
    return {name: tensors[name] for name in sorted(tensors)}


def load_onnx(path):
    """Read an ONNX file as an ``onnx.ModelProto`` whose every tensor is complete and lies in the file itself.

    Raises CheckpointError for a damaged file and for external data (whose paths could lead anywhere);
    MissingDependencyError without the onnx package.
    """
    onnx = _optional('onnx', 'onnx')
    size = require_regular_file(path)
    if not 0 < size <= MAX_ONNX:
        raise CheckpointError(f'{path}: {size} bytes are no ONNX file')
    with open(path, 'rb') as source:
        data = source.read()
    check_structure(data, path)
    decode_error = importlib.import_module('google.protobuf.message').DecodeError
    try:
        model = onnx.load_model_from_string(data)
        _check_graph(onnx, model.graph, path)
        onnx.checker.check_model(model)
    except (decode_error, onnx.checker.ValidationError, ValueError, TypeError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f'{path}: no valid ONNX file ({" ".join(str(error).split())[:200]})') from None
    return model


def _optional(module, package):
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MissingDependencyError(f'{package} is not installed: pip install {package}') from None


def _check_safetensors(path, size):
    """Raise CheckpointError unless the header describes exactly the bytes that follow it, without gap or overlap."""

    def require(condition, reason):
        if not condition:
            raise CheckpointError(f'{path}: {reason}')

    with open(path, 'rb') as source:
        start = source.read(8)
        require(len(start) == 8, 'too short for a safetensors file')
        length = int.from_bytes(start, 'little')
        require(length <= min(size - 8, MAX_HEADER), f'the header would be {length} bytes long')
        header = source.read(length)
    try:
        entries = json.loads(header.decode('utf-8'))
    except (ValueError, RecursionError):
        raise CheckpointError(f'{path}: the header is not JSON') from None
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


def _span(entry):
    """``(begin, end, bytes needed)`` of a tensor; (0, 0, -1), which never fits, for an entry that makes no sense."""
    try:
        begin, end = entry['data_offsets']
        shape, bits = entry['shape'], SAFETENSORS_BITS[entry['dtype']]
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


def _check_graph(onnx, graph, path):
    """Every tensor of a graph and of the graphs inside its nodes; protobuf itself bounds how deep they nest."""
    if graph.sparse_initializer:
        raise CheckpointError(f'{path}: holds sparse tensors, which are not read')
    for tensor in graph.initializer:
        _check_tensor(onnx, tensor, path)
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        for tensor in (attribute.t, *attribute.tensors):
            _check_tensor(onnx, tensor, path)
        for inner in (attribute.g, *attribute.graphs):
            if inner.node or inner.initializer or inner.sparse_initializer:
                _check_graph(onnx, inner, path)


def _check_tensor(onnx, tensor, path):
    name = os.path.basename(tensor.name) or 'a constant'
    if tensor.data_location != onnx.TensorProto.DEFAULT or tensor.external_data:
        raise CheckpointError(f'{path}: {name} lies in another file; only complete ONNX files are read')
    if any(side < 0 for side in tensor.dims) or len(tensor.dims) > MAX_NDIM:
        raise CheckpointError(f'{path}: {name} has the impossible shape {list(tensor.dims)[:8]}')
    if not tensor.data_type and not tensor.dims:
        return
    dtype = onnx.mapping.TENSOR_TYPE_TO_NP_TYPE.get(tensor.data_type)
    if dtype is None:
        raise CheckpointError(f'{path}: {name} has an unknown dtype (number {tensor.data_type})')
    if tensor.HasField('raw_data') and dtype != np.dtype(object):
        found = len(tensor.raw_data) / dtype.itemsize
    else:
        found = len(
            getattr(
                tensor,
                onnx.mapping.STORAGE_TENSOR_TYPE_TO_FIELD[
                    onnx.mapping.TENSOR_TYPE_TO_STORAGE_TENSOR_TYPE[tensor.data_type]
                ],
            )
        )
    if found != math.prod(tensor.dims) * (
        2 if np.issubdtype(dtype, np.complexfloating) and not tensor.HasField('raw_data') else 1
    ):
        raise CheckpointError(
            f'{path}: {name} has {found:g} values, but its shape {list(tensor.dims)} needs {math.prod(tensor.dims)}'
        )
