"""MXNet checkpoints: ``prefix-symbol.json`` beside ``prefix-NNNN.params``, read and written as a pair that fits
together; and how they are named: PREFIX:EPOCH, or PREFIX for the last whole one.
"""

from __future__ import annotations

import glob
import logging
import os
import re
from typing import Dict, List, NamedTuple, Optional, Tuple, Union

import numpy as np

from runtime import mx
from runtime.cli import did_you_mean
from runtime.errors import CheckpointError
from runtime.files import written_together

from .manifest import check_sum, read_manifest, sums
from .params_file import load_params, save_params
from .symbol_file import load_symbol, save_symbol
from .symbol_fit import check_fit, image_shapes, inputs_of
from .symbol_shapes import check_shapes, check_sizes

SYMBOL_ENDING = '-symbol.json'
STOPPED = 'stopped'
# The part of a name between prefix and ending: the epoch, or 'stopped', whole epochs and batches of the next one.
LABEL = rf'\d{{4,}}|{STOPPED}-\d{{4,}}-\d+'

Epoch = Union[int, str]  # the number of epochs; 'stopped-0007-40' for a run that was stopped in epoch 8


class Checkpoint(NamedTuple):
    """The checkpoint of ``prefix`` after ``epoch``. As text it is PREFIX:EPOCH, as on command lines."""

    prefix: str
    epoch: Epoch

    def __str__(self) -> str:
        return f'{self.prefix}:{self.epoch}'

    @property
    def whole_epochs(self) -> int:
        """How many epochs the run had finished."""
        return progress(str(self.epoch))[0]

    @property
    def paths(self) -> Tuple[str, str]:
        """The files of the graph and of the parameters."""
        return symbol_path(self.prefix), params_path(self.prefix, self.epoch)


def symbol_path(prefix: str) -> str:
    """The file that holds the graph of every epoch."""
    return f'{prefix}{SYMBOL_ENDING}'


def params_path(prefix: str, epoch: Epoch) -> str:
    """The file that holds the parameters after ``epoch``."""
    return f'{prefix}-{epoch:04d}.params' if isinstance(epoch, int) else f'{prefix}-{epoch}.params'


def named_checkpoint(name: str) -> Checkpoint:
    """The checkpoint that ``name`` means, see ``find_checkpoint``. Raises CheckpointError where there is none."""
    found = find_checkpoint(name)
    if found:
        return found
    prefix = prefix_of(name)
    if not os.path.exists(symbol_path(prefix)):
        near = did_you_mean(os.path.basename(prefix), _prefixes_beside(prefix))
        raise CheckpointError(f'{symbol_path(prefix)}: no such file; {_what_there_is(prefix)}{near}')
    raise CheckpointError(f'{name}: no such checkpoint; {_what_there_is(prefix)}')


def find_checkpoint(name: str) -> Optional[Checkpoint]:
    """The checkpoint that ``name`` means, None where it is not the name of one.

    PREFIX:EPOCH is the checkpoint of this epoch, whether it exists or not. PREFIX, or PREFIX-symbol.json, is the last
    one that is whole, that of a stopped run too. PREFIX-0007.params is the checkpoint of epoch 7 where its symbol
    exists. Raises CheckpointError where every checkpoint of PREFIX is damaged.
    """
    prefix, epoch = _split(name)
    if epoch is not None:
        return Checkpoint(prefix, epoch)
    return last_checkpoint(prefix) if os.path.exists(symbol_path(prefix)) else None


def prefix_of(name: str) -> str:
    """PREFIX of a ``name`` as in ``find_checkpoint``."""
    return _split(name)[0]


def last_checkpoint(prefix: str) -> Optional[Checkpoint]:
    """The last checkpoint of ``prefix`` that is whole: where it has a manifest, its parameters have the sum that the
    manifest says. None where there are no parameters. Raises CheckpointError where no checkpoint is whole.
    """
    problems: List[str] = []
    for label in sorted(_labels(prefix), key=progress, reverse=True):
        try:
            _check_whole(prefix, label)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        found = Checkpoint(prefix, int(label) if label.isdecimal() else label)
        for problem in problems:
            logging.warning('%s; using %s instead', problem, found)
        return found
    if problems:
        raise CheckpointError('; '.join(problems))
    return None


def progress(label: str) -> Tuple[int, int]:
    """(finished epochs, batches of the next one) that a label such as '0007' or 'stopped-0007-40' says."""
    epoch, _, batch = label.replace(f'{STOPPED}-', '').partition('-')
    return int(epoch), int(batch or 0)


