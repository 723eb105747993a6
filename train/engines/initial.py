"""The parameters that a run starts from when it has no others, the same in every engine after the same seed."""

from __future__ import annotations

import re
from typing import List, Tuple

import numpy as np

from runtime import mx
from runtime.errors import UserError

from .interface import Params


def seed_everything(number: int) -> None:
    """Seed the generators that MXNet draws from, its own and NumPy's."""
    mx.random.seed(number)
    np.random.seed(number)


def initial_parameters(
    symbol: mx.sym.Symbol, data_shapes: List[mx.io.DataDesc], label_shapes: List[mx.io.DataDesc]
) -> Tuple[Params, Params]:
    """(arg_params, aux_params) as MXNetEngine starts from after the same seed. Raises UserError, see ``initialise``."""
    module = mx.mod.Module(symbol, label_names=[label_shapes[0][0]])
    module.bind(data_shapes=data_shapes, label_shapes=label_shapes, for_training=False)
    initialise(module)
    return module.get_params()


def initialise(module: mx.mod.BaseModule) -> None:
    """Draw parameters by He et al.'s initialisation, which the authors train with. Raises UserError for a parameter
    whose name and variable do not say how it starts.
    """
    try:
        module.init_params(mx.init.Xavier(rnd_type='gaussian', factor_type='in', magnitude=2))
    except ValueError as error:
        unknown = re.search(r'initialization pattern for (.+?)\. Default', str(error))
        if not unknown:
            raise
        raise UserError(
            f'--network does not say how parameter {unknown.group(1)!r} starts: make its variable with init=..., '
            'or give the weights to start from, --finetune PREFIX:EPOCH'
        ) from None
