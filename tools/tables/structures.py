"""What a published structure costs: the network is built, its dead λ are set to 0, and it is stripped and counted."""

from __future__ import annotations

import functools
import json
import re
from typing import Any, Dict, Mapping, NamedTuple, Tuple

from graphs.complexity import complexity
from graphs.strip import strip
from graphs.values import Params
from runtime import mx
from runtime.errors import DataError
from symbols import get_symbol, parse_image_shape


class Cost(NamedTuple):
    """``full`` and ``left`` are dicts with params_without_bn, macs and bias_adds, of the whole network and of what is
    left; ``blocks`` are the residual blocks left of each stage.
    """

    full: Mapping[str, float]
    left: Mapping[str, float]
    blocks: Tuple[int, ...]


def structure_cost(network: Dict[str, Any], keep: str) -> Cost:
    """The Cost of ``network`` (arguments of ``get_symbol``) where only the blocks are left that ``keep`` says (see
    ``published.Row``). Raises DataError where ``keep`` is not of as many blocks.
    """
    return _structure_cost(json.dumps(network, sort_keys=True), keep)


@functools.lru_cache(maxsize=None)
def _structure_cost(network, keep):
    network = json.loads(network)
    symbol = get_symbol(**network)
    shapes = {'data': (1, *parse_image_shape(network['image_shape']))}
    if keep == 'all':
        found = complexity(symbol, shapes)
        return Cost(found.totals(), found.totals(), _blocks((layer.name, True) for layer in found.layers))
    arg_params, aux_params = _ones(symbol, shapes)
    arg_params['lambda_block'] = _switches(keep, arg_params['lambda_block'].shape)
    report = strip(symbol, arg_params, aux_params, shapes).report
    return Cost(report['before'], report['after'], blocks_left(report))


def random_network(network: Dict[str, Any], keep: str) -> Tuple[mx.sym.Symbol, Params, Params]:
    """(symbol, arg_params, aux_params) of such a network with random weights, to measure its speed: λ is 1 for what
    ``keep`` keeps and 0 for the rest.
    """
    symbol = get_symbol(**network)
    module = mx.mod.Module(symbol)
    module.bind(
        [('data', (1, *parse_image_shape(network['image_shape'])))], [('softmax_label', (1,))], for_training=False
    )
    module.init_params(mx.init.Xavier(rnd_type='gaussian', factor_type='in', magnitude=2))
    arg_params, aux_params = module.get_params()
    if keep != 'all':
        arg_params['lambda_block'] = _switches(keep, arg_params['lambda_block'].shape)
    return symbol, arg_params, aux_params


def blocks_left(report: Mapping[str, Any]) -> Tuple[int, ...]:
    """How many residual blocks of each stage have a branch left, by the report of ``strip``; () for a network without
    such blocks.
    """
    return _blocks((layer['name'], layer['kept'] > 0) for layer in report['layers'])


def _blocks(layers):
    """The same from the names of layers, and whether each is left."""
    stages = {}
    for name, is_left in layers:
        match = re.fullmatch(r'stage(\d+)_unit\d+_conv1', name)
        if match:
            stages.setdefault(int(match.group(1)), []).append(is_left)
    return tuple(sum(left) for _, left in sorted(stages.items()))


def _ones(symbol, shapes):
    """Parameters none of which is zero."""
    arguments, _, states = symbol.infer_shape(**shapes)
    arg_params = {
        name: mx.nd.ones(shape)
        for name, shape in zip(symbol.list_arguments(), arguments)
        if name not in shapes and name != 'softmax_label'
    }
    return arg_params, {name: mx.nd.ones(shape) for name, shape in zip(symbol.list_auxiliary_states(), states)}


def _switches(keep, shape):
    switches = [float(digit) for digit in keep.replace(' ', '')]
    if (len(switches),) != shape:
        raise DataError(f'published.yaml: the structure {keep!r} has {len(switches)} blocks, the network {shape[0]}')
    return mx.nd.array(switches)
