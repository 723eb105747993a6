"""A network as an ONNX file (opset 13), proven against MXNet before it is put in place.

MXNet's own exporter needs three repairs to be of use here (its SoftmaxOutput, the opset it stamps, the time it takes)
and knows nothing of constants. This one is a table (``onnx_operators``) and a rule: what does not depend on the images
is computed by MXNet at export time, and constant factors move into the layer beside them, so that λ, in either
placement, leaves no trace in the file.
"""

from __future__ import annotations

from typing import Any

from graphs import attributes
from graphs.comparison import Difference
from graphs.graph import Graph, Output, Shape, input_names, only_input
from graphs.losses import logits
from graphs.predictor import Network, Predictor
from graphs.preprocessing import METADATA_KEY, preprocessing_of
from graphs.values import Params
from runtime import mx
from runtime.files import written_whole

from .conversion_proof import prove_conversion
from .lambdas import shapes_of, single_precision, without_factors
from .onnx_builder import Builder, required
from .onnx_operators import OPERATORS
from .runners import OnnxRunner

OPSET = 13
# Any two batch sizes, to see which sides of a shape grow with the batch.
BATCHES = (2, 3)


def export_onnx(
    symbol: mx.sym.Symbol, arg_params: Params, aux_params: Params, image_shape: Shape, path: str
) -> Difference:
    """Write a network to the ONNX file ``path`` and return the ``Difference`` between its outputs and MXNet's.

    Parameters
    ----------
    symbol, arg_params, aux_params : an MXNet network of one input; a softmax at an end, and the label, are left out:
        the output are the logits (N, classes).
    image_shape : (channels, height, width). The batch stays free, unless the network fixes it; input and parameters are
        float32, the input has MXNet's name.

    The file is checked by ``onnx.checker`` and run in ONNX Runtime on noise, in two batch sizes; it appears under its
    name only if all outputs agree.

    Raises GraphError for an operator or attribute that the table does not hold, ProofError where an output differs by
    more than 1e-4 of its spread, MissingDependencyError where onnx or onnxruntime is not installed.
    """
    checker = required('onnx.checker')
    required('onnxruntime')
    arg_params, aux_params = single_precision(arg_params), single_precision(aux_params)
    model = onnx_model(symbol, arg_params, aux_params, image_shape)
    with written_whole(path) as scratch:
        with open(scratch, 'wb') as out:
            out.write(model.SerializeToString(deterministic=True))
        checker.check_model(scratch)
        original = Predictor(Network(symbol, arg_params, aux_params))
        return prove_conversion(OnnxRunner(model, path), original, image_shape, f'{path}: ONNX Runtime')


def onnx_model(symbol: mx.sym.Symbol, arg_params: Params, aux_params: Params, image_shape: Shape) -> Any:
    """The ``onnx.ModelProto`` of a network whose parameters (dicts name → NDArray) are float32."""
    helper, number_types = required('onnx.helper'), required('onnx').TensorProto
    params = {**arg_params, **aux_params}
    graph = logits(Graph.from_symbol(symbol))
    data = only_input(input_names(graph, params))
    fixed = Predictor(Network(symbol, arg_params, aux_params)).fixed_batch({data: (1, *image_shape)})
    batches = (fixed, fixed) if fixed else BATCHES
    params = without_factors(graph, params, {data: (batches[0], *image_shape)})
    small, large = (graph.shapes({**shapes_of(params), data: (batch, *image_shape)}) for batch in batches)
    build = Builder(small, large)
    for node in graph.variables():
        if node.name != data:
            build.name_constant(Output(node), params[node.name].asnumpy())
    for node in graph.nodes():
        if not node.is_variable:
            if node.op not in OPERATORS:
                raise attributes.unknown_operator(node, 'the ONNX export', OPERATORS)
            OPERATORS[node.op](build, node, [build.name(source) for source in node.inputs], build.name(Output(node)))
    parts = helper.make_graph(
        build.nodes,
        'network',
        [helper.make_tensor_value_info(data, number_types.FLOAT, [fixed or 'batch', *image_shape])],
        [
            helper.make_tensor_value_info(
                build.name(head), number_types.FLOAT, ['batch' if side < 0 else side for side in build.free_shape(head)]
            )
            for head in graph.heads
        ],
        build.constants_in_use(),
    )
    model = helper.make_model(
        parts, producer_name='sparse-structure-selection', opset_imports=[helper.make_opsetid('', OPSET)]
    )
    preprocessing = preprocessing_of(symbol)
    if preprocessing:
        helper.set_model_props(model, {METADATA_KEY: preprocessing.to_text()})
    return model
