"""A whole training step, forward, backward and update: with λ and without, in each placement and engine, and of the
network that is left when blocks have died.
"""

from __future__ import annotations

import argparse
import importlib
import re
from functools import partial
from typing import Any, Callable, Dict, List, Optional, Tuple

import numpy as np

from graphs.complexity import complexity
from graphs.lambdas import lambda_layout
from graphs.shrink import shrink
from runtime import mx
from runtime.errors import MissingDependencyError, UserError
from symbols import get_symbol, parse_image_shape
from train import build as run_parts
from train.data.datasets import synthetic_data
from train.engines.interface import Engine

from .alternating import RunSteps, time_alternating
from .report import TableRow, milliseconds

OPTIMIZER: Dict[str, Any] = {'learning_rate': 1e-3, 'momentum': 0.9, 'wd': 1e-4}

DTYPES = {'mxnet': ('float32', 'float16'), 'torch': ('float32', 'bfloat16', 'float16')}

# What is compared: name → (scale, placement). 'off' is the network without λ, 'output' the authors' graph.
LAMBDAS: Dict[str, Tuple[Optional[str], str]] = {
    'off': ('none', 'weight'),
    'weight': (None, 'weight'),
    'output': (None, 'output'),
}
# From (symbol, data shapes, label shapes, dtype, memonger, compile) to an engine that is not started.
BuildEngine = Callable[['mx.sym.Symbol', List['mx.io.DataDesc'], List['mx.io.DataDesc'], str, int, str], Engine]


def measure(args: argparse.Namespace) -> List[TableRow]:
    """The rows of the table; speeds are compared with the first candidate's. Raises UserError where no engine has one
    of the dtypes.
    """
    network = args.network, args.num_layers, args.num_classes, args.image_shape, args.batch_size
    builds = {
        _name(engine, name, dtype, memonger, compiled, blocks): partial(
            training, ENGINES[engine], *network, *LAMBDAS[name], dtype, memonger, compiled, blocks
        )
        for engine in args.engines
        for name in args.lambdas
        for dtype, memonger, compiled in _variants(engine, args)
        for blocks in (('', *args.blocks) if name == 'weight' else ('',))
    }
    if not builds:
        raise UserError(
            f'--dtypes {",".join(args.dtypes)}: no engine of --engines {",".join(args.engines)} computes in it; '
            'bfloat16 is of torch'
        )
    shares = {name: _share(name, network[:4]) for name in builds} if args.blocks else {}
    measured = time_alternating(builds, args.rounds, args.steps, args.clock)
    reference = next(iter(measured.values()))
    return [
        {
            'engine, λ': name,
            'images/s': args.batch_size / result.median,
            'speed over the first': 1 / result.time_over(reference),
            **({'MACs kept (%)': 100 * shares[name]} if shares else {}),
            **milliseconds(result),
        }
        for name, result in measured.items()
    ]


def _share(name, network):
    """The MACs of the candidate ``name``, as a share of those of the whole network."""
    whole, blocks = get_symbol(*network, *LAMBDAS['weight']), re.search(r'blocks ([01]+)', name)
    one_image = {'data': (1, *parse_image_shape(network[3]))}
    left = without_blocks(whole, blocks.group(1), one_image) if blocks else whole
    return complexity(left, one_image).macs / complexity(whole, one_image).macs


def without_blocks(symbol: mx.sym.Symbol, blocks: str, data_shapes: Dict[str, Tuple[int, ...]]) -> mx.sym.Symbol:
    """The network that ``--shrink`` goes on with when the blocks are dead whose place in ``blocks`` ('110100', a digit
    for each block) has a 0. Raises UserError where the network has another number of blocks.
    """
    count = next((len(vector.stages) for vector in lambda_layout(symbol) if vector.kind == 'block'), 0)
    if len(blocks) != count:
        raise UserError(f'--blocks {blocks}: give a digit for each of the {count} blocks of the network')
    return shrink(symbol, {'lambda_block': np.array([digit == '0' for digit in blocks])}, data_shapes).symbol


