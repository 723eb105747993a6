"""Whether parameters belong to a symbol: they have the same names, and the shapes that the graph needs."""

from __future__ import annotations

from typing import Container, Dict, Iterable, Mapping, Set, Tuple

from runtime import mx
from runtime.errors import CheckpointError

from .symbol_limits import IMAGE_SHAPE
from .symbol_operators import first_line

# One image of unknown channels, height and width, as MXNet writes what it does not know.
ANY_IMAGE = (1, 0, 0, 0)
# How the names of parameters end and begin in MXNet, Gluon and this project. Any other argument that a file does not
# hold is the data or a label.
_LEARNT_ENDINGS = ('weight', 'bias', 'gamma', 'beta', 'alpha', 'parameters')
_LEARNT_BEGINNING = 'lambda_'


def check_fit(
    symbol: mx.sym.Symbol, arg_params: Mapping[str, mx.nd.NDArray], aux_params: Mapping[str, mx.nd.NDArray], path: str
) -> None:
    """Raise CheckpointError, naming ``path``, tensor, expected and found shape, unless the two dicts name → NDArray are
    parameters of ``symbol``.

    Shapes are inferred from the image shape that the symbol's data variable carries (``__image_shape__``); where there
    is none, as far as they follow from the graph and from one another.
    """
    found = {name: array.shape for name, array in {**arg_params, **aux_params}.items()}
    _check_names('argument', symbol.list_arguments(), arg_params, path)
    _check_names('auxiliary state', symbol.list_auxiliary_states(), aux_params, path)
    inputs = inputs_of(symbol, arg_params)
    _compare(expected_shapes(symbol, inputs), found, path)
    known = image_shapes(symbol)
    try:
        _compare(_inferred(symbol, {**known, **found}), found, path)
    except mx.MXNetError as error:
        if not inputs <= known.keys():
            return  # padding and upsampling fail where they do not know how many sides their input has
        raise CheckpointError(f'{path}: the parameters do not fit the network: {first_line(error)}') from None


def inputs_of(symbol: mx.sym.Symbol, arg_params: Container[str]) -> Set[str]:
    """The names of the arguments that are neither in ``arg_params`` nor labels."""
    return {name for name in symbol.list_arguments() if name not in arg_params and not name.endswith('label')}


def expected_shapes(symbol: mx.sym.Symbol, inputs: Iterable[str]) -> Dict[str, Tuple[int, ...]]:
    """The shapes of the parameters and states that follow from the graph alone, as a dict name → shape; 0 stands for a
    side that the graph does not determine.

    ``inputs`` are the names of the data. Where no input says which images it takes, all are assumed to be images of any
    size; where the network cannot work on images, the dict is empty.
    """
    known = image_shapes(symbol)
    try:
        return _inferred(symbol, known or dict.fromkeys(inputs, ANY_IMAGE))
    except mx.MXNetError:
        return {}


def _compare(expected, found, path):
    for name, shape in found.items():
        if not _agree(expected.get(name), shape):
            raise CheckpointError(f'{path}: {name!r} has shape {shape}, but the network needs {expected[name]}')


def _check_names(kind, wanted, given, path):
    unknown = sorted(given.keys() - set(wanted))
    if unknown:
        raise CheckpointError(
            f'{path}: the network has no {kind} {unknown[0]!r} ({_count(unknown)} unknown); this is a checkpoint of '
            'another network'
        )
    missing = [name for name in wanted if name not in given and (kind != 'argument' or is_learnt(name))]
    if missing:
        raise CheckpointError(
            f'{path}: the {kind} {missing[0]!r} of the network is missing ({_count(missing)} missing)'
        )


def _count(names):
    return f'{len(names)} such name{"s" if len(names) > 1 else ""}'


def is_learnt(name: str) -> bool:
    """Whether ``name`` is that of a parameter, not of the data or a label."""
    return name.endswith(_LEARNT_ENDINGS) or name.startswith(_LEARNT_BEGINNING)


def image_shapes(symbol: mx.sym.Symbol) -> Dict[str, Tuple[int, ...]]:
    """The shape of one sample, (1, channels, height, width), for each input that says which images it takes: a dict
    name → shape.
    """
    inputs = set(symbol.list_arguments())
    return {
        name: (1, *map(int, attributes[IMAGE_SHAPE].split(',')))
        for name, attributes in symbol.attr_dict().items()
        if IMAGE_SHAPE in attributes and name in inputs
    }


def _inferred(symbol, known):
    arguments, _, states = symbol.infer_shape_partial(**known)
    names = symbol.list_arguments() + symbol.list_auxiliary_states()
    return dict(zip(names, (arguments or []) + (states or [])))


def _agree(expected, shape):
    """Whether a shape is the expected one, of which sides (0) or all of it (empty) may be unknown."""
    if not expected:
        return True
    return len(expected) == len(shape) and all(side in (0, -1, given) for side, given in zip(expected, shape))
