"""The JSON of a symbol, checked as data before MXNet sees it: shape, size, node ids, output indices, input counts,
operators, names.

MXNet trusts this file: an output index out of range is a segmentation fault at bind, too few inputs kill the process,
a huge ``num_outputs`` hangs it, and cycles load without an error. What passes is written anew from what was checked, so
that MXNet's parser cannot read anything else than was checked here.
"""

import json
from typing import Any, Dict, List

from runtime.errors import GraphError

from .symbol_limits import check_attributes
from .symbol_operators import lone_node

# NASNet, the largest in GluonCV, has 2,000 nodes in 0.7 MB; what is far beyond is refused while that is still quick.
MAX_BYTES = 16 << 20
MAX_NODES = 20_000
MAX_NAME = 4096
MAX_INPUTS = 4096
VARIABLE = 'null'
# Before this version (0.9.0) a node could leave out its last inputs, the auxiliary states; MXNet adds them while it
# loads.
FULL_INPUTS_SINCE = 900
# Older files call a node's attributes otherwise: ``attr`` for what the user set, ``param`` for the operator's own.
ATTRIBUTE_KEYS = ('attr', 'attrs', 'param')
NODE_KEYS = {'op', 'name', 'inputs', 'backward_source_id', 'control_deps', 'subgraphs', *ATTRIBUTE_KEYS}
GRAPH_KEYS = {'nodes', 'arg_nodes', 'heads', 'node_row_ptr', 'attrs'}


def checked_json(text: str) -> str:
    """Check the JSON ``text`` of a symbol; return it as MXNet writes it. Raises GraphError with the reason."""
    graph = _parsed(text)
    _require(
        isinstance(graph, dict) and {'nodes', 'arg_nodes', 'heads'} <= graph.keys() <= GRAPH_KEYS,
        'this is no symbol (nodes, arg_nodes, heads)',
    )
    _require(
        isinstance(graph['nodes'], list) and 0 < len(graph['nodes']) <= MAX_NODES,
        f'a symbol has 1 to {MAX_NODES} nodes',
    )
    version = _version(graph)
    nodes: List[Dict[str, Any]] = []
    outputs: List[int] = []
    for index, entry in enumerate(graph['nodes']):
        node = _checked_node(entry, index, outputs, version)
        outputs.append(_checked_outputs(node, version))
        nodes.append(node)
    variables = [index for index, node in enumerate(nodes) if node['op'] == VARIABLE]
    _require_distinct(nodes[index]['name'] for index in variables)
    _require(graph['arg_nodes'] == variables, 'arg_nodes does not list exactly the variables')
    heads = graph['heads']
    _require(isinstance(heads, list) and 0 < len(heads) <= MAX_INPUTS, 'a symbol has at least one head')
    heads = [_reference(head, outputs, f'head {place}') for place, head in enumerate(heads)]
    checked: Dict[str, Any] = {'nodes': nodes, 'arg_nodes': variables, 'heads': heads}
    if version is not None:
        checked['attrs'] = {'mxnet_version': ['int', version]}
    return json.dumps(checked, indent=2)


def _parsed(text):
    _require(len(text) <= MAX_BYTES, f'larger than any symbol ({MAX_BYTES >> 20} MB)')
    try:
        return json.loads(
            text,
            object_pairs_hook=_without_repeats,
            parse_int=_small_int,
            parse_float=_no_number,
            parse_constant=_no_number,
        )
    except RecursionError:
        raise GraphError('nested too deeply') from None
    except json.JSONDecodeError as error:
        raise GraphError(f'not JSON: {error}') from None


def _without_repeats(pairs):
    known = dict(pairs)
    _require(len(known) == len(pairs), 'a JSON object holds the same key twice')
    return known


def _small_int(digits):
    _require(len(digits) <= 10, f'the number {digits[:20]}… is out of range')
    return int(digits)


def _no_number(literal):
    raise GraphError(f'the number {literal[:20]} is not allowed in a symbol')


