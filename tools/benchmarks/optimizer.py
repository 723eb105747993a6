"""The optimizer's step alone, over the parameters of a network: APG beside MXNet's own NAG and SGD."""

import argparse
from functools import partial
from typing import Any, Dict, List

from runtime import mx
from symbols import get_symbol, parse_image_shape

from .alternating import RunSteps, time_alternating
from .report import TableRow, milliseconds

REFERENCE = 'nag'


def measure(args: argparse.Namespace) -> List[TableRow]:
    """The rows of the table, MXNet's NAG first."""
    names = [REFERENCE] + [name for name in args.optimizers if name != REFERENCE]
    measured = time_alternating(
        {
            name: partial(updates, name, args.network, args.num_layers, args.num_classes, args.image_shape)
            for name in names
        },
        args.rounds,
        args.steps,
        args.clock,
    )
    return [
        {'optimizer': name, f'time over {REFERENCE}': result.time_over(measured[REFERENCE]), **milliseconds(result)}
        for name, result in measured.items()
    ]


def updates(name: str, network: str, num_layers: int, num_classes: int, image_shape: str) -> RunSteps:
    """Steps of an Updater whose keys are numbers, as in MXNet's Module. All optimizers update the same network with λ,
    which NAG and SGD treat as a weight.
    """
    symbol = get_symbol(network, num_layers, num_classes, image_shape)
    shapes = dict(zip(symbol.list_arguments(), symbol.infer_shape(data=(1, *parse_image_shape(image_shape)))[0]))
    shapes = {parameter: shape for parameter, shape in shapes.items() if parameter not in ('data', 'softmax_label')}
    settings: Dict[str, Any] = {
        'learning_rate': 0.1,
        'momentum': 0.9,
        'wd': 1e-4,
        'rescale_grad': 1 / 32,
        'param_idx2name': dict(enumerate(shapes)),
    }
    from optimizers import APG  # loads MXNet, so not before the command line is read

    updater = mx.optimizer.get_updater(APG(**settings) if name == 'apg' else mx.optimizer.create(name, **settings))
    weights = [mx.nd.ones(shape) for shape in shapes.values()]
    gradients = [mx.nd.random.normal(scale=0.01, shape=shape) for shape in shapes.values()]
    mx.nd.waitall()

    def run_steps(steps):
        for _ in range(steps):
            updater(list(range(len(weights))), gradients, weights)
        mx.nd.waitall()

    return run_steps
