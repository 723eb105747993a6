"""ONNX files: complete in themselves, and with no more work and memory in them than a network of their size needs. The
onnx package is optional.
"""

import importlib
import math
import os
from typing import TYPE_CHECKING, Any, Iterator

import numpy as np

from runtime.errors import CheckpointError
from runtime.reading import KB, read_bytes

from .array_format import MAX_NDIM
from .onnx_scan import check_structure
from .optional import optional_module

if TYPE_CHECKING:
    import onnx

# Protobuf's own limit for a message.
MAX_ONNX = 2**31 - 1
# Of an array on the way through the network, an open batch counted as 1: ResNet-50 on 64 images of 224 pixels has
# 51 million values in its largest one.
MAX_VALUES = 1 << 26
# How often they run is not bounded by the size of the file.
LOOPS = ('Loop', 'Scan')
# Of every number in these attributes. ONNX's own shape inference divides by a stride of 0.
BOUNDS = {'kernel_shape': (1, 4096), 'strides': (1, 4096), 'dilations': (1, 4096), 'group': (1, 1 << 20)}
# Shapes are computed from small tensors only.
MAX_SHAPE_TENSOR = 4 * KB


def load_onnx(path: str) -> 'onnx.ModelProto':
    """Read an ONNX file as an ``onnx.ModelProto`` whose every tensor is complete and in the file itself.

    Raises CheckpointError for a damaged file, for external data (whose paths could lead anywhere), for loops and
    functions, and for arrays of more than MAX_VALUES; MissingDependencyError without the onnx package.
    """
    onnx = optional_module('onnx', 'onnx')
    data = read_bytes(path, MAX_ONNX, CheckpointError)
    if not data:
        raise CheckpointError(f'{path}: 0 bytes are no ONNX file')
    check_structure(data, path)
    decode_error = importlib.import_module('google.protobuf.message').DecodeError
    refused = onnx.checker.ValidationError, onnx.shape_inference.InferenceError
    try:
        model = onnx.load_model_from_string(data)
        # A function may call another one twice, and so on: a few of them can make a network of any size.
        if model.functions:
            raise CheckpointError(
                f'{path}: holds functions, which are not read; export the network with plain operators'
            )
        _check_graph(onnx, model.graph, path)
        onnx.checker.check_model(model)
        _check_sizes(onnx, model, path)
    except (decode_error, *refused, ValueError, TypeError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f'{path}: no valid ONNX file ({" ".join(str(error).split())[:200]})') from None
    return model


def _check_graph(onnx, graph, path):
    """Every tensor of a graph and of the graphs inside its nodes; protobuf itself bounds how deep they nest."""
    if graph.sparse_initializer:
        raise CheckpointError(f'{path}: holds sparse tensors, which are not read')
    for tensor in graph.initializer:
        _check_tensor(onnx, tensor, path)
    for node in graph.node:
        if node.op_type in LOOPS:
            raise CheckpointError(
                f'{path}: holds a {node.op_type}, which may run without end; such networks are not read'
            )
        for attribute in node.attribute:
            _check_attribute(onnx, attribute, path)


def _check_attribute(onnx, attribute, path):
    least, greatest = BOUNDS.get(attribute.name, (0, math.inf))
    if attribute.name in BOUNDS and not all(least <= number <= greatest for number in attribute.ints or [attribute.i]):
        raise CheckpointError(f'{path}: {attribute.name} is outside {least} … {greatest}')
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


def _check_sizes(onnx, model, path):
    """Raise CheckpointError where an array of the network would be larger than MAX_VALUES, as far as ONNX infers its
    shape.
    """
    light = onnx.ModelProto()
    light.CopyFrom(model)
    for tensor in light.graph.initializer:
        # Inference needs the shapes of weights, not their values.
        if len(tensor.raw_data) > MAX_SHAPE_TENSOR:
            tensor.ClearField('raw_data')
    inferred = onnx.shape_inference.infer_shapes(light, data_prop=True).graph
    for value in _values(inferred):
        shape = [dim.dim_value if dim.HasField('dim_value') else 1 for dim in value.type.tensor_type.shape.dim]
        if math.prod(max(abs(side), 1) for side in shape) > MAX_VALUES:
            raise CheckpointError(
                f'{path}: {value.name} would be an array of {"×".join(map(str, shape))}, more than {MAX_VALUES:,} '
                'values; export the network with an open or a smaller batch'
            )


def _values(graph: Any) -> Iterator[Any]:
    yield from graph.input
    yield from graph.value_info
    yield from graph.output
