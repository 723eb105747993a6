"""Whether parameters belong to a symbol: every name known to both, every shape as the graph demands it."""

from runtime import mx
from runtime.errors import CheckpointError

from .symbol_limits import IMAGE_SHAPE
from .symbol_operators import first_line

# One image of unknown channels, height and width, as MXNet writes what it does not know.
ANY_IMAGE = (1, 0, 0, 0)
# What MXNet, Gluon and this project call the things that are learnt. Whatever else a symbol takes and a file does not
# hold is the data or a label.
_LEARNT_ENDINGS = ('weight', 'bias', 'gamma', 'beta', 'alpha', 'parameters')
_LEARNT_BEGINNING = 'lambda_'


def check_fit(symbol, arg_params, aux_params, path):
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


def inputs_of(symbol, arg_params):
    """The names of the arguments that are neither in ``arg_params`` nor labels, as a set."""
    return {name for name in symbol.list_arguments() if name not in arg_params and not name.endswith('label')}


def expected_shapes(symbol, inputs):
    """What the graph alone says of the shapes of its parameters and states, as a dict name → shape; 0 stands for a side
    that it leaves open.

    Of inputs that do not say which images they take, only that they are images is assumed; of a network on which even
    that does not fit, nothing is said.
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
    """Whether ``name`` is what a parameter is called, and not the data or a label."""
    return name.endswith(_LEARNT_ENDINGS) or name.startswith(_LEARNT_BEGINNING)


def image_shapes(symbol):
    """The shape of one sample, (1, channels, height, width), for each input that says of itself which images it takes:
    a dict name → shape.
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
