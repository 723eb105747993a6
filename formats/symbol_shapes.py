"""The shapes inside a network, inferred twice: for the whole, and for each node on its own.

MXNet's own inference lets some operators overrule the shapes of their inputs: BatchNorm declares its gamma as long as
the data has channels, even where another operator computes a gamma of another length, and that operator then writes
beyond the memory it was given. The second inference finds every such case.
"""

import functools
import json
import math
from typing import Any, Dict, List, Mapping, Tuple

from runtime import mx
from runtime.errors import GraphError

from .array_format import MAX_ELEMENTS
from .symbol_operators import canonical_name, first_line, is_known, lone_node

VARIABLE = 'null'
# Values of a feature map of one image, 64×512×1024 being as many: what strip and evaluation need memory for is a few
# times this.
MAX_FEATURES = 1 << 25

Shape = Tuple[int, ...]


def _same_size(before, after):
    return math.prod(before[0]) == math.prod(after[0])


def _one_gamma_a_channel(before, _):
    return before[1] == before[0][1:2]


def _condition_fits(before, _):
    condition, first = before[:2]
    return condition == first or condition == first[:1]


# What some operators need of the shapes of their inputs and outputs, and MXNet does not check before it computes. (A
# BatchNorm along another axis is sound by itself, but MXNet folds it into a convolution before it, along the channels.)
_DEMANDS = {
    'BatchNorm': _one_gamma_a_channel,
    '_contrib_BatchNormWithReLU': _one_gamma_a_channel,
    'Reshape': _same_size,
    'where': _condition_fits,
}


def check_shapes(
    symbol: 'mx.sym.Symbol', input_shapes: Dict[str, Shape], path: str, lacks_inputs: bool = False
) -> None:
    """Check that a symbol from a file may be bound with these inputs (dict name → shape); ``path`` is what errors call
    it.

    Raises GraphError naming the node whose shapes do not fit together, or whose output is larger than MXNet can count.
    Nodes whose shapes do not follow from ``input_shapes`` are passed over. With ``lacks_inputs``, ``input_shapes`` are
    not those of all inputs. Then some operators (padding, upsampling) make MXNet infer no shape at all, and nothing is
    checked.
    """
    for node, before, after in _nodes_with_shapes(symbol, input_shapes, path, lacks_inputs):
        if node['op'] != VARIABLE and all(map(_is_known, before)):
            _check_node(node, before, after, path)


def check_bound(symbol: 'mx.sym.Symbol', arrays: Mapping[str, Any]) -> None:
    """``check_shapes`` of a network that is about to be bound to ``arrays`` (dict name → array), whether it is from a
    file or not. What has operators that no file may hold was built in this process, and is not checked.
    """
    operators = {node['op'] for node in json.loads(symbol.tojson())['nodes']} - {VARIABLE}
    if all(map(is_known, operators)):
        shapes = {name: tuple(array.shape) for name, array in arrays.items()}
        check_shapes(symbol, shapes, 'the network', lacks_inputs=True)


def check_sizes(symbol: 'mx.sym.Symbol', image_shapes: Dict[str, Shape], path: str, lacks_inputs: bool = False) -> None:
    """Check that a symbol from a file needs no more memory than networks do, with the images that it says it takes
    (dict name → shape of one); ``path`` is what errors call it, and ``lacks_inputs`` is as in ``check_shapes``.
    Raises GraphError.
    """
    of_image: List[bool] = []  # whether a node is computed from an image, not from parameters alone
    for node, _, after in _nodes_with_shapes(symbol, image_shapes, path, lacks_inputs):
        is_image = node['op'] == VARIABLE and node['name'] in image_shapes
        of_image.append(is_image or any(of_image[source] for source, *_ in node['inputs']))
        most = MAX_FEATURES if of_image[-1] else MAX_ELEMENTS
        if any(math.prod(shape) > most for shape in after if _is_known(shape)):
            raise GraphError(
                f'{path}: {node["name"]!r} would be an array of the shape {max(after, key=math.prod)} with the images '
                'that the symbol says it takes; correct its __image_shape__'
            )


def _nodes_with_shapes(symbol, input_shapes, path, lacks_inputs):
    """Each node of a symbol, as its JSON has it, with the shapes of its inputs and of its outputs."""
    try:
        _, shapes, _ = symbol.get_internals().infer_shape_partial(**input_shapes)
    except mx.MXNetError as error:
        if lacks_inputs:
            return
        raise GraphError(f'{path}: the shapes of this network do not fit together: {first_line(error)}') from None
    remaining = iter(shapes or [])
    outputs = []
    for node in json.loads(symbol.tojson(remove_amp_cast=False))['nodes']:
        attrs = node.get('attrs', {})
        count = 1 if node['op'] == VARIABLE else len(lone_node(node['op'], attrs))
        outputs.append(tuple(next(remaining, ()) for _ in range(count)))
        yield node, tuple(outputs[source][output] for source, output, *_ in node['inputs']), outputs[-1]


def _check_node(node, before, after, path):
    alone = _shapes_alone(node['op'], tuple(sorted(node.get('attrs', {}).items())), before)
    fits = alone is not None and all(shape == own or not _is_known(shape) for shape, own in zip(before + after, alone))
    demand = _DEMANDS.get(canonical_name(node['op']))
    if not fits or demand and all(map(_is_known, after)) and not demand(before, after):
        raise GraphError(
            f'{path}: {node["op"]} {node["name"]!r} cannot work on inputs of the shapes {", ".join(map(str, before))}'
        )
    if any(math.prod(shape) > MAX_ELEMENTS for shape in after):
        raise GraphError(
            f'{path}: {node["op"]} {node["name"]!r} would make an array of the shape {max(after, key=math.prod)}'
        )


@functools.lru_cache(maxsize=8192)
def _shapes_alone(operator, attrs, before):
    """The shapes of a node's inputs and outputs, given those of its inputs alone; None where MXNet finds that they do
    not fit.
    """
    node = lone_node(operator, dict(attrs))
    names = node.list_inputs()
    try:
        arguments, outputs, states = node.infer_shape_partial(**dict(zip(names, before)))
    except mx.MXNetError:
        return None
    inferred = dict(zip(node.list_arguments() + node.list_auxiliary_states(), (arguments or []) + (states or [])))
    return tuple(inferred[name] for name in names) + tuple(outputs or [])


def _is_known(shape):
    return bool(shape) and all(side > 0 for side in shape)
