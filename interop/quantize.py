"""A network in int8 for oneDNN, on the CPU: MXNet's own quantisation, given a graph that it can take.

The pair that comes out is for stock MXNet (``mx.model.load_checkpoint``) on Linux. Its graph holds oneDNN's fused
operators, which other tools, ours too, do not read.
"""

from typing import Tuple

import numpy as np

from graphs.attributes import flag
from graphs.graph import Graph, Shape, input_names, only_input
from graphs.losses import drop_losses, logits
from graphs.onednn_workaround import guard_sums
from graphs.values import Params
from runtime import mx
from runtime.errors import UserError

from .lambdas import as_network, single_precision, without_factors

BATCH = 32


def quantize(
    symbol: mx.sym.Symbol, arg_params: Params, aux_params: Params, images: np.ndarray
) -> Tuple[mx.sym.Symbol, Params, Params]:
    """Quantise weights and feature maps to 8 bits: ``(symbol, arg_params, aux_params)``, ending in probabilities, with
    no label.

    ``images`` are some hundred of the images that the network will see, preprocessed, float32 (N, C, H, W): the range
    of each feature map is what they show. Weights have a range per channel. λ is folded first, and batch normalisation
    by MXNet. The last layer, which makes the logits, stays in float32: it is cheap, and where its bias is large MXNet's
    8 bits for both ruin it.

    Raises UserError where MXNet was built without oneDNN, or there are no images.
    """
    if not mx.runtime.Features().is_enabled('MKLDNN'):
        raise UserError('this build of MXNet has no oneDNN, so no int8; take the CPU build (mxnet 1.9.1 on Linux)')
    if len(images) == 0:
        raise UserError('there are no images to calibrate on')
    symbol, arg_params, aux_params = folded_for_int8(
        symbol, single_precision(arg_params), single_precision(aux_params), images.shape
    )
    feed = mx.io.NDArrayIter(images, batch_size=min(BATCH, len(images)), last_batch_handle='discard')
    return mx.contrib.quantization.quantize_model_mkldnn(
        symbol,
        arg_params,
        aux_params,
        data_names=(feed.provide_data[0].name,),
        label_names=None,
        calib_mode='naive',
        calib_data=feed,
        excluded_sym_names=[head.node.name for head in logits(Graph.from_symbol(symbol)).heads],
        quantized_dtype='auto',
        quantize_granularity='channel-wise',
    )


def folded_for_int8(
    symbol: mx.sym.Symbol, arg_params: Params, aux_params: Params, data_shape: Shape
) -> Tuple[mx.sym.Symbol, Params, Params]:
    """The network as the quantisation can take it, for images of ``data_shape``, batch first: without label, λ and sums
    that oneDNN gets wrong.
    """
    graph = Graph.from_symbol(symbol)
    drop_losses(graph)
    params = {**arg_params, **aux_params}
    data = only_input(input_names(graph, params))
    params = without_factors(graph, params, {data: data_shape})
    guard_sums(graph)
    for node in graph.nodes():
        if node.op == 'Pooling' and flag(node, 'global_pool'):
            # The quantised operator compares the kernel with the map even where it pools over all of it.
            node.attrs['kernel'] = '(1, 1)'
    return as_network(graph, params)