def load_checkpoint(
    prefix: str, epoch: Epoch
) -> Tuple[mx.sym.Symbol, Dict[str, mx.nd.NDArray], Dict[str, mx.nd.NDArray]]:
    """Read ``(symbol, arg_params, aux_params)``, the parameters as dicts name → NDArray, and check that they belong
    together.

    Raises CheckpointError (or GraphError, for the symbol) that names the file, the tensor, the expected and the found
    shape. Arguments that the parameters do not hold must be inputs of the network, that is the data or a label. Weights
    that are stored in 8 bits become float32.
    """
    graph, params = symbol_path(prefix), params_path(prefix, epoch)
    for path in (graph, params):
        if not os.path.exists(path):
            raise CheckpointError(f'{path}: no such file; {_what_there_is(prefix)}')
    symbol = load_symbol(graph)
    arg_params, aux_params = load_params(params)
    known = image_shapes(symbol)
    lacks_inputs = not inputs_of(symbol, arg_params) <= known.keys()
    check_shapes(symbol, known, graph, lacks_inputs)
    check_sizes(symbol, known, graph, lacks_inputs)
    check_fit(symbol, arg_params, aux_params, params)
    return symbol, {name: _widened(array) for name, array in arg_params.items()}, aux_params


def _widened(array):
    """An NDArray of int8 as float32, others as they are."""
    return array.astype(np.float32) if array.dtype == np.int8 else array


def save_model(
    prefix: str,
    epoch: int,
    symbol: mx.sym.Symbol,
    arg_params: Dict[str, mx.nd.NDArray],
    aux_params: Dict[str, mx.nd.NDArray],
) -> None:
    """Write the symbol and the parameters (dicts name → NDArray), both or none. The parameters are written last: a
    ``.params`` file is never beside the symbol of another network. Raises OSError.
    """
    with written_together([symbol_path(prefix), params_path(prefix, epoch)]) as (graph, params):
        save_symbol(graph, symbol)
        save_params(params, arg_params, aux_params)


def known_epochs(prefix: str) -> List[int]:
    """The epochs that have a ``.params`` file, in order; those of stopped runs are not among them."""
    return sorted(int(label) for label in _labels(prefix) if label.isdecimal())


def _split(name: str) -> Tuple[str, Optional[Epoch]]:
    """(prefix, epoch) of the name of a checkpoint, the epoch None where it does not say one. Raises CheckpointError for
    PREFIX:WORD.
    """
    if name.endswith(SYMBOL_ENDING):
        return name[: -len(SYMBOL_ENDING)], None
    parts = re.fullmatch(rf'(.+):(\d+|{STOPPED}-\d{{4,}}-\d+)', name)
    before, _, word = name.rpartition(':')
    if parts is None and before and os.path.exists(symbol_path(before)):
        raise CheckpointError(f'{name}: {word!r} is no epoch; give PREFIX:EPOCH, {_what_there_is(before)}')
    if parts is None or os.path.exists(name):
        parts = re.fullmatch(rf'(.+?)-({LABEL})\.params', name)
        if parts is None or not os.path.exists(symbol_path(parts.group(1))):
            return name, None
    prefix, epoch = parts.groups()
    return prefix, int(epoch) if epoch.isdecimal() else epoch


def _labels(prefix: str) -> List[str]:
    """The labels of all ``.params`` files of ``prefix``, in no order."""
    pattern = re.compile(rf'{re.escape(os.path.basename(prefix))}-({LABEL})\.params')
    names = map(os.path.basename, glob.glob(f'{glob.escape(prefix)}-*.params'))
    return [match.group(1) for match in map(pattern.fullmatch, names) if match]


def _check_whole(prefix: str, label: str) -> None:
    """Raise CheckpointError for parameters that are not what their manifest says, or were not written to the end."""
    params, manifest = f'{prefix}-{label}.params', f'{prefix}-{label}.json'
    if os.path.lexists(manifest):
        try:
            check_sum(params, sums(read_manifest(manifest))['.params'])
        except (KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f'{manifest}: lacks what a manifest has ({type(error).__name__}: {error})') from None
    elif os.path.exists(unfinished_path(prefix, label)):
        raise CheckpointError(f'{params}: was not written to the end')


def unfinished_path(prefix: str, label: str) -> str:
    """The file that exists while a run writes or removes the checkpoint ``label``."""
    folder, name = os.path.split(prefix)
    return os.path.join(folder, f'.{name}-{label}.unfinished')


def _prefixes_beside(prefix: str) -> List[str]:
    """The names of all checkpoints in the folder of ``prefix``."""
    folder = os.path.dirname(prefix) or '.'
    found = glob.glob(os.path.join(glob.escape(folder), f'*{SYMBOL_ENDING}'))
    return [os.path.basename(path)[: -len(SYMBOL_ENDING)] for path in found]


def _what_there_is(prefix: str) -> str:
    epochs = known_epochs(prefix)
    if not epochs:
        return f'there is no {prefix}-NNNN.params at all'
    return f'epochs of {prefix} that exist: {", ".join(map(str, epochs))}'
