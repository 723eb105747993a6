"""The MACs of an ONNX file, by the shapes that ONNX infers: of convolutions and of products with a matrix."""

from __future__ import annotations

import importlib
import math
from typing import TYPE_CHECKING, Dict, Optional, Tuple

if TYPE_CHECKING:
    import onnx

# Which input holds the weights.
CONVOLUTIONS = {'Conv': 1, 'ConvInteger': 1, 'QLinearConv': 3}
PRODUCTS = {'Gemm': 1, 'MatMul': 1, 'MatMulInteger': 1, 'QLinearMatMul': 3}


def onnx_macs(model: onnx.ModelProto) -> Optional[int]:
    """Multiply-accumulates for one image; None where a shape that they depend on cannot be inferred. The first axis of
    outputs is the batch.
    """
    graph = importlib.import_module('onnx').shape_inference.infer_shapes(model).graph
    shapes: Dict[str, Tuple[int, ...]] = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.value_info, *graph.output):
        sides = value.type.tensor_type.shape.dim
        shapes.setdefault(value.name, tuple(side.dim_value for side in sides))
    counts = [_of_node(node, shapes) for node in graph.node if node.op_type in {**CONVOLUTIONS, **PRODUCTS}]
    return None if None in counts else sum(count or 0 for count in counts)


def _of_node(node: onnx.NodeProto, shapes: Dict[str, Tuple[int, ...]]) -> Optional[int]:
    is_convolution = node.op_type in CONVOLUTIONS
    weight = shapes.get(node.input[(CONVOLUTIONS if is_convolution else PRODUCTS)[node.op_type]], ())
    out = shapes.get(node.output[0], ())
    if len(weight) < 2 or 0 in weight or len(out) < 2 or 0 in out[1:]:
        return None
    # A convolution computes each value of its output from one filter; a product each row from the whole matrix.
    return math.prod(out[1:]) * math.prod(weight[1:]) if is_convolution else math.prod(out[1:-1]) * math.prod(weight)
