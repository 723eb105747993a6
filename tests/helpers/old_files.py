"""Checkpoints as older versions of MXNet wrote them, for tests of reading them."""

import json
import struct

import numpy as np

LIST_MAGIC, V1_MAGIC, CPU, FLOAT32 = 0x112, 0xF993FAC8, 1, 0
# The states of a batch normalisation were no inputs of the node before 0.9.
STATES = {'BatchNorm': 3}


def symbol_of_0_11(symbol):
    """The JSON of ``symbol`` with ``attr`` in place of ``attrs``, as MXNet 0.9.4 to 0.12 wrote it."""
    plan = json.loads(symbol.tojson())
    for node in plan['nodes']:
        if 'attrs' in node:
            node['attr'] = node.pop('attrs')
    plan['attrs'] = {'mxnet_version': ['int', 1100]}
    return json.dumps(plan, indent=2)


def symbol_of_0_8(symbol):
    """The JSON of ``symbol`` as MXNet 0.8 wrote it.

    ``param`` holds what belongs to the operator and ``attr`` what the user set; batch normalisations have no states
    among their inputs; references are pairs; no version is given.
    """
    plan = json.loads(symbol.tojson())
    states = {
        source for node in plan['nodes'] if node['op'] in STATES for source, *_ in node['inputs'][STATES[node['op']] :]
    }
    kept = [index for index in range(len(plan['nodes'])) if index not in states]
    place = {index: position for position, index in enumerate(kept)}
    nodes = []
    for index in kept:
        node = plan['nodes'][index]
        attrs, inputs = node.get('attrs', {}), node['inputs'][: STATES.get(node['op'])]
        old = {
            'op': node['op'],
            'param': {key: value for key, value in attrs.items() if not key.startswith('__')},
            'name': node['name'],
            'inputs': [[place[source], output] for source, output, *_ in inputs],
            'backward_source_id': -1,
        }
        own = {key: value for key, value in attrs.items() if key.startswith('__')}
        nodes.append({**old, 'attr': own} if own else old)
    variables = [position for position, node in enumerate(nodes) if node['op'] == 'null']
    heads = [[place[source], output] for source, output, *_ in plan['heads']]
    return json.dumps({'nodes': nodes, 'arg_nodes': variables, 'heads': heads}, indent=2)


def params_v1(arg_params, aux_params):
    """The bytes of a .params file of float32 arrays (dicts name → NDArray) in the form V1, of MXNet 0.9 to 0.11."""
    named = {
        **{f'arg:{name}': array for name, array in arg_params.items()},
        **{f'aux:{name}': array for name, array in aux_params.items()},
    }
    parts = [struct.pack('<QQQ', LIST_MAGIC, 0, len(named))]
    for array in named.values():
        shape = array.shape
        parts.append(struct.pack(f'<II{len(shape)}qiii', V1_MAGIC, len(shape), *shape, CPU, 0, FLOAT32))
        parts.append(array.asnumpy().astype(np.float32).tobytes())
    parts.append(struct.pack('<Q', len(named)))
    for name in named:
        parts.append(struct.pack('<Q', len(name.encode())) + name.encode())
    return b''.join(parts)
