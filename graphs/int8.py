"""Networks in 8 bits: how symbol and parameters say it, and the graph of oneDNN's integer operators that computes them.

Every weight of a convolution or full connection is an array of int8, whole numbers from -127 to 127, and the batch
normalisation behind it multiplies each channel by what a step is worth. So the symbol is a plain network, which
everything that reads symbols can read, and MXNet can compute in float32.

A node whose output was calibrated carries ``__int8_range__``, the smallest and the largest number of that output. On a
CPU with oneDNN ``integer_symbol`` lets MXNet's quantisation make the integer operators from it, the same ones each
time. Full connections, which cost little, stay in float32.
"""

from __future__ import annotations

import json
import math
from typing import Callable, Dict, List, NamedTuple, Tuple

from runtime import mx
from runtime.errors import GraphError, UserError

from .attributes import describe
from .graph import Graph, Node
from .losses import logits

RANGE = '__int8_range__'
BACKEND = 'MKLDNN_QUANTIZE'


class Quantised(NamedTuple):
    """What MXNet makes of a plain network before it is calibrated.

    ``floats`` is the network with operators fused, in float32; ``integers`` the same in integers. ``names`` maps the
    outputs of ``floats`` to calibrate to the name of the node of the plain network that computes each; ``collect`` is
    a monitor callback of ``floats`` that fills ``ranges``, output → (smallest, largest) number.
    """

    floats: mx.sym.Symbol
    integers: mx.sym.Symbol
    names: Dict[str, str]
    collect: Callable
    ranges: Dict[str, Tuple[float, float]]


class _Collected:
    """What MXNet's quantisation expects of a calibration."""

    def __init__(self, ranges: Dict[str, Tuple[float, float]]) -> None:
        self.min_max_dict = ranges


def is_int8(graph: Graph) -> bool:
    """Whether a network was quantised."""
    return any(RANGE in node.attrs for node in graph.nodes())


def require_float(symbol: mx.sym.Symbol, source: str) -> None:
    """Raise UserError for a network that ``is_int8``; ``source`` is what the user called it."""
    if is_int8(Graph.from_symbol(symbol)):
        raise UserError(f'{source} is in 8 bits; start from the network that it was made from')


def has_integer_operators() -> bool:
    """Whether this build of MXNet has oneDNN."""
    return mx.runtime.Features().is_enabled('MKLDNN')


def integer_symbol(symbol: mx.sym.Symbol) -> mx.sym.Symbol:
    """The symbol of a network that ``is_int8``, with oneDNN's integer operators. Its parameters are the same, as
    float32. Raises GraphError for a damaged range.
    """
    ranges = {node.name: _range(node) for node in Graph.from_symbol(symbol).nodes() if RANGE in node.attrs}
    quantised = quantised_symbol(symbol)
    known = {output: ranges[name] for output, name in quantised.names.items() if name in ranges}
    calibrated, _, _ = mx.contrib.quantization.calib_graph(
        quantised.integers, {}, {}, _Collected(known), calib_mode='customize', logger=None
    )
    return calibrated.get_backend_symbol(BACKEND)


def quantised_symbol(symbol: mx.sym.Symbol) -> Quantised:
    """The ``Quantised`` of a plain network."""
    floats = symbol.get_backend_symbol(BACKEND)
    integers, _, _, collector = mx.contrib.quantization.quantize_graph(
        floats,
        {},
        {},
        excluded_sym_names=_kept_in_float(Graph.from_symbol(symbol)),
        calib_mode='naive',
        quantized_dtype='auto',
        quantize_mode='smart',
        quantize_granularity='channel-wise',
    )
    names = {}
    for node in Graph.from_symbol(floats).nodes():
        output = node.name if node.is_variable else f'{node.name}_output'
        if output in collector.include_layer:
            names[output] = _last_inside(node)
    return Quantised(floats, integers, names, collector.collect, collector.min_max_dict)


def range_text(low: float, high: float) -> str:
    """The text of ``__int8_range__``."""
    return json.dumps([float(low), float(high)])


def _range(node):
    try:
        low, high = json.loads(node.attrs[RANGE])
        if -math.inf < low <= high < math.inf:
            return float(low), float(high)
    except (ValueError, TypeError):
        pass
    raise GraphError(f'{describe(node)}: {RANGE} is damaged: it holds no smallest and largest number')


def _last_inside(node):
    """The name of the node of the plain network whose output a node of the fused one has."""
    if not node.subgraphs:
        return node.name
    inside = node.subgraphs[0]
    return inside['nodes'][inside['heads'][0][0]]['name']


def _kept_in_float(graph) -> List[str]:
    """The outputs before a softmax and the full connections, each with what makes it.

    MXNet's integer full connection shares one range between weight and bias, which ruins it where the bias is large.
    """
    kept: List[Node] = [head.node for head in logits(graph).heads]
    kept += [node for node in graph.nodes() if 'FullyConnected' in (node.op, *(source.op for source in node.sources))]
    layers = [source for node in kept if node.op == 'BatchNorm' for source in node.sources if not source.is_variable]
    return sorted({node.name for node in kept + layers})
