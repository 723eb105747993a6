"""Weights of our families between MXNet, GluonCV and PyTorch, by the rules of ``naming_styles``.

symbol, arg_params, aux_params = to_mxnet('resnet20-12fca82f.th')
state = to_torch_state(arg_params, aux_params)
save_arrays('resnet50_v2.params', to_gluoncv_params(arg_params, aux_params))
"""

from __future__ import annotations

from typing import Dict, Mapping, Optional, Tuple

import numpy as np

from graphs.values import Params
from runtime import mx
from runtime.errors import CheckpointError
from symbols import get_symbol

from .data_bn import DATA_BN, does_nothing, neutral_data_bn
from .gluon_zoo import zoo_file
from .lambdas import without_lambda
from .naming_styles import PYTORCH_STYLE, STYLES, family_of
from .recognise import Match, recognise
from .tensor_files import is_file_of_tensors, read_tensors


def to_mxnet(
    source: str, network: Optional[str] = None, num_layers: Optional[int] = None
) -> Tuple[mx.sym.Symbol, Params, Params]:
    """Read a network of ours out of a GluonCV or PyTorch file: ``(symbol, arg_params, aux_params)``, under the authors'
    names, the arrays as NDArray.

    ``source`` is a ``.params``, ``.pth``, ``.pt``, ``.th`` or ``.safetensors`` file, or the name of a GluonCV network,
    whose weights are fetched. Family and depth are recognised by the names of the tensors; given, they narrow the
    choice. GluonCV's normalisation of the data stays, as the layer ``bn_data``, unless it does nothing. Raises
    CheckpointError, naming tensors and shapes, unless every tensor is accounted for.
    """
    tensors = read_tensors(source if is_file_of_tensors(source) else zoo_file(source))
    match = recognise({name: array.shape for name, array in tensors.items()}, network, num_layers)
    match.require_whole(source)
    return assembled(match, tensors)


def assembled(match: Match, tensors: Mapping[str, np.ndarray]) -> Tuple[mx.sym.Symbol, Params, Params]:
    """``(symbol, arg_params, aux_params)`` of the Match of ``tensors``, name → NumPy array."""
    params = {own: mx.nd.array(tensors[name], dtype=_precision(tensors[name])) for name, own in match.ours.items()}
    symbol = match.symbol
    if f'{DATA_BN}_gamma' in params and does_nothing(
        {name: array.asnumpy() for name, array in params.items() if name.startswith(DATA_BN)}
    ):
        symbol = get_symbol(match.style.network, match.num_layers, match.num_classes, match.image_shape, scale='none')
    arguments, states = (
        {name: params[name] for name in names if name in params}
        for names in (symbol.list_arguments(), symbol.list_auxiliary_states())
    )
    return symbol, arguments, states


def to_torch_state(arg_params: Params, aux_params: Params, style: Optional[str] = None) -> Dict[str, np.ndarray]:
    """A network of ours, full or stripped, as a PyTorch state dict: name → NumPy array, λ folded into the parameters
    beside it.

    ``style`` is that of one of ``naming_styles.STYLES`` with PyTorch's roles ('torchvision', 'akamaster', 'pytorchcv');
    None is the family's usual one. A full network fits the module of that name there, a stripped one a
    module that was cut alike. Raises CheckpointError for a family that the style does not name.
    """
    arguments = without_lambda(arg_params, aux_params)
    family = family_of(arguments)
    renamed = _renamed({**arguments, **aux_params}, family, style or PYTORCH_STYLE[family])
    return {name: array.asnumpy() for name, array in renamed.items()}


def to_gluoncv_params(arg_params: Params, aux_params: Params) -> Params:
    """A full network of ours as GluonCV's ``load_parameters`` wants it: name → NDArray, λ folded, with a normalisation
    of the data that does nothing where GluonCV has one and we do not. Raises CheckpointError for a network that GluonCV
    does not have.
    """
    params = {**without_lambda(arg_params, aux_params), **aux_params}
    family = family_of(params)
    if family == 'resnet' and f'{DATA_BN}_gamma' not in params:
        params.update(
            (name, mx.nd.array(values)) for name, values in neutral_data_bn(params['conv0_weight'].shape[1]).items()
        )
    renamed = _renamed(params, family, 'gluoncv')
    recognise({name: array.shape for name, array in renamed.items()}, family).require_whole('what GluonCV would get')
    return renamed


def _renamed(params, family, style_name):
    """``params`` under the names of a style. Several styles have one name; the one with the fewest layers outside units
    that names every parameter is taken.
    """
    styles = sorted(
        (style for style in STYLES if (style.network, style.name) == (family, style_name)),
        key=lambda style: len(style.outside),
    )
    if not styles:
        known = sorted({style.name for style in STYLES if style.network == family})
        raise CheckpointError(f'{style_name} has no {family} like ours; known for it: {", ".join(known)}')
    nameless = []
    for style in styles:
        names = {name: style.rename(name) for name in params}
        nameless = sorted(name for name in params if names[name] is None)
        if not nameless:
            return {names[name]: array for name, array in params.items()}
    raise CheckpointError(f'{style_name} has no name for {", ".join(nameless[:5])} of this {family}')


def _precision(array):
    """MXNet's dtype for ``array``: its own if it is a floating-point type that MXNet has, else float32."""
    return array.dtype if array.dtype in (np.float16, np.float32, np.float64) else np.dtype(np.float32)
