"""Any trained network that can be named on a command line: its parameters by name, and what it computes.

model = read_model('run/resnet20:160')
model.params['conv0_weight']                    # a NumPy array, under the authors' name where it has one
model.outputs(images)                           # one array for each output, before its softmax
"""

from __future__ import annotations

import contextlib
import os
from typing import Callable, Dict, List, Optional

import numpy as np

from formats.checkpoint_files import find_checkpoint, load_checkpoint
from formats.onnx_file import load_onnx
from graphs.graph import Shape, data_shape_of
from graphs.predictor import Network, Predictor
from graphs.preprocessing import METADATA_KEY, Preprocessing, parse_preprocessing, preprocessing_of
from runtime import mx
from runtime.errors import CheckpointError, MissingDependencyError, UserError

from .convert import assembled
from .data_bn import DATA_BN, does_nothing
from .gluon_zoo import zoo_file
from .lambdas import has_lambda, without_lambda
from .recognise import is_bookkeeping, recognise
from .runners import OnnxRunner, TorchRunner, onnx_tensors
from .tensor_files import is_file_of_tensors, is_state_dict, read_tensors

ONNX_ENDING = '.onnx'
Runner = Callable[[np.ndarray], List[np.ndarray]]


class Model:
    """A trained network.

    Attributes
    ----------
    source : what the user called it.
    description : what it is, and what computes it, in words.
    params : dict name → NumPy array, under the authors' names as far as these are known.
    image_shape : (channels, height, width) that it takes, or None where that is unknown.
    symbol : the graph of an MXNet checkpoint, None for anything else.
    preprocessing : how images are prepared for it, and what its classes are called; None where the file does not say.
    """

    def __init__(
        self,
        source: str,
        description: str,
        params: Dict[str, np.ndarray],
        image_shape: Optional[Shape],
        run: Optional[Runner] = None,
        symbol: Optional[mx.sym.Symbol] = None,
        preprocessing: Optional[Preprocessing] = None,
    ) -> None:
        self.preprocessing = preprocessing
        self.source, self.description, self.params, self.image_shape, self.symbol, self._run = (
            source,
            description,
            params,
            image_shape,
            symbol,
            run,
        )

    def outputs(self, images: np.ndarray, batch_size: int = 100) -> List[np.ndarray]:
        """What stands before the softmax, one array for each output, for float32 ``images`` (N, C, H, W).

        Raises UserError where there is no way to compute it.
        """
        if self._run is None:
            raise UserError(f'{self.source} holds the tensors of an unknown network, so its outputs cannot be computed')
        parts = [self._run(images[begin : begin + batch_size]) for begin in range(0, len(images), batch_size)]
        return [np.concatenate(of_output) for of_output in zip(*parts)]

    @property
    def output_names(self) -> Optional[List[str]]:
        """The names of the outputs, None where they are not known."""
        return getattr(self._run, 'outputs', None)

    @property
    def computes(self) -> bool:
        """Whether ``outputs`` can be called."""
        return self._run is not None

    @property
    def has_lambda(self) -> bool:
        """Whether its scaling factors are still variables."""
        return has_lambda(self.params)

    def by_graph_of(self, other: Model) -> Model:
        """This model, made to compute by the symbol of ``other`` where it cannot compute alone and holds exactly the
        parameters, by name and shape, that ``other`` has: a stripped network in PyTorch beside the same one in MXNet.
        """
        shapes, others = ({name: array.shape for name, array in model.params.items()} for model in (self, other))
        if self.computes or other.symbol is None or shapes != others:
            return self
        arrays = {name: mx.nd.array(values, dtype=values.dtype) for name, values in self.params.items()}
        states = {name: arrays.pop(name) for name in other.symbol.list_auxiliary_states()}
        runtime, run = _runner(is_state_dict(self.source), other.symbol, arrays, states)
        return Model(
            self.source,
            f'tensors that fit the graph of {other.source}, computed by {runtime}',
            self.params,
            other.image_shape,
            run,
        )

    def params_without_lambda(self) -> Dict[str, np.ndarray]:
        """``params`` with λ folded into the parameters beside it. Raises CheckpointError for a network that is none of
        our full ones.
        """
        arrays = {name: mx.nd.array(values, dtype=values.dtype) for name, values in self.params.items()}
        states = {name: array for name, array in arrays.items() if name.endswith(('_moving_mean', '_moving_var'))}
        arguments = {name: array for name, array in arrays.items() if name not in states}
        return _numpy({**without_lambda(arguments, states), **states})


