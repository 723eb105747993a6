"""Rebuild a network without its dead structures while it is being trained: what is left keeps its λ, its names and the
optimizer's state.

    smaller = shrink(symbol, {'lambda_block': dead}, {'data': (64, 3, 32, 32)})
    params = smaller.cut(params)            # what is left of each array
    full = smaller.expanded(params, full)   # back in their places, for a checkpoint of the whole network

``strip`` folds λ into the weights; here λ stays a variable of its own, since training goes on. What goes is decided by
the dead λ alone, so that the smaller network is a function of the network and of the set of dead structures, however
many steps led there.
"""

from __future__ import annotations

from typing import Dict, Mapping, NamedTuple, Tuple

import numpy as np

from runtime import mx
from runtime.errors import CannotShrinkError

from .folding import fold_constants
from .graph import AUXILIARY_INPUTS, Graph, Node, Output, Shape, labels
from .lambdas import is_lambda
from .onednn_workaround import guard_sums
from .pruning import prune
from .scaled_parameters import scaled_parameter, scaled_parameters
from .weights import Weights


class Shrunk(NamedTuple):
    """``symbol`` : the smaller network. ``kept`` : for each of its parameters, the entries that are left along each
    axis of the whole array, as int arrays (for a λ of any shape: along its flattened elements). ``shapes`` : the shapes
    of the whole arrays.
    """

    symbol: mx.sym.Symbol
    kept: Dict[str, Tuple[np.ndarray, ...]]
    shapes: Dict[str, Shape]

    def cut_array(self, name: str, array: np.ndarray) -> np.ndarray:
        """What is left of the NumPy ``array``, which belongs to parameter ``name`` of the whole network (a weight, or a
        momentum of its shape).
        """
        if len(self.kept[name]) == 1:
            return array.reshape(-1)[self.kept[name]] if is_lambda(name) else array[self.kept[name]]
        return array[np.ix_(*self.kept[name])]

    def expanded_array(self, name: str, small: np.ndarray, whole: np.ndarray) -> np.ndarray:
        """A copy of ``whole`` that has the numbers of ``small`` in their places."""
        result = whole.copy()
        if is_lambda(name):
            result.reshape(-1)[self.kept[name]] = small.reshape(-1)
        else:
            result[np.ix_(*self.kept[name])] = small
        return result


def shrink(symbol: mx.sym.Symbol, dead: Dict[str, np.ndarray], data_shapes: Mapping[str, Shape]) -> Shrunk:
    """The network without the structures that are ``dead``.

    Parameters
    ----------
    symbol : the whole network, whose λ multiply parameters (``--lambda-placement weight``).
    dead : dict from the name of a λ to a boolean array of its shape: True where the structure is dead.
    data_shapes : dict from the name of each input to its shape.

    Raises CannotShrinkError where the smaller network would need parameters that the whole one has not (where a whole
    layer is dead, what follows it becomes a constant), GraphError where a λ multiplies a feature map, NothingLeftError
    where no path from the data to the output is left.
    """
    factors = scaled_parameters(symbol)
    graph = Graph.from_symbol(symbol)
    whole = {node.name: shape for (node, _), shape in graph.shapes(data_shapes).items() if node.is_variable}
    attributes = {node.name: node.attrs for node in graph.variables()}
    inputs = set(data_shapes) | labels(graph)
    names = set(whole) - inputs
    means = {node.sources[AUXILIARY_INPUTS[node.op][0]].name for node in graph.nodes() if node.op in AUXILIARY_INPUTS}
    fold_constants(graph, names)
    alive = {
        name: ~np.asarray(dead[name], bool).reshape(-1) if name in dead else np.ones(int(np.prod(whole[name])), bool)
        for name in names
        if is_lambda(name)
    }
    arrays = {
        name: _switched(whole[name], factors.get(name, {}), alive, name in means)
        for name in names
        if not is_lambda(name)
    }
    kept = _pruned(graph, arrays, {**whole, **{name: array.shape for name, array in arrays.items()}}, data_shapes)
    kept.update({name: (np.flatnonzero(alive[name]),) for name in alive})
    _restore_factors(graph, factors, kept, attributes)
    guard_sums(graph)
    left = {node.name for node in graph.variables()} - inputs
    return Shrunk(
        graph.to_symbol(), {name: kept[name] for name in kept if name in left}, {name: whole[name] for name in names}
    )


