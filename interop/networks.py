"""Any network in MXNet that can be named on a command line, as a symbol with its parameters where there are any.

network = read_network('run/resnet20:160')      # a checkpoint, an export of Gluon, a -symbol.json file
network = read_network('mobilenetv2_0.25')      # a network of GluonCV
"""

from __future__ import annotations

import os
from typing import NamedTuple, Optional, Tuple

from formats.checkpoint_files import find_checkpoint, load_checkpoint, symbol_path
from formats.params_file import load_arrays
from formats.symbol_file import load_symbol
from graphs.graph import Graph, Output, data_shape_of, labels
from graphs.predictor import Network
from graphs.values import Params
from runtime import mx
from runtime.errors import CheckpointError, GraphError, UserError

from .gluon_zoo import zoo_file_on_disk, zoo_network

CIFAR_SHAPE, IMAGENET_SHAPE = (3, 32, 32), (3, 224, 224)


class NamedNetwork(NamedTuple):
    """A ``symbol``, its parameters as dicts name → NDArray or None where there are none, the shape of its images or
    None where that is unknown, the ``files`` that were read, and a ``description`` of what they are.
    """

    symbol: mx.sym.Symbol
    arg_params: Optional[Params]
    aux_params: Optional[Params]
    image_shape: Optional[Tuple[int, ...]]
    files: Tuple[str, ...]
    description: str

    @property
    def has_parameters(self) -> bool:
        return self.arg_params is not None


def read_network(source: str, num_classes: Optional[int] = None) -> NamedNetwork:
    """The network that ``source`` names.

    It is what ``find_checkpoint`` finds (what Gluon's ``export`` writes is a checkpoint too), a symbol without
    parameters (a .json file), or a network of GluonCV, with its weights where they are on disk. ``num_classes`` is for
    GluonCV alone. Raises UserError for what cannot be read.
    """
    if source.endswith('.onnx'):
        raise UserError(
            f'{source} is an ONNX file: it can be evaluated and compared, but λ can only be added to, and trained in, '
            'an MXNet graph; give the MXNet checkpoint that it was made from'
        )
    checkpoint = find_checkpoint(source)
    if checkpoint is None and os.path.exists(symbol_path(source)):
        source = symbol_path(source)
    if num_classes and (checkpoint or source.endswith('.json')):
        raise UserError(f'--num-classes is for a network of GluonCV; {source} has the classes that it was built with')
    if checkpoint:
        symbol, arg_params, aux_params = load_checkpoint(*checkpoint)
        files = checkpoint.paths
        return NamedNetwork(symbol, arg_params, aux_params, data_shape_of(symbol), files, ' and '.join(files))
    if source.endswith('.json'):
        symbol = load_symbol(source)
        return NamedNetwork(symbol, None, None, data_shape_of(symbol), (source,), f'{source}, without parameters')
    if os.path.dirname(source) or os.path.exists(source):
        raise CheckpointError(
            f'{source}: there is no {symbol_path(source)}; give PREFIX or PREFIX:EPOCH of a checkpoint, a -symbol.json '
            'file, or the name of a GluonCV network'
        )
    return _from_zoo(source, num_classes)


def initialised(network: NamedNetwork, image_shape: Tuple[int, ...]) -> Network:
    """The network with its parameters, or with initial ones at random where it has none."""
    if network.arg_params is not None and network.aux_params is not None:
        return Network(network.symbol, network.arg_params, network.aux_params)
    symbol = network.symbol
    arrays = _initial(_shapes(symbol, image_shape))
    aux_params = {name: arrays.pop(name) for name in symbol.list_auxiliary_states()}
    return Network(symbol, arrays, aux_params)


def _shapes(symbol, image_shape):
    """The shapes of parameters and states by name. Raises GraphError for images that the network does not take."""
    graph = Graph.from_symbol(symbol)
    inputs = {'data'} | labels(graph)
    shapes = graph.shapes({'data': (1, *image_shape)})
    return {node.name: shapes[Output(node)] for node in graph.variables() if node.name not in inputs}


def _initial(shapes):
    """Initial values by the names of parameters: weights at random, γ and variances 1, all others 0."""
    arrays = {name: mx.nd.zeros(shape) for name, shape in shapes.items()}
    draw = mx.init.Xavier(rnd_type='gaussian', factor_type='in', magnitude=2)
    for name, array in arrays.items():
        if name.endswith(('gamma', 'var')):
            array[:] = 1
        elif len(array.shape) > 1:
            draw(mx.init.InitDesc(f'{name}_weight'), array)
    return arrays


def _from_zoo(name, num_classes):
    block = zoo_network(name, **({'classes': num_classes} if num_classes else {}))
    symbol = block(mx.sym.Variable('data'))
    if not isinstance(symbol, mx.sym.Symbol):
        raise GraphError(f'{name} has several outputs; λ can only be added to a classifier, which has one')
    shape = CIFAR_SHAPE if name.lower().startswith('cifar_') else IMAGENET_SHAPE
    path = zoo_file_on_disk(name)
    if path is None:
        return NamedNetwork(symbol, None, None, shape, (), f'{name} of GluonCV, whose weights are not on disk')
    arrays, anew = _zoo_parameters(block, symbol, path, shape)
    aux_params = {state: arrays.pop(state) for state in symbol.list_auxiliary_states()}
    fresh = f'; {", ".join(anew)} start from random values' if anew else ''
    return NamedNetwork(
        symbol, arrays, aux_params, shape, (path,), f'{name} of GluonCV with the weights of {path}{fresh}'
    )


def _zoo_parameters(block, symbol, path, image_shape):
    """(the parameters of ``symbol`` by name, the names of those that the file has in another shape and are drawn)."""
    stored = load_arrays(path)
    names = {parameter.name: name for name, parameter in block._collect_params_with_prefix().items()}
    shapes = _shapes(symbol, image_shape)
    missing = [name for name in shapes if names.get(name) not in stored]
    if missing:
        raise CheckpointError(f'{path} lacks {missing[0]} ({len(missing)} missing); it is of another network')
    anew = {name: shape for name, shape in shapes.items() if stored[names[name]].shape != shape}
    return {**{name: stored[names[name]] for name in shapes if name not in anew}, **_initial(anew)}, sorted(anew)