def read_model(source: str) -> Model:
    """The Model that ``source`` names.

    What ``find_checkpoint`` finds is a checkpoint of MXNet; other ``.params`` files are GluonCV's; ``.pth``, ``.pt``,
    ``.th`` and ``.safetensors`` are state dicts, ``.onnx`` is ONNX, and anything else the name of a GluonCV network
    with the weights that GluonCV has for it. Bare tensors compute if their names and shapes are those of a network of
    ours: state dicts in PyTorch, if that is installed. Raises UserError for what cannot be read.
    """
    checkpoint = find_checkpoint(source)
    if checkpoint:
        return _from_mxnet(source, *load_checkpoint(*checkpoint))
    if source.endswith(ONNX_ENDING):
        return _from_onnx(source)
    if is_file_of_tensors(source):
        return _from_tensors(source, read_tensors(source))
    if os.path.exists(source) or os.path.dirname(source):
        reason = 'unknown kind of file' if os.path.exists(source) else 'no such checkpoint or file'
        raise CheckpointError(
            f'{source}: {reason}; give a checkpoint (PREFIX or PREFIX:EPOCH) or a .params, .pth, '
            '.th, .safetensors or .onnx file'
        )
    return _from_tensors(source, read_tensors(zoo_file(source)))


def _from_mxnet(source, symbol, arg_params, aux_params):
    params = _without_idle_data_bn(_numpy({**arg_params, **aux_params}))
    return Model(
        source,
        'MXNet checkpoint',
        params,
        data_shape_of(symbol),
        Predictor(Network(symbol, arg_params, aux_params)),
        symbol,
        preprocessing_of(symbol, source),
    )


def _from_onnx(source):
    model = load_onnx(source)
    runner = OnnxRunner(model, source)
    params, match = _under_our_names(onnx_tensors(model))
    name = f', {match.description}' if match else ''
    texts = [entry.value for entry in model.metadata_props if entry.key == METADATA_KEY]
    preprocessing = parse_preprocessing(texts[0], source) if texts else None
    what = f'ONNX file{name}, computed by ONNX Runtime'
    return Model(source, what, params, runner.image_shape, runner, preprocessing=preprocessing)


def _from_tensors(source, tensors):
    params, match = _under_our_names({name: array for name, array in tensors.items() if not is_bookkeeping(name)})
    if match is None:
        return Model(source, 'tensors of no network that we know', params, None, None)
    if match.problems:
        return Model(source, f'tensors, most of them of {match.description}', params, match.image_shape, None)
    runtime, run = _runner(is_state_dict(source), *assembled(match, tensors))
    return Model(source, f'{match.description}, computed by {runtime}', params, match.image_shape, run)


def _runner(in_torch, symbol, arg_params, aux_params):
    """(name, runner): PyTorch where that is wanted and installed, else MXNet."""
    if in_torch:
        with contextlib.suppress(MissingDependencyError):
            return 'PyTorch', TorchRunner.of_symbol(symbol, arg_params, aux_params)
    return 'MXNet', Predictor(Network(symbol, arg_params, aux_params))


def _under_our_names(tensors):
    """(tensors by the authors' names where they have one, the Match); the Match is None where less than half of the
    names are known.
    """
    try:
        match = recognise({name: array.shape for name, array in tensors.items()})
    except CheckpointError:
        return tensors, None
    if 2 * len(match.ours) < len(tensors):
        return tensors, None
    return _without_idle_data_bn({match.ours.get(name, name): array for name, array in tensors.items()}), match


def _without_idle_data_bn(params):
    """``params`` without a normalisation of the data that does nothing: a network that has one and a network that has
    none are then the same.
    """
    idle = f'{DATA_BN}_moving_mean' in params and does_nothing(params)
    return {name: array for name, array in params.items() if not (idle and name.startswith(f'{DATA_BN}_'))}


def _numpy(params):
    return {name: array.asnumpy() for name, array in params.items()}