def _version(graph):
    """The MXNet version that wrote the file, as it counts them (10901 is 1.9.1), or None."""
    attrs = graph.get('attrs', {})
    _require(isinstance(attrs, dict), 'the attributes of the graph are no object')
    if 'mxnet_version' not in attrs:
        return None
    value = attrs['mxnet_version']
    _require(
        isinstance(value, list) and len(value) == 2 and value[0] == 'int' and _is_int(value[1]),
        'mxnet_version is not ["int", number]',
    )
    return value[1]


def _checked_node(entry, index, outputs, version):
    where = f'node {index}'
    _require(isinstance(entry, dict) and {'op', 'name', 'inputs'} <= entry.keys(), f'{where} lacks op, name or inputs')
    _require(entry.keys() <= NODE_KEYS, f'{where} has unknown fields: {sorted(entry.keys() - NODE_KEYS)}')
    _require(
        not entry.get('control_deps') and not entry.get('subgraphs'),
        f'{where} has control dependencies or subgraphs, which are not read',
    )
    op, name = entry['op'], entry['name']
    for what, value in (('operator', op), ('name', name)):
        _require(_is_text(value) and len(value) <= MAX_NAME, f'{where}: the {what} is no usable text')
    _require(op and (name or op != VARIABLE), f'{where} has no name')
    where = f'node {index} ({op} {name!r})'
    inputs = entry['inputs']
    _require(
        isinstance(inputs, list) and len(inputs) <= MAX_INPUTS, f'{where}: inputs is no list of at most {MAX_INPUTS}'
    )
    node = {'op': op, 'name': name, 'attrs': _attributes(entry, where)}
    node['inputs'] = [_reference(source, outputs, f'{where}, input {place}') for place, source in enumerate(inputs)]
    return node


def _attributes(entry, where):
    merged = {}
    for key in ATTRIBUTE_KEYS:
        attrs = entry.get(key, {})
        _require(isinstance(attrs, dict), f'{where}: {key} is no object')
        merged.update(attrs)
    _require(
        all(_is_text(key) and _is_text(value) for key, value in merged.items()),
        f'{where}: an attribute is no plain text',
    )
    return merged


def _checked_outputs(node, version):
    """How many outputs a node has; its attributes and the number of its inputs are checked on the way."""
    where = f'{node["op"]} {node["name"]!r}'
    given = len(node['inputs'])
    try:
        check_attributes(node['op'], node['attrs'], given)
        if node['op'] == VARIABLE:
            _require(not given, 'a variable has no inputs')
            return 1
        alone = lone_node(node['op'], node['attrs'])
    except GraphError as error:
        raise GraphError(f'{where}: {error}') from None
    needed = len(alone.list_inputs())
    may_lack = version is None or version < FULL_INPUTS_SINCE
    _require(given == needed or may_lack and given < needed, f'{where} has {given} inputs but takes {needed}')
    return len(alone)


def _reference(entry, outputs, where):
    """A pointer to output ``entry[1]`` of node ``entry[0]``, which must come before: that rules out cycles too.

    The third number, where there is one, counts the operators that have written to that output before (auxiliary
    states).
    """
    _require(
        isinstance(entry, list) and 2 <= len(entry) <= 3 and all(_is_int(number) for number in entry),
        f'{where} is no [node, output]',
    )
    node, output, version = entry if len(entry) == 3 else (*entry, 0)
    _require(0 <= node < len(outputs), f'{where} points to node {node}, which does not come before it')
    _require(
        0 <= output < outputs[node], f'{where} points to output {output} of node {node}, which has {outputs[node]}'
    )
    _require(version >= 0, f'{where} has a negative version')
    return [node, output, version]


def _require_distinct(names):
    seen = set()
    for name in names:
        _require(name not in seen, f'two variables are called {name!r}')
        seen.add(name)


def _is_int(value):
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text(value):
    """Text that C can hold: no zero characters, no lone surrogates."""
    return isinstance(value, str) and '\0' not in value and not any('\ud800' <= letter <= '\udfff' for letter in value)


def _require(condition, reason):
    if not condition:
        raise GraphError(reason)
