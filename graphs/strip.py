"""Take the structures that training has switched off out of a network, whatever its family.

    stripped = strip(symbol, arg_params, aux_params, {'data': (1, 3, 32, 32)})

A scaling factor of exactly zero makes channels that are zero whatever the image. Constants are folded (λ goes into the
parameters beside it), what is zero or only feeds zeros is found by ``liveness``, operators and parameters are cut to
what is left, until nothing more can go. The function of the network stays the same: section 3.2 of the paper, done to
any graph.
"""

from __future__ import annotations

from typing import Any, Dict, Mapping, NamedTuple

import numpy as np

from formats.params_file import require_finite
from formats.symbol_fit import check_fit
from runtime import mx
from runtime.errors import UserError

from .factors import fold_batch_norm
from .folding import evaluate
from .graph import Graph, Shape, record_image_shapes
from .history import History
from .lambdas import is_lambda
from .losses import drop_losses
from .obstacles import obstacles
from .onednn_workaround import guard_sums
from .sweep import prepare, sweep
from .values import Params

DTYPE_CODES = {'float32': '0', 'float64': '1', 'float16': '2', 'uint8': '3', 'int32': '4', 'int8': '5', 'int64': '6'}


class Stripped(NamedTuple):
    """A stripped network: a symbol and its parameters (dicts name → NDArray) for stock MXNet.

    ``report`` says what stayed and went: see ``history.History.report``. Its ``dead_but_kept`` lists the operators
    that hold dead channels: see ``obstacles.Obstacle``.
    """

    symbol: mx.sym.Symbol
    arg_params: Params
    aux_params: Params
    report: Dict[str, Any]


def strip(
    symbol: mx.sym.Symbol,
    arg_params: Params,
    aux_params: Params,
    data_shapes: Mapping[str, Shape],
    threshold: float = 0.0,
    fold_bn: bool = False,
    for_training: bool = False,
    lambda_name: str = 'lambda',
    round_to: int = 1,
) -> Stripped:
    """Remove every dead structure and fold what is left of the scaling factors into the parameters.

    Parameters
    ----------
    symbol, arg_params, aux_params : the network, as from ``mx.model.load_checkpoint``; none of them is changed.
    data_shapes : dict from the name of each input to its shape, the batch first.
    threshold : a structure goes when its |λ| is at most this; 0 takes only those that change nothing.
    fold_bn : also fold batch normalisation into the convolutions before it. The result is for inference.
    for_training : keep the loss with its label, so that the result can be trained further. The function for inference
        is what stays the same; a branch that is a constant there becomes a bias.
    lambda_name : what the names of scaling factors contain.
    round_to : every layer keeps dead channels up to a multiple of this, or all that it has: odd numbers of channels are
        slow in some libraries. The function is the same.

    Raises ``NothingLeftError`` where no path from the data to the output is left, ``CheckpointError`` for parameters
    that are missing or not finite, ``GraphError`` where shapes do not fit.
    """
    if fold_bn and for_training:
        raise UserError(
            'a network whose batch normalisation is folded away cannot be trained further: '
            'choose --fold-bn or --for-training'
        )
    graph = Graph.from_symbol(symbol)
    check_fit(symbol, arg_params, aux_params, 'the parameters')
    require_finite({**arg_params, **aux_params}, 'the parameters')
    values = {**switched_off(arg_params, threshold, lambda_name), **aux_params}
    shapes = graph.shapes({**{name: array.shape for name, array in values.items()}, **data_shapes})
    history = History(graph, shapes, values, data_shapes, lambda_name)
    if not for_training:
        drop_losses(graph)
    values.update(evaluate(prepare(graph, shapes, set(values), lambda_name), values))
    sweep(graph, values, shapes, data_shapes, history.record, round_to)
    if fold_bn:
        fold_batch_norm(graph, values)
        sweep(graph, values, shapes, data_shapes, history.record, round_to)
    held = [obstacle._asdict() for obstacle in obstacles(graph, values, shapes)]
    stripped = _finished(graph, values, history, data_shapes)
    return stripped._replace(report={**stripped.report, 'dead_but_kept': held})


def switched_off(arg_params: Params, threshold: float, lambda_name: str = 'lambda') -> Params:
    """The parameters with every factor of |λ| ≤ ``threshold`` set to zero; all other arrays are the same objects."""

    def off(array):
        numbers = array.asnumpy()
        return mx.nd.array(np.where(np.abs(numbers) <= threshold, 0, numbers), dtype=array.dtype)

    return {name: off(array) if is_lambda(name, lambda_name) else array for name, array in arg_params.items()}


def _finished(graph, values, history, data_shapes):
    """The ``Stripped`` network. Its variables say their shapes: MXNet cannot infer that of a broadcast factor.

    Its inputs say which images they take.
    """
    guard_sums(graph)
    record_image_shapes(graph, data_shapes)
    variables = [node for node in graph.variables() if node.name in values]
    for node in variables:
        array = values[node.name]
        node.attrs = {**node.attrs, '__shape__': str(array.shape)}
        if array.dtype != np.float32 or '__dtype__' in node.attrs:
            node.attrs['__dtype__'] = DTYPE_CODES[np.dtype(array.dtype).name]
    symbol = graph.to_symbol()
    arg_params = {name: values[name] for name in symbol.list_arguments() if name in values}
    aux_params = {name: values[name] for name in symbol.list_auxiliary_states()}
    report = history.report(graph, {**arg_params, **aux_params}, data_shapes)
    return Stripped(symbol, arg_params, aux_params, report)