def _switched(shape, factors, alive, is_mean):
    """1 in every entry of a parameter, 0 where a dead λ multiplies it. Moving means are 0: a normalised constant then
    is no zero by chance.
    """
    array = np.full(shape, 0.0 if is_mean else 1.0, np.float32)
    for name, entries in factors.items():
        array[~alive[name][entries]] = 0
    return array


def _pruned(graph, arrays, known, data_shapes):
    """Prune ``graph`` in place until nothing more can go; returns what is kept of each parameter, entries along each
    axis.
    """
    shapes = graph.shapes({**known, **data_shapes})
    kept = {name: tuple(np.arange(length) for length in array.shape) for name, array in arrays.items()}
    while True:
        before = graph.to_json()
        constants, cut = prune(graph, Weights(arrays), shapes, set(data_shapes))
        if constants:
            raise CannotShrinkError(
                f'a whole layer is dead, and without it the network needs the new parameter {next(iter(constants))}'
            )
        if cut.is_empty and graph.to_json() == before:
            return kept
        shapes.update({source: cut.shape_of(source, shape) for source, shape in shapes.items()})
        for name, masks in cut.parameters.items():
            if name not in arrays or not all(mask is None or mask.any() for mask in masks):
                continue
            kept[name] = tuple(entries if mask is None else entries[mask] for entries, mask in zip(kept[name], masks))
            arrays[name] = arrays[name][
                np.ix_(
                    *(
                        np.arange(length) if mask is None else np.flatnonzero(mask)
                        for length, mask in zip(arrays[name].shape, masks)
                    )
                )
            ]


def _restore_factors(graph, factors, kept, attributes):
    """Let λ multiply the parameters that are left, each by the elements that are left of it."""
    variables, replacements = {}, {}

    def variable(name):
        if name not in variables:
            attrs = {**attributes[name], '__shape__': str((len(kept[name][0]),))}
            variables[name] = Output(Node('null', name, attrs))
        return variables[name]

    for node in graph.variables():
        if node.name in kept:
            node.attrs = {
                **attributes.get(node.name, {}),
                '__shape__': str(tuple(len(entries) for entries in kept[node.name])),
            }
    for node in graph.variables():
        product = Output(node)
        for name, entries in factors.get(node.name, {}).items():
            product = _product(graph, product, node.name, kept[node.name], variable(name), kept[name][0], entries)
        if product != Output(node):
            replacements[Output(node)] = product
    # The products read the parameters themselves, which must not be replaced inside them.
    for node in graph.nodes():
        node.inputs = [replacements.get(source, source) for source in node.inputs]


def _product(graph, parameter, name, kept, factor, alive, entries):
    """``parameter`` times the elements of a λ that its slices belong to; ``alive`` are the elements that the λ still
    has.
    """
    elements, slices = np.unique(entries[kept[0]], return_counts=True)
    begin, end = np.searchsorted(alive, [elements[0], elements[-1] + 1])
    if (alive[begin:end] != elements).any() or len(set(slices)) > 1:
        raise CannotShrinkError(f'the structures left of {factor.node.name} do not multiply equal parts of {name}')
    stem = f'{name}_{factor.node.name}'
    chosen = factor
    if end - begin < len(alive):
        chosen = Output(
            Node('slice_axis', f'{stem}_part', {'axis': '0', 'begin': str(begin), 'end': str(end)}, [factor])
        )
    shape = tuple(len(entries_left) for entries_left in kept)
    return scaled_parameter(parameter, shape, chosen, len(elements), int(slices[0]), stem)
