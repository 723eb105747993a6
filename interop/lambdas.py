"""Networks with scaling factors for frameworks and files that have none: λ multiplied into the parameters beside it."""

from __future__ import annotations

from typing import Dict, Iterable, Mapping, Tuple

from graphs.factors import absorb_factors, cancel_repetitions
from graphs.folding import evaluate, fold_constants
from graphs.graph import Graph, Shape
from graphs.lambdas import is_lambda
from graphs.values import Params
from runtime import mx
from runtime.errors import CheckpointError
from symbols import get_symbol

from .recognise import recognise


def has_lambda(names: Iterable[str]) -> bool:
    """Whether any of ``names`` is that of scaling factors."""
    return any(is_lambda(name) for name in names)


def without_lambda(arg_params: Params, aux_params: Params) -> Params:
    """``arg_params`` (name → NDArray) of a full network of ours with every λ folded into the weights, γ and β beside
    it: the same function, without λ.

    Raises CheckpointError for parameters of anything else; a network that structures were taken out of has no λ any
    more.
    """
    if not has_lambda(arg_params):
        return dict(arg_params)
    plain = {name: array.shape for name, array in {**arg_params, **aux_params}.items() if not is_lambda(name)}
    match = recognise(plain)
    match.require_whole('this network with scaling factors')
    kinds = [kind for kind, present in _kinds(arg_params).items() if present]
    symbol = get_symbol(
        match.style.network, match.num_layers, match.num_classes, match.image_shape, ','.join(kinds), 'weight'
    )
    missing = sorted(set(symbol.list_arguments()) - {'data', 'softmax_label'} - set(arg_params))
    if missing:
        raise CheckpointError(f'{missing[0]} is missing among the scaling factors')
    folded = fold_constants(Graph.from_symbol(symbol), {*arg_params, *aux_params})
    return {
        **{name: array for name, array in arg_params.items() if not is_lambda(name)},
        **evaluate(folded, arg_params),
    }


def single_precision(params: Params) -> Params:
    """A dict name → NDArray in float32."""
    # A forward pass under way may be moving weights to another memory layout; copied meanwhile, they are wrong.
    mx.nd.waitall()
    return {name: array.astype('float32', copy=False) for name, array in params.items()}


def without_factors(graph: Graph, params: Params, data_shapes: Mapping[str, Shape]) -> Params:
    """Compute what does not depend on the images, and put constant factors where stripping would put them; changes
    ``graph``, and returns the parameters (dict name → NDArray) that it then has.

    A weight keeps its name, so that tensors can be compared with anybody's.
    """
    params = {**params, **evaluate(fold_constants(graph, set(params)), params)}
    absorb_factors(graph, params, graph.shapes({**shapes_of(params), **data_shapes}))
    cancel_repetitions(graph, graph.shapes({**shapes_of(params), **data_shapes}))
    return params


def as_network(graph: Graph, params: Params) -> Tuple[mx.sym.Symbol, Params, Params]:
    """``graph`` as (symbol, arg_params, aux_params), with those of ``params`` that it reads."""
    symbol = graph.to_symbol()
    return (
        symbol,
        {name: params[name] for name in symbol.list_arguments() if name in params},
        {name: params[name] for name in symbol.list_auxiliary_states()},
    )


def shapes_of(params: Params) -> Dict[str, Shape]:
    """The shape of each array, by name."""
    return {name: array.shape for name, array in params.items()}


def _kinds(names):
    return {
        'block': 'lambda_block' in names,
        'group': 'lambda_group' in names,
        'neuron': any(is_lambda(name) and name not in ('lambda_block', 'lambda_group') for name in names),
    }
