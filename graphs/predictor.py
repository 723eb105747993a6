"""Run a network on images: what it puts out before its softmax.

run = Predictor(Network(symbol, arg_params, aux_params))
(logits,) = run(images)                             # one array for each output of the network
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Union

import numpy as np

from formats.symbol_fit import image_shapes
from formats.symbol_operators import first_line
from formats.symbol_shapes import check_bound
from runtime import mx
from runtime.errors import UserError

from .attributes import flag, integers
from .folding import widened
from .graph import NORMALISERS, Graph, Output, Shape, input_names, only_input
from .int8 import has_integer_operators, integer_symbol, is_int8
from .losses import logits
from .onednn_workaround import guard_sums
from .operator_table import RESHAPES
from .values import Params

CASTS = ('Cast', 'amp_cast')
# A network that takes these takes a batch of any size.
ANY_BATCHES = (2, 3)
Images = Union[np.ndarray, Dict[str, np.ndarray]]


class Network(NamedTuple):
    """A symbol and its parameters (dicts name → NDArray)."""

    symbol: mx.sym.Symbol
    arg_params: Params
    aux_params: Params


class Predictor:
    """A network for inference: images in, what stands before its last softmax or sigmoid out.

    Parameters
    ----------
    network : the network. Labels, which only a loss reads, are not asked for. The arrays are used as they are, on the
        CPU without a copy, and must not be changed meanwhile.
    graph : the part of the network to compute, where that is not everything up to the logits.
    context : the device; the CPU when left out.

    ``symbol`` is that of the network, ``inputs`` holds the names of its inputs, ``outputs`` those of its outputs.

    Half-precision networks run in single precision, since MXNet lacks half-precision operators on a CPU. A network in
    8 bits runs on integer operators there; see ``graphs.int8``.

    Raises CheckpointError where a state is missing.
    """

    def __init__(self, network: Network, graph: Optional[Graph] = None, context: Optional[mx.Context] = None) -> None:
        graph = logits(Graph.from_symbol(network.symbol)) if graph is None else graph
        guard_sums(graph)  # MXNet's wrong sum would look like an error of the network
        graph.replace({Output(node): node.inputs[0] for node in graph.nodes() if node.op in CASTS})
        self.symbol = network.symbol
        self._context = context or mx.cpu()
        self._symbol = self._computed = graph.to_symbol()
        if is_int8(graph) and self._context.device_type == 'cpu' and has_integer_operators():
            self._computed = integer_symbol(self._symbol)
        # A forward pass under way elsewhere may be moving weights to another memory layout; read meanwhile, they are
        # wrong.
        mx.nd.waitall()
        # BatchNorm with fix_gamma writes into its γ.
        written = {
            node.sources[1].name for node in graph.nodes() if node.op in NORMALISERS and flag(node, 'fix_gamma', True)
        }
        self._arguments = {
            name: self._placed(network.arg_params[name], name in written)
            for name in self._symbol.list_arguments()
            if name in network.arg_params
        }
        self._states = {name: self._placed(network.aux_params[name]) for name in self._symbol.list_auxiliary_states()}
        self._is_double = any(array.dtype == np.float64 for array in self._arguments.values())
        self._executor: Any = None
        self._shapes: Dict[str, Shape] = {}
        self._fixed: Dict[tuple, Optional[int]] = {}
        self._graph = graph
        known = {**self._arguments, **self._states}
        self.inputs = input_names(graph, known)
        self.outputs = [head.node.name for head in graph.heads]

    def __call__(self, images: Images, batch_size: Optional[int] = None) -> List[np.ndarray]:
        """The outputs for ``images``, one array for each, in single precision at least.

        ``images`` is an array (N, ...) for a network of one input, or a dict from the name of each input to its array.
        ``batch_size`` images are computed at a time, so that feature maps take little memory; all of them by default.
        A network that fixes its batch is run as often as it takes.

        Raises UserError for images that the network does not take.
        """
        images = self._by_name(images)
        count = len(next(iter(images.values())))
        fixed = self.fixed_batch({name: array.shape for name, array in images.items()})
        if fixed and count < fixed:
            filled = {
                name: np.concatenate([array, np.resize(array, (fixed - count, *array.shape[1:]))])
                for name, array in images.items()
            }
            return [output[:count] for output in self(filled)]
        batch_size = fixed or min(batch_size or count, count)
        parts = []
        try:
            for start in range(0, count, batch_size):
                # The last batch is full: it takes some images again.
                first = min(start, count - batch_size)
                batch = {name: array[first : first + batch_size] for name, array in images.items()}
                parts.append([output[start - first :] for output in self._outputs_of(batch)])
        except mx.MXNetError as error:
            shapes = ', '.join(f'{name} {array.shape[1:]}' for name, array in images.items())
            raise UserError(f'the network does not take images of shape {shapes}: {first_line(error)}') from None
        return parts[0] if len(parts) == 1 else [np.concatenate(of_output) for of_output in zip(*parts)]

    def output_shapes(self, shapes: Mapping[str, Shape]) -> List[Shape]:
        """The shape of each output for inputs of ``shapes`` (dict name → shape, the batch first).

        Raises UserError where they do not fit.
        """
        known = {name: array.shape for name, array in self._arguments.items()}
        try:
            given = {name: shapes[name] for name in self.inputs if name in shapes}
            _, found, _ = self._symbol.infer_shape_partial(**known, **given)
        except mx.MXNetError as error:
            described = ', '.join(f'{name} {shape[1:]}' for name, shape in shapes.items())
            raise UserError(f'the network does not take images of shape {described}: {first_line(error)}') from None
        missing = [name for name in self.inputs if name not in shapes]
        if found is None or any(not shape or 0 in shape for shape in found):
            raise UserError(f'the shapes of the network do not follow from its inputs; not given: {missing or "none"}')
        return found

    def fixed_batch(self, shapes: Mapping[str, Shape]) -> Optional[int]:
        """The only batch size that the network takes, where one is written into it (a Reshape to (1, -1)); None where
        any will do. ``shapes`` maps inputs to shapes, whose first side does not count.
        """
        samples = tuple((name, tuple(shape[1:])) for name, shape in shapes.items())
        if samples not in self._fixed:
            first_sides = {integers(node, 'shape', (0,))[0] for node in self._graph.nodes() if node.op in RESHAPES}
            written = sorted(side for side in first_sides if side > 0)
            is_free = not written or all(self._takes(batch, shapes) for batch in ANY_BATCHES)
            fitting = (batch for batch in written if self._takes(batch, shapes))
            self._fixed[samples] = None if is_free else next(fitting, None)
        return self._fixed[samples]

    def _takes(self, batch: int, shapes: Mapping[str, Shape]) -> bool:
        try:
            self.output_shapes({name: (batch, *shape[1:]) for name, shape in shapes.items()})
        except UserError:
            return False
        return True

    def _by_name(self, images: Images) -> Dict[str, np.ndarray]:
        images = images if isinstance(images, dict) else {only_input(self.inputs): images}
        missing = [name for name in self.inputs if name not in images]
        if missing:
            raise UserError(f'the network needs the input {missing[0]!r}, which was not given')
        return {name: images[name] for name in self.inputs}

    def _outputs_of(self, batch: Dict[str, np.ndarray]) -> List[np.ndarray]:
        shapes = {name: array.shape for name, array in batch.items()}
        if shapes != self._shapes:
            dtype = np.float64 if self._is_double else np.float32
            # Shapes that the symbol states itself were checked when it was read.
            if {name: (1, *shape[1:]) for name, shape in shapes.items()} != image_shapes(self.symbol):
                check_bound(self._symbol, {**self._arguments, **batch})
            inputs = {name: mx.nd.zeros(shape, self._context, dtype) for name, shape in shapes.items()}
            arguments = {**self._arguments, **inputs}
            self._executor = self._computed.bind(self._context, arguments, aux_states=self._states, grad_req='null')
            self._shapes = shapes
        for name, array in batch.items():
            self._executor.arg_dict[name][:] = array
        return [output.asnumpy() for output in self._executor.forward(is_train=False)]

    def _placed(self, array, as_copy: bool = False):
        placed = widened(array).as_in_context(self._context)
        return placed.copy() if as_copy and placed is array else placed
