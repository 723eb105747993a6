"""Damage to symbols: networks with nodes, inputs and attributes changed, and lone operators with random attributes."""

import contextlib
import ctypes
import json
import re

from formats.symbol_operators import KNOWN
from runtime import mx

ABSURD = (
    '0',
    '-1',
    '1',
    '2',
    '3',
    '7',
    '64',
    '4097',
    '100000',
    '2147483647',
    '2147483648',
    '-2147483648',
    '4294967296',
    '9223372036854775807',
    '1000000000000000000',
    '1e18',
    '-1e30',
    '1e-50',
    'nan',
    'inf',
    '0.5',
    'True',
    'False',
    'None',
    '',
    ' ',
    'x',
    '()',
    '(0,)',
    '(-1,)',
    '(1,)',
    '(0,0)',
    '(1,1)',
    '(2,2)',
    '(-1,-1)',
    '(3,3,3)',
    '(1,1,1,1,1,1,1)',
    '(1000000,1000000)',
    '(2147483647,2147483647)',
    '(1000000000000,)',
    '(0,-1)',
    '(-2,)',
    '(-3,-2)',
    '(-4,2,-1,0)',
    '[1,2',
    '(((',
    '1,2',
    '(1,,2)',
    '(None,None)',
    '(None, 2)',
    '9' * 400,
    '(' + '1,' * 300 + ')',
    'float16',
    'int8',
    'uint8',
    'NHWC',
    'bool',
)
JUNK = (
    None,
    -1,
    0,
    1,
    2**31,
    2**40,
    1.5,
    'x',
    '',
    [],
    [0],
    [0, 0],
    [[0, 0, 0]],
    {},
    {'a': 1},
    True,
    [0, 1, 0],
    [99999, 0, 0],
    [0, 99999, 0],
    [[[]]],
)


def mutated_graph(rng, graph, other):
    """A symbol's JSON (as a dict) with one to three things changed."""
    graph = json.loads(json.dumps(graph))
    for _ in range(rng.randint(1, 3)):
        # The second change may stumble over the first, which is then damage enough.
        with contextlib.suppress(TypeError, KeyError, IndexError, AttributeError, ValueError):
            rng.choice(_GRAPH_MUTATIONS)(rng, graph, rng.choice(graph['nodes']), other)
    return graph


def random_operator(rng, info):
    """A graph of one operator with random attributes on inputs of random shapes."""
    name, arguments, parameters = info
    attrs = {}
    for key, kind in parameters:
        if 'required' in kind or rng.random() < 0.4:
            attrs[key] = _value(rng, kind)
    count = len(arguments) if not any('[]' in kind for _, kind in arguments) else rng.randint(1, 3)
    count = max(0, count + rng.choice((0, 0, 0, 0, 0, 0, -1, 1)))
    if 'num_args' in dict(parameters) and rng.random() < 0.9:
        attrs['num_args'] = str(count)
    shape = _shape(rng)
    nodes = [
        {
            'op': 'null',
            'name': f'v{i}',
            'attrs': {'__shape__': str(shape if rng.random() < 0.6 else _shape(rng))},
            'inputs': [],
        }
        for i in range(count)
    ]
    nodes.append({'op': name, 'name': 'node', 'attrs': attrs, 'inputs': [[i, 0, 0] for i in range(count)]})
    return {
        'nodes': nodes,
        'arg_nodes': list(range(count)),
        'heads': [[count, 0, 0]],
        'attrs': {'mxnet_version': ['int', 10901]},
    }


def operator_info(name):
    """``(name, inputs, parameters)`` of an operator, the latter two as lists of (name, kind)."""
    handle = ctypes.c_void_p()
    lib = mx.base._LIB
    mx.base.check_call(lib.NNGetOpHandle(name.encode(), ctypes.byref(handle)))
    texts = [ctypes.c_char_p() for _ in range(4)]
    lists = [ctypes.POINTER(ctypes.c_char_p)() for _ in range(3)]
    count = ctypes.c_uint()
    pointers = [ctypes.byref(item) for item in (texts[0], texts[1], count, *lists, texts[2], texts[3])]
    mx.base.check_call(lib.MXSymbolGetAtomicSymbolInfo(handle, *pointers))
    arguments = [(lists[0][i].decode(), lists[1][i].decode()) for i in range(count.value)]
    return (
        name,
        [pair for pair in arguments if 'Symbol' in pair[1]],
        [pair for pair in arguments if 'Symbol' not in pair[1]],
    )


