"""``--finetune``: a network that starts from the weights of a checkpoint, and from nothing else of it."""

import os

from formats.checkpoint_files import known_epochs, load_checkpoint, symbol_path
from graphs.lambda_names import is_lambda
from runtime import mx
from runtime.errors import CheckpointError, UserError
from symbols import NETWORKS


def name_checkpoint(args):
    """Let ``--network PREFIX`` (or PREFIX:EPOCH) of a checkpoint be ``--network PREFIX-symbol.json`` and, where it has
    parameters, ``--finetune PREFIX,EPOCH``; the last epoch where none is said. Other ``args`` stay as they are.
    """
    prefix, colon, epoch = args.network.partition(':')
    if args.network.endswith('.json') or args.network in NETWORKS:
        return
    if not os.path.exists(symbol_path(prefix)):
        if os.path.dirname(prefix):
            raise CheckpointError(f'--network {args.network}: there is no {symbol_path(prefix)}')
        return
    if colon and not epoch.isdecimal():
        raise UserError(f'--network {args.network}: give PREFIX:EPOCH, for example runs/resnet20:240')
    args.network = symbol_path(prefix)
    epochs = [int(epoch)] if colon else known_epochs(prefix)
    if epochs and not args.finetune:
        args.finetune = f'{prefix},{epochs[-1]}'


def restart_weights(arg_params, aux_params, shapes, origin, lambda_init=1.0):
    """The weights of a checkpoint for a network that may have other λ.

    ``shapes`` maps each parameter of the network to its shape; a λ that the checkpoint lacks starts at ``lambda_init``.
    Raises CheckpointError for any other parameter that is missing, unknown to the network, or of another shape.
    """
    found = dict(arg_params, **aux_params)
    missing = [name for name in shapes if name not in found and not is_lambda(name)]
    unknown = [name for name in found if name not in shapes]
    for what, names in (('lacks', missing), ('has besides', unknown)):
        if names:
            listed = ', '.join(names[:3]) + (' ...' if len(names) > 3 else '')
            raise CheckpointError(
                f'{origin} is of another network: it {what} {listed}; --finetune needs the network that it was trained '
                'as'
            )
    for name, array in found.items():
        if array.shape != shapes[name]:
            raise CheckpointError(f'{origin}: {name} has shape {array.shape}, the network wants {shapes[name]}')
    fresh = {name: mx.nd.full(shape, lambda_init) for name, shape in shapes.items() if name not in found}
    return dict(arg_params, **fresh), dict(aux_params)


def weights_of(finetune: str, symbol, shapes: dict, lambda_init: float):
    """(arg_params, aux_params) for ``symbol`` from ``finetune``, 'PREFIX,EPOCH'; ``shapes`` are those of its inputs.

    Raises UserError for other text, CheckpointError where the weights do not fit.
    """
    prefix, comma, epoch = finetune.rpartition(',')
    if not comma or not epoch.isdecimal():
        raise UserError(f'--finetune {finetune}: give PREFIX,EPOCH, for example runs/resnet20,240')
    _, arg_params, aux_params = load_checkpoint(prefix, int(epoch))
    return fitting_weights(symbol, arg_params, aux_params, shapes, finetune, lambda_init)


def fitting_weights(symbol, arg_params, aux_params, shapes: dict, origin: str, lambda_init: float):
    """``restart_weights`` for ``symbol``; ``shapes`` are those of its inputs."""
    arg_shapes, _, aux_shapes = symbol.infer_shape(**shapes)
    wanted = dict(zip(symbol.list_arguments(), arg_shapes), **dict(zip(symbol.list_auxiliary_states(), aux_shapes)))
    return restart_weights(
        arg_params,
        aux_params,
        {name: shape for name, shape in wanted.items() if name not in shapes},
        origin,
        lambda_init,
    )
