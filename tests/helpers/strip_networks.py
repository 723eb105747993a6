"""Small networks with random parameters, and what tests of stripping do with them."""

import json

import numpy as np

from graphs.strip import strip
from runtime import mx
from symbols import resnet, resnet_v1, resnext, vgg

SIDE = 8
SHAPES = {'data': (2, 3, SIDE, SIDE)}
IMAGE = (3, SIDE, SIDE)
KINDS = {
    'resnet': ('block', 'neuron'),
    'resnet-basic': ('block', 'neuron'),
    'resnet-v1': ('block', 'neuron'),
    'resnext': ('block', 'group'),
    'resnext-neuron': ('block', 'group', 'neuron'),
    'vgg': ('neuron',),
}


def small(family, placement, kinds=None):
    """A network of a family, a few units deep and a few channels wide, made by the family's own builder."""
    kinds = KINDS[family] if kinds is None else kinds
    with mx.name.NameManager():
        if family.startswith('resnext'):
            return resnext.network((2, 1), (16, 32), 4, True, 5, IMAGE, kinds, placement)
        if family == 'vgg':
            return vgg.network((1, 2, 1), (6, 8, 10), True, 5, IMAGE, kinds, placement)
        if family == 'resnet-v1':
            return resnet_v1.network((1, 2, 1), 5, IMAGE, kinds, placement)
        unit = resnet.basic_unit if family == 'resnet-basic' else resnet.bottleneck_unit
        return resnet.network((2, 2), (16, 24), unit, True, 5, IMAGE, kinds, placement)


def random_parameters(symbol, shapes=SHAPES, seed=0):
    """Parameters in which nothing is 0 or 1 by chance or design: ``(arg_params, aux_params)``; scaling factors are near
    1.
    """
    random = np.random.RandomState(seed)
    arguments, _, states = symbol.infer_shape(**shapes)
    arg_params = {
        name: mx.nd.array(_draw(name, shape, random))
        for name, shape in zip(symbol.list_arguments(), arguments)
        if name not in shapes and not name.endswith('label')
    }
    aux_params = {
        name: mx.nd.array(_draw(name, shape, random)) for name, shape in zip(symbol.list_auxiliary_states(), states)
    }
    return arg_params, aux_params


def _draw(name, shape, random):
    if name.endswith(('gamma', 'var')):
        return random.uniform(0.5, 1.5, shape)
    if 'lambda' in name:
        return random.uniform(0.5, 1.2, shape)
    if name.endswith('weight'):
        return random.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))
    return random.normal(size=shape) * 0.3


def with_dead(arg_params, dead):
    """The parameters with the factors zero that ``dead`` (dict name → mask) says; all others unchanged."""
    return {
        name: array if name not in dead else mx.nd.array(np.where(dead[name], 0, array.asnumpy()), dtype=array.dtype)
        for name, array in arg_params.items()
    }


def images(count=2, seed=7, shape=IMAGE):
    return np.random.RandomState(seed).normal(size=(count, *shape)).astype(np.float32)


def predict(symbol, arg_params, aux_params, data):
    """The first output of a network, computed by plain MXNet; labels are zeros."""
    names = symbol.list_arguments()
    arguments = {name: array for name, array in arg_params.items() if name in names}
    arguments['data'] = mx.nd.array(data)
    arguments.update({name: mx.nd.zeros(len(data)) for name in names if name.endswith('label')})
    states = {name: aux_params[name] for name in symbol.list_auxiliary_states()}
    return symbol.bind(mx.cpu(), arguments, aux_states=states, grad_req='null').forward(is_train=False)[0].asnumpy()


def assert_same_function(symbol, arg_params, aux_params, stripped, tolerance=1e-5, shape=IMAGE, logits='fc1_output'):
    """Both networks give the same numbers in front of the softmax, to ``tolerance`` of the largest. Returns whether
    these depend on the image at all.
    """
    data = images(shape=shape)
    expected = predict(symbol.get_internals()[logits], arg_params, aux_params, data)
    found = predict(stripped.symbol.get_internals()[logits], stripped.arg_params, stripped.aux_params, data)
    assert np.abs(expected - found).max() <= tolerance * np.abs(expected).max()
    return bool(np.abs(expected - expected[:1]).max() > 0)


def strip_twice(symbol, arg_params, aux_params, shapes=SHAPES, **options):
    """Strip, and make sure that stripping again changes nothing."""
    stripped = strip(symbol, arg_params, aux_params, shapes, **options)
    again = strip(*stripped[:3], shapes, **options)
    assert again.symbol.tojson() == stripped.symbol.tojson()
    for first, second in ((stripped.arg_params, again.arg_params), (stripped.aux_params, again.aux_params)):
        assert list(first) == list(second)
        assert all((first[name].asnumpy() == second[name].asnumpy()).all() for name in first)
    return stripped


def operators(symbol):
    """The names of a symbol's operators, by kind."""
    found = {}
    for node in json.loads(symbol.tojson())['nodes']:
        found.setdefault(node['op'], []).append(node['name'])
    return found
