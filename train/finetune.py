"""``--finetune``: a network that starts from the weights of a checkpoint, and from nothing else of it."""

from __future__ import annotations

import argparse
import logging
import os
from typing import Dict, Tuple

import numpy as np

from formats.checkpoint_files import find_checkpoint, load_checkpoint, named_checkpoint, prefix_of, symbol_path
from graphs.classifier import classifier_parameters
from graphs.lambda_names import is_lambda
from runtime import mx
from runtime.errors import CheckpointError
from symbols import NETWORKS

from .engines.interface import Params

CLASSIFIER_DEVIATION = 0.01
Shape = Tuple[int, ...]


def name_checkpoint(args: argparse.Namespace) -> None:
    """Let ``--network`` of a checkpoint be ``--network PREFIX-symbol.json`` and, where it has parameters, ``--finetune
    PREFIX:EPOCH``; and let ``--finetune PREFIX`` say its epoch. Other ``args`` stay as they are.
    """
    if args.finetune:
        args.finetune = str(find_checkpoint(args.finetune) or args.finetune)
    if args.network.endswith('.json') or args.network in NETWORKS:
        return
    prefix = prefix_of(args.network)
    if not os.path.exists(symbol_path(prefix)):
        if os.path.dirname(prefix):
            raise CheckpointError(f'--network {args.network}: there is no {symbol_path(prefix)}')
        return
    if not args.finetune:
        found = find_checkpoint(args.network)
        args.finetune = str(found) if found else None
    args.network = symbol_path(prefix)


def restart_weights(
    arg_params: Params,
    aux_params: Params,
    shapes: Dict[str, Shape],
    origin: str,
    lambda_init: float = 1.0,
    classifier: Tuple[str, ...] = (),
    seed: int = 0,
) -> Tuple[Params, Params]:
    """The weights of a checkpoint for a network that may have other λ and another number of classes.

    ``shapes`` maps each parameter of the network to its shape; a λ that the checkpoint lacks starts at ``lambda_init``.
    The parameters of the ``classifier`` start from new values where their shapes differ: weights normal by ``seed``,
    biases 0. Raises CheckpointError for any other parameter that is missing, unknown to the network, or of another
    shape.
    """
    found = dict(arg_params, **aux_params)
    missing = [name for name in shapes if name not in found and not is_lambda(name)]
    unknown = [name for name in found if name not in shapes]
    for what, names in (('lacks', missing), ('also has', unknown)):
        if names:
            listed = ', '.join(names[:3]) + (' ...' if len(names) > 3 else '')
            raise CheckpointError(
                f'{origin} is of another network: it {what} {listed}; --finetune needs the network that it was trained '
                'as'
            )
    others = [name for name, array in found.items() if array.shape != shapes[name]]
    anew = [name for name in classifier if name in others]
    for name in others:
        if name not in anew:
            raise CheckpointError(f'{origin}: {name} has shape {found[name].shape}, the network needs {shapes[name]}')
    if anew:
        logging.info(
            '--finetune %s: it has %d classes, this network has %d; the classifier (%s) starts from random values',
            origin,
            found[anew[0]].shape[0],
            shapes[anew[0]][0],
            ', '.join(anew),
        )
    fresh = {name: mx.nd.full(shape, lambda_init) for name, shape in shapes.items() if name not in found}
    fresh.update(_first_values({name: shapes[name] for name in anew}, seed))
    return dict(arg_params, **fresh), dict(aux_params)


def weights_of(
    finetune: str, symbol: mx.sym.Symbol, shapes: Dict[str, Shape], lambda_init: float, seed: int = 0
) -> Tuple[Params, Params]:
    """(arg_params, aux_params) for ``symbol`` from the checkpoint ``finetune``; ``shapes`` are those of its inputs.

    Raises CheckpointError where there is none, or the weights do not fit: see ``restart_weights``.
    """
    _, arg_params, aux_params = load_checkpoint(*named_checkpoint(finetune))
    classifier = classifier_parameters(symbol)
    return fitting_weights(symbol, arg_params, aux_params, shapes, finetune, lambda_init, classifier, seed)


def fitting_weights(
    symbol: mx.sym.Symbol,
    arg_params: Params,
    aux_params: Params,
    shapes: Dict[str, Shape],
    origin: str,
    lambda_init: float,
    classifier: Tuple[str, ...] = (),
    seed: int = 0,
) -> Tuple[Params, Params]:
    """``restart_weights`` for ``symbol``; ``shapes`` are those of its inputs."""
    arg_shapes, _, aux_shapes = symbol.infer_shape(**shapes)
    wanted = dict(zip(symbol.list_arguments(), arg_shapes), **dict(zip(symbol.list_auxiliary_states(), aux_shapes)))
    return restart_weights(
        arg_params,
        aux_params,
        {name: shape for name, shape in wanted.items() if name not in shapes},
        origin,
        lambda_init,
        classifier,
        seed,
    )


def _first_values(shapes: Dict[str, Shape], seed: int) -> Params:
    random = np.random.RandomState(seed)
    return {
        name: mx.nd.array(random.normal(0, CLASSIFIER_DEVIATION, shape)) if len(shape) > 1 else mx.nd.zeros(shape)
        for name, shape in shapes.items()
    }
