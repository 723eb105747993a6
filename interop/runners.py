"""Networks as functions from images to logits, each in the runtime that its file was written for."""

import importlib

import numpy as np

from formats.symbol_operators import first_line
from graphs.folding import widened
from graphs.graph import Output
from graphs.heads import input_name, logits_graph
from graphs.onednn_workaround import guard_sums
from graphs.proof import CASTS
from runtime import mx
from runtime.errors import CheckpointError, GraphError, MissingDependencyError, UserError


class MXNetRunner:
    """Calls a symbol with its parameters (dicts name → NDArray) on float32 images (N, C, H, W); whatever loss it ends
    in is left out.

    Half-precision networks run in single precision, since MXNet lacks half-precision operators on a CPU.
    """

    def __init__(self, symbol, arg_params, aux_params):
        graph, _ = logits_graph(symbol)
        self._data = input_name(graph, {**arg_params, **aux_params})
        guard_sums(graph)
        graph.replace({Output(node): node.inputs[0] for node in graph.nodes() if node.op in CASTS})
        self._symbol = graph.to_symbol()
        # A forward pass under way elsewhere may be moving weights to another memory layout; copied meanwhile, they are
        # wrong.
        mx.nd.waitall()
        # BatchNorm with fix_gamma writes into its γ, so the arguments are the executor's own.
        self._arguments = {
            name: widened(arg_params[name]).copy() for name in self._symbol.list_arguments() if name != self._data
        }
        self._states = {name: widened(aux_params[name]).copy() for name in self._symbol.list_auxiliary_states()}
        self._dtype = next((array.dtype for array in self._arguments.values()), np.float32)
        self._executor, self._shape = None, None

    def __call__(self, images):
        """The logits (N, classes). Raises UserError for images that the network does not take."""
        try:
            if images.shape != self._shape:
                arguments = {**self._arguments, self._data: mx.nd.zeros(images.shape, dtype=self._dtype)}
                self._executor = self._symbol.bind(mx.cpu(), arguments, aux_states=self._states, grad_req='null')
                self._shape = images.shape
            return (
                self._executor.forward(is_train=False, **{self._data: mx.nd.array(images, dtype=self._dtype)})[0]
                .asnumpy()
                .astype(np.float32)
            )
        except mx.MXNetError as error:
            raise UserError(
                f'the network does not take images of shape {images.shape[1:]}: {first_line(error)}'
            ) from None


class TorchRunner:
    """Calls, in PyTorch, the network that a symbol describes, on float32 images (N, C, H, W). Raises
    MissingDependencyError without PyTorch.
    """

    def __init__(self, symbol, arg_params, aux_params):
        try:
            self._torch = importlib.import_module('torch')
        except ImportError:
            raise MissingDependencyError('torch is not installed: pip install torch==2.13.0') from None
        self._network = (
            importlib.import_module('.torch_graph', __package__).TorchGraph(symbol, arg_params, aux_params).eval()
        )

    def __call__(self, images):
        """The logits (N, classes). Raises UserError for images that the network does not take."""
        try:
            with self._torch.no_grad():
                return self._network(self._torch.from_numpy(np.ascontiguousarray(images))).numpy()
        except RuntimeError as error:
            raise UserError(
                f'the network does not take images of shape {images.shape[1:]}: {str(error).splitlines()[0][:200]}'
            ) from None


class OnnxRunner:
    """Calls an ``onnx.ModelProto`` in ONNX Runtime on float32 images (N, C, H, W); a softmax at its end is left out.

    Raises MissingDependencyError without ONNX Runtime, GraphError for a network of several inputs or that it rejects.
    """

    def __init__(self, model, path):
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
    def image_shape(self):
        """(channels, height, width), or None where the file leaves one of them open."""
        sides = tuple(self._input.shape[1:])
        return sides if all(isinstance(side, int) for side in sides) else None

    def __call__(self, images):
        """The logits (N, classes). A network of a fixed batch is called as often as it takes, the last time on a batch
        filled up with zeros.
        """
        batch = self._input.shape[0] if isinstance(self._input.shape[0], int) else len(images)
        return np.concatenate(
            [self._whole_batch(images[begin : begin + batch], batch) for begin in range(0, len(images), batch)]
        )

    def _whole_batch(self, images, batch):
        filled = np.pad(images, [(0, batch - len(images))] + [(0, 0)] * 3)
        try:
            return self._session.run(None, {self._input.name: filled})[0][: len(images)]
        except Exception as error:
            raise UserError(
                f'{self._path}: ONNX Runtime cannot run it on images of shape {images.shape[1:]} '
                f'({str(error).splitlines()[0][:200]})'
            ) from None


def onnx_tensors(model):
    """The learned tensors of an ``onnx.ModelProto``: its floating-point constants of at least one axis, name → NumPy
    array.
    """
    to_array = importlib.import_module('onnx.numpy_helper').to_array
    arrays = {tensor.name: to_array(tensor) for tensor in model.graph.initializer}
    return {name: array for name, array in arrays.items() if array.ndim and np.issubdtype(array.dtype, np.floating)}


def _ending_in_logits(model):
    """``model``, or a copy whose first output is what its softmax reads."""
    last = next((node for node in model.graph.node if model.graph.output[0].name in node.output), None)
    if last is None:
        raise CheckpointError('the ONNX network computes nothing')
    if last.op_type != 'Softmax':
        return model
    shortened = type(model)()
    shortened.CopyFrom(model)
    shortened.graph.output[0].name = last.input[0]
    return shortened
