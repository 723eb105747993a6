"""An ONNX graph in the making: its nodes, its constants, and the name of every tensor."""

import importlib
from types import ModuleType
from typing import Any, Dict, List, Sequence, Union

import numpy as np

from graphs import attributes
from graphs.graph import Output, Shape, Shapes
from runtime.errors import MissingDependencyError

INT64 = 'int64'


class Builder:
    """Collects the nodes and constants of an ONNX graph.

    ``shapes`` and ``larger_shapes`` are as from ``Graph.shapes``, for a batch and a larger one: a side that differs
    between them grows with the batch.
    """

    def __init__(self, shapes: Shapes, larger_shapes: Shapes) -> None:
        self._helper, self._numpy_helper = required('onnx.helper'), required('onnx.numpy_helper')
        self._shapes, self._larger = shapes, larger_shapes
        self.nodes: List[Any] = []  # onnx.NodeProto, which mypy does not know
        self._constants: List[Any] = []
        self._names: Dict[Output, str] = {}
        self._taken = {''}

    def shape(self, source: Output) -> Shape:
        """The shape of an ``Output``, for the smaller batch."""
        return self._shapes[source]

    def free_shape(self, source: Output) -> List[int]:
        """The shape of an ``Output`` with -1 for the side that grows with the batch. GraphError where two sides do."""
        sides = [small if small == large else -1 for small, large in zip(self._shapes[source], self._larger[source])]
        attributes.require(sides.count(-1) <= 1, source.node, 'two sides of its shape grow with the batch')
        return sides

    def name(self, source: Output) -> str:
        """The name of the tensor that is an ``Output``."""
        if source not in self._names:
            self._names[source] = self._fresh(
                source.node.name if source.index == 0 else f'{source.node.name}_{source.index}'
            )
        return self._names[source]

    def name_constant(self, source: Output, values: np.ndarray) -> None:
        """Make an ``Output`` a constant: a NumPy array."""
        self._constants.append(self.tensor(values, self.name(source)))

    def constant(self, values: np.ndarray, wish: str = 'constant') -> str:
        """The name of a new constant."""
        name = self._fresh(wish)
        self._constants.append(self.tensor(values, name))
        return name

    def tensor(self, values: np.ndarray, name: str = '') -> Any:
        """A NumPy array as ONNX keeps it: raw bytes."""
        return self._numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name)

    def add(
        self, operator: str, inputs: Sequence[str], outputs: Union[None, str, List[str]] = None, **options: Any
    ) -> str:
        """Add a node and return the name of its first output: ``outputs`` is that name, a list of names, or None for a
        new one.
        """
        outputs = (
            [self._fresh(operator.lower())] if outputs is None else [outputs] if isinstance(outputs, str) else outputs
        )
        self.nodes.append(self._helper.make_node(operator, inputs, outputs, name=outputs[0], **options))
        return outputs[0]

    def constants_in_use(self) -> List[Any]:
        """The constants that a node reads, as ONNX tensors."""
        read = {name for node in self.nodes for name in node.input}
        return [tensor for tensor in self._constants if tensor.name in read]

    def _fresh(self, wish):
        name, number = wish, 1
        while name in self._taken:
            name, number = f'{wish}_{number}', number + 1
        self._taken.add(name)
        return name


def required(module: str) -> ModuleType:
    """A module of an optional package, or MissingDependencyError with the way to get it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MissingDependencyError(
            f'{module.split(".")[0]} is not installed: pip install onnx==1.13.1 protobuf==3.20.3 onnxruntime==1.18.1'
        ) from None