def _variants(engine, args):
    """(dtype, memonger, compile) of every candidate of an engine: those that it can compute."""
    dtypes = [dtype for dtype in args.dtypes if dtype in DTYPES[engine]]
    if engine == 'mxnet':
        return [(dtype, int(memonger), 'off') for dtype in dtypes for memonger in args.memonger]
    return [(dtype, 0, compiled) for dtype in dtypes for compiled in args.compile]


def _name(engine, name, dtype, memonger, compiled, blocks):
    """'mxnet weight', followed by settings that are not the defaults: 'torch weight bfloat16 compiled'."""
    more = [dtype] * (dtype != 'float32') + ['memonger'] * bool(memonger) + ['compiled'] * (compiled == 'on')
    more += [f'blocks {blocks}'] * bool(blocks)
    return ' '.join([engine, name, *more])


def training(
    build: BuildEngine,
    network: str,
    num_layers: int,
    num_classes: int,
    image_shape: str,
    batch_size: int,
    scale: Optional[str],
    placement: str,
    dtype: str = 'float32',
    memonger: int = 0,
    compiled: str = 'off',
    blocks: str = '',
) -> RunSteps:
    """Steps as ``train.fit`` takes them, on one fixed batch of noise. Network and ``scale`` are as for
    ``get_symbol``, ``blocks`` as for ``without_blocks``; '' keeps all.
    """
    symbol = get_symbol(network, num_layers, num_classes, image_shape, scale, placement)
    shape = parse_image_shape(image_shape)
    if blocks:
        symbol = without_blocks(symbol, blocks, {'data': (batch_size, *shape)})
    # The engine first: PyTorch's sets MXNet up, which must not have computed before.
    engine = build(
        symbol,
        [mx.io.DataDesc('data', (batch_size, *shape))],
        [mx.io.DataDesc('softmax_label', (batch_size,))],
        dtype,
        memonger,
        compiled,
    )
    data = synthetic_data(batch_size, shape, num_classes)
    parameters = [name for name in symbol.list_arguments() if name not in ('data', 'softmax_label')]
    from optimizers import APG  # loads MXNet, so not before the command line is read

    engine.start(APG(param_idx2name=dict(enumerate(parameters)), sym=symbol, rescale_grad=1 / batch_size, **OPTIMIZER))
    batch, tally = next(data), engine.tally(top_k=0)

    def run_steps(steps):
        for _ in range(steps):
            tally.add(engine.step(batch, seed=0), engine.labels(batch))
        engine.settle()

    return run_steps


def mxnet_engine(
    symbol: mx.sym.Symbol,
    data_shapes: List[mx.io.DataDesc],
    label_shapes: List[mx.io.DataDesc],
    dtype: str,
    memonger: int,
    _: str,
) -> Engine:
    """MXNet's engine on the first card, or on the CPU, which emulates float16 slowly."""
    return run_parts.mxnet_engine(
        symbol,
        [mx.gpu() if mx.context.num_gpus() else mx.cpu()],
        data_shapes,
        label_shapes,
        dtype=dtype,
        memonger=bool(memonger),
    )


def torch_engine(
    symbol: mx.sym.Symbol,
    data_shapes: List[mx.io.DataDesc],
    label_shapes: List[mx.io.DataDesc],
    dtype: str,
    _: int,
    compiled: str,
) -> Engine:
    """PyTorch's engine, channels last, which is faster on a CPU too; on a card its steps are CUDA graphs. Raises
    MissingDependencyError without PyTorch.
    """
    try:
        torch, arithmetic, engine = (
            importlib.import_module(name) for name in ('torch', 'train.engines.torch_arithmetic', 'train.engines.torch')
        )
    except ImportError:
        raise MissingDependencyError('--engines torch needs PyTorch: make venv EXTRAS=torch') from None
    card = '0' if torch.cuda.is_available() else None
    return engine.TorchEngine(
        symbol, card, data_shapes, label_shapes, arithmetic.Arithmetic(dtype, channels_last=True, compile=compiled)
    )


ENGINES: Dict[str, BuildEngine] = {'mxnet': mxnet_engine, 'torch': torch_engine}