def _value(rng, kind):
    if rng.random() < 0.25:
        return rng.choice(ABSURD)
    options = re.match(r'\{(.*)\}', kind)
    if options:
        return rng.choice(options.group(1).replace("'", '').split(', '))
    if kind.startswith('boolean'):
        return rng.choice(('True', 'False', '0', '1'))
    if kind.startswith('Shape'):
        return str(tuple(rng.choice((0, 1, 1, 2, 2, 3, 4, -1)) for _ in range(rng.randint(0, 4))))
    if kind.startswith('tuple'):
        return str(tuple(rng.choice((0.0, 0.5, 1.0, -1.0, 8.0)) for _ in range(rng.randint(0, 4))))
    if kind.startswith(('int', 'long')):
        return str(rng.choice((0, 1, 1, 2, 2, 3, 4, -1, -2, 5, 8)))
    return str(rng.choice((0, 1, 0.5, -1, 2, 1e-5)))


def _shape(rng):
    return tuple(rng.choice((1, 2, 2, 3, 4, 4, 6, 8)) for _ in range(rng.choice((1, 2, 2, 3, 3, 4, 4, 4, 4, 5))))


def _change_inputs(rng, graph, node, _):
    inputs = node.get('inputs')
    if not isinstance(inputs, list):
        return
    change = rng.randrange(4)
    if change == 0 and inputs:
        inputs.pop(rng.randrange(len(inputs)))
    elif change == 1:
        inputs.append([rng.randrange(-1, len(graph['nodes']) + 2), rng.choice((0, 0, 1, 5, 2**31)), 0])
    elif inputs:
        entry = rng.choice(inputs)
        if isinstance(entry, list) and len(entry) > 1:
            place = rng.randrange(2)
            entry[place] = rng.choice((-1, 0, 1, 2, 5, 2**31 - 1, rng.randrange(len(graph['nodes']))))


def _change_attribute(rng, _, node, other):
    attrs = node.setdefault('attrs', {})
    known = [key for other_node in other['nodes'] for key in other_node.get('attrs', {})]
    if isinstance(attrs, dict):
        attrs[rng.choice(list(attrs) if attrs and rng.random() < 0.8 else known)] = rng.choice(ABSURD)


def _change_variable(rng, _, node, __):
    key = rng.choice(
        (
            '__shape__',
            '__dtype__',
            '__storage_type__',
            '__init__',
            '__ctx_group__',
            '__lr_mult__',
            '__force_mirroring__',
            '__layout__',
        )
    )
    attrs = node.setdefault('attrs', {})
    if isinstance(attrs, dict):
        attrs[key] = rng.choice(ABSURD)


def _change_operator(rng, _, node, __):
    node['op'] = rng.choice(
        (rng.choice(sorted(KNOWN)), 'null', 'Custom', '_Native', '_NDArray', '_foreach', 'nonsense', '')
    )


def _change_head(rng, graph, _, __):
    graph['heads'] = rng.choice(
        ([], [[rng.randrange(len(graph['nodes'])), rng.choice((0, 1, 7)), 0]], graph.get('heads', []) * 2, [[-1, 0, 0]])
    )


def _move_node(rng, graph, node, other):
    nodes = graph['nodes']
    change = rng.randrange(3)
    if change == 0:
        nodes.remove(node)
    elif change == 1:
        nodes.insert(rng.randrange(len(nodes) + 1), json.loads(json.dumps(rng.choice(other['nodes']))))
    else:
        first, second = rng.randrange(len(nodes)), rng.randrange(len(nodes))
        nodes[first], nodes[second] = nodes[second], nodes[first]


def _junk_field(rng, graph, node, _):
    target = rng.choice((graph, node, node))
    key = rng.choice((*target, 'param', 'attr', 'control_deps', 'subgraphs', 'extra'))
    if rng.random() < 0.2:
        target.pop(key, None)
    else:
        target[key] = rng.choice(JUNK)


def _rename(rng, graph, node, _):
    node['name'] = rng.choice(
        (
            rng.choice(graph['nodes']).get('name', '') if isinstance(graph['nodes'][0], dict) else '',
            '',
            '\0',
            'x' * 5000,
            '\ud800',
        )
    )


_GRAPH_MUTATIONS = (
    _change_inputs,
    _change_inputs,
    _change_attribute,
    _change_attribute,
    _change_attribute,
    _change_variable,
    _change_operator,
    _change_head,
    _move_node,
    _junk_field,
    _rename,
)
