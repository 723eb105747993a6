"""Networks in PyTorch and ONNX Runtime as functions from images to outputs, as ``Predictor`` is in MXNet."""

from __future__ import annotations

import importlib
from typing import Any, Dict, List, Optional

import numpy as np

from graphs.graph import Shape
from graphs.values import Params
from runtime import mx
from runtime.errors import CheckpointError, GraphError, MissingDependencyError, UserError


class TorchRunner:
    """Calls a ``TorchGraph`` in inference mode on float32 images (N, C, H, W)."""

    def __init__(self, network: Any) -> None:
        self._torch, self._network = importlib.import_module('torch'), network.eval()

    @classmethod
    def of_symbol(cls, symbol: mx.sym.Symbol, arg_params: Params, aux_params: Params) -> TorchRunner:
        """The runner of the network that a symbol describes. Raises MissingDependencyError without PyTorch."""
        try:
            importlib.import_module('torch')
        except ImportError:
            raise MissingDependencyError('torch is not installed: pip install torch==2.13.0') from None
        graphs = importlib.import_module('.torch_graph', __package__)
        return cls(graphs.TorchGraph(symbol, arg_params, aux_params))

    def __call__(self, images: np.ndarray) -> List[np.ndarray]:
        """What stands before the softmax, one array for each output. Raises UserError for images that the network does
        not take.
        """
        try:
            with self._torch.inference_mode():
                found = self._network(self._torch.from_numpy(np.ascontiguousarray(images)))
                return [output.numpy() for output in (found if isinstance(found, tuple) else (found,))]
        except RuntimeError as error:
            raise UserError(
                f'the network does not take images of shape {images.shape[1:]}: {str(error).splitlines()[0][:200]}'
            ) from None


class OnnxRunner:
    """Calls an ``onnx.ModelProto`` in ONNX Runtime on float32 images (N, C, H, W); softmaxes at its end are left out.

    Raises MissingDependencyError without ONNX Runtime, GraphError for a network of several inputs or that it rejects.
    """

    def __init__(self, model: Any, path: str) -> None:
        self._path = path
        try:
            runtime = importlib.import_module('onnxruntime')
        except ImportError:
            raise MissingDependencyError('onnxruntime is not installed: pip install onnxruntime==1.18.1') from None
        try:
            self._session = runtime.InferenceSession(
                _ending_in_logits(model).SerializeToString(), providers=['CPUExecutionProvider']
            )
        except Exception as error:
            raise GraphError(f'{path}: ONNX Runtime rejects it ({str(error).splitlines()[0][:200]})') from None
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            raise GraphError(
                f'{path}: takes {", ".join(f"{given.name} {given.shape}" for given in inputs)}; one input of images '
                '(N, C, H, W) is expected'
            )
        self._input = inputs[0]

    @property
    def image_shape(self) -> Optional[Shape]:
        """(channels, height, width), or None where the file leaves one of them open."""
        sides = tuple(self._input.shape[1:])
        return sides if all(isinstance(side, int) for side in sides) else None

    def __call__(self, images: np.ndarray) -> List[np.ndarray]:
        """What stands before the softmax, one array for each output. A network of a fixed batch is called as often as
        it takes, the last time on a batch filled up with zeros.
        """
        batch = self._input.shape[0] if isinstance(self._input.shape[0], int) else len(images)
        parts = [self._whole_batch(images[begin : begin + batch], batch) for begin in range(0, len(images), batch)]
        return [np.concatenate(of_output) for of_output in zip(*parts)]

    def _whole_batch(self, images: np.ndarray, batch: int) -> List[np.ndarray]:
        filled = np.pad(images, [(0, batch - len(images))] + [(0, 0)] * 3)
        try:
            found = self._session.run(None, {self._input.name: filled})
        except Exception as error:
            raise UserError(
                f'{self._path}: ONNX Runtime cannot run it on images of shape {images.shape[1:]} '
                f'({str(error).splitlines()[0][:200]})'
            ) from None
        return [output[: len(images)] for output in found]


def onnx_tensors(model: Any) -> Dict[str, np.ndarray]:
    """The learned tensors of an ``onnx.ModelProto``: its floating-point constants of at least one axis, name → NumPy
    array.
    """
    to_array = importlib.import_module('onnx.numpy_helper').to_array
    arrays = {tensor.name: to_array(tensor) for tensor in model.graph.initializer}
    return {name: array for name, array in arrays.items() if array.ndim and np.issubdtype(array.dtype, np.floating)}


def _ending_in_logits(model):
    """``model``, or a copy in which each output that a softmax makes is what that softmax reads."""
    makers = {name: node for node in model.graph.node for name in node.output}
    if not model.graph.output or any(output.name not in makers for output in model.graph.output):
        raise CheckpointError('the ONNX network computes nothing')
    shortened = type(model)()
    shortened.CopyFrom(model)
    for output in shortened.graph.output:
        if makers[output.name].op_type == 'Softmax':
            output.name = makers[output.name].input[0]
    return shortened
