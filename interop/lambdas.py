"""Networks with scaling factors for frameworks and files that have none: λ multiplied into the parameters beside it."""

from graphs.folding import evaluate, fold_constants
from graphs.graph import Graph
from graphs.lambdas import is_lambda
from runtime.errors import CheckpointError
from symbols import get_symbol

from .recognise import recognise


def has_lambda(names):
    """Whether any of ``names`` is that of scaling factors."""
    return any(is_lambda(name) for name in names)


def without_lambda(arg_params, aux_params):
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


def _kinds(names):
    return {
        'block': 'lambda_block' in names,
        'group': 'lambda_group' in names,
        'neuron': any(is_lambda(name) and name not in ('lambda_block', 'lambda_group') for name in names),
    }
