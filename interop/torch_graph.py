"""Any network of this project in PyTorch: the MXNet symbol is executed node by node, and stays the description of the
network.

net = TorchGraph(symbol, arg_params, aux_params)
logits = net(images)                            # (N, classes): what stands before the softmax
net.loss(logits, labels).backward()             # the gradients that MXNet's SoftmaxOutput sends back
arg_params, aux_params = net.to_mxnet()
"""

from __future__ import annotations

from typing import List, NamedTuple, Optional, Tuple

import torch
import torch.nn.functional as F

from graphs.attributes import flag, number, require, single, text
from graphs.graph import Graph, Node, Output, Shape, image_shape_of, input_names, only_input
from graphs.losses import logits
from graphs.values import Params
from runtime import mx
from runtime.errors import CheckpointError, GraphError

from .torch_layers import Function, Outputs
from .torch_operators import converted

DATA = 'data'
NO_LABEL = -100  # of cross_entropy by default: a class that nothing has


class TorchGraph(torch.nn.Module):
    """A network that executes an MXNet symbol.

    Parameters
    ----------
    symbol : mx.sym.Symbol; a softmax at an end is left out of ``forward``, and where there is one end, becomes
        ``loss``.
    arg_params, aux_params : dicts name → mx.nd.NDArray, whose values and dtypes are taken over. Without them all are
    float32 zeros, to be filled by
        ``load_state_dict``.
    image_shape : (channels, height, width); only needed without parameters, and where the symbol does not say it
    itself.

    The argument ``w`` of MXNet is the parameter ``arg.w`` of the module, the auxiliary state ``s`` its buffer
    ``aux.s``: as in MXNet's files, which write ``arg:w`` and ``aux:s``. A dot within a name is written ``%2E``.

    Raises GraphError for an operator that the table in ``torch_operators`` does not hold, CheckpointError where
    parameters are missing.
    """

    def __init__(
        self,
        symbol: mx.sym.Symbol,
        arg_params: Optional[Params] = None,
        aux_params: Optional[Params] = None,
        image_shape: Optional[Shape] = None,
    ) -> None:
        super().__init__()
        # A forward pass under way may be moving weights to another memory layout; read meanwhile, they are wrong.
        mx.nd.waitall()
        whole = Graph.from_symbol(symbol)
        graph = logits(whole)
        weights, statistics = _zeros(symbol, image_shape) if arg_params is None else (arg_params, aux_params or {})
        self.arg, self.aux = _Tensors(), _Tensors()
        states = set(symbol.list_auxiliary_states())
        for node in graph.variables():
            if node.name in states:
                self.aux.register_buffer(encoded(node.name), _tensor(statistics, node.name))
            elif node.name in weights:
                self.arg.register_parameter(encoded(node.name), torch.nn.Parameter(_tensor(weights, node.name)))
        ends = [head.node for head in whole.heads]
        self._loss = SoftmaxLoss(ends[0]) if [end.op for end in ends] == ['SoftmaxOutput'] else None
        self._plan(graph, only_input(input_names(graph, {**weights, **statistics, **dict.fromkeys(states)})))

    def forward(self, images: torch.Tensor) -> Outputs:
        """The logits (N, classes) of ``images`` (N, C, H, W), or whatever the network ends in if that is no softmax; a
        tuple of them where there are several outputs.
        """
        values: List[Optional[Outputs]] = [None] * self._slots
        values[self._input] = images
        for slot, holder, name in self._variables:
            values[slot] = getattr(holder, name)
        for step in self._steps:
            values[step.slot] = step.run(*[_value(values, *source) for source in step.reads])
            for slot in step.done:
                values[slot] = None
        outputs = tuple(_value(values, *output) for output in self._outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The scalar whose gradient MXNet's SoftmaxOutput sends back, for ``labels`` (N,): class numbers, of any dtype.

        As the node's own attributes say, that is ``grad_scale`` times the *sum* of the cross-entropies over the batch
        (MXNet divides by the batch in the optimizer, by ``rescale_grad``), or their mean (``normalization``);
        ``ignore_label`` and ``smooth_alpha`` are taken as MXNet takes them. Raises GraphError for a network that does
        not end in SoftmaxOutput.
        """
        if self._loss is None:
            raise GraphError(
                'this network has no SoftmaxOutput at its end, so it does not say what to train it on; strip it with '
                '--for-training'
            )
        return self._loss(logits, labels)

    def to_mxnet(self) -> Tuple[Params, Params]:
        """``(arg_params, aux_params)``: dicts name → mx.nd.NDArray on the CPU, in the module's dtypes (bfloat16 as
        float32).
        """
        return _arrays(self.arg.named_parameters()), _arrays(self.aux.named_buffers())

    def mxnet_parameters(self) -> List[Tuple[str, torch.nn.Parameter]]:
        """The parameters by MXNet's names, as an iterable of pairs, in the symbol's order: what an optimizer that knows
        λ by name wants.
        """
        return [(decoded(name), parameter) for name, parameter in self.arg.named_parameters()]

    def _plan(self, graph, data):
        """Write down, in order, what computes each node, what it reads, and what nobody reads after it."""
        nodes = graph.nodes()
        slot = {node: position for position, node in enumerate(nodes)}
        last_reader = {source: node for node in nodes for source in node.sources}
        self._variables, self._steps, self._slots = [], [], len(nodes)
        self.operators = torch.nn.ModuleList()
        for node in nodes:
            if not node.is_variable:
                run = converted(node)
                if isinstance(run, torch.nn.Module):
                    self.operators.append(run)
                done = [slot[source] for source in dict.fromkeys(node.sources) if last_reader[source] is node]
                self._steps.append(
                    Step(run, [(slot[source], index) for source, index in node.inputs], slot[node], done)
                )
            elif node.name == data:
                self._input = slot[node]
            else:
                holder = self.aux if encoded(node.name) in dict(self.aux.named_buffers()) else self.arg
                self._variables.append((slot[node], holder, encoded(node.name)))
        self._outputs = [(slot[node], index) for node, index in graph.heads]


class Step(NamedTuple):
    """One node: ``run`` computes it from the outputs in ``reads``, (slot, index) each; the slots in ``done`` are free
    afterwards.
    """

    run: Function
    reads: List[Tuple[int, int]]
    slot: int
    done: List[int]


class SoftmaxLoss(torch.nn.Module):
    """Cross-entropy as a SoftmaxOutput node means it: its gradient is (softmax - target) grad_scale / norm."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        for name in ('multi_output', 'preserve_shape', 'out_grad'):
            require(not flag(node, name), node, f'{name} is not converted')
        self.scale = single(node, 'grad_scale', 1.0)
        self.ignored = int(number(node, 'ignore_label', -1)) if flag(node, 'use_ignore') else None
        self.smooth = single(node, 'smooth_alpha', 0.0)
        self.normalization = text(node, 'normalization', 'null')

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits, labels = logits.flatten(1), labels.long()
        classes = logits.shape[1]
        # MXNet shares smooth_alpha among the other classes, PyTorch label_smoothing among all.
        smoothing = self.smooth * classes / (classes - 1) if self.smooth else 0.0
        ignored = NO_LABEL if self.ignored is None else self.ignored
        total = F.cross_entropy(logits, labels, reduction='sum', label_smoothing=smoothing, ignore_index=ignored)
        return total * self.scale / self._norm(labels)

    def _norm(self, labels):
        if self.normalization == 'batch' or self.normalization == 'valid' and self.ignored is None:
            return labels.numel()
        if self.normalization == 'valid':
            return (labels != self.ignored).sum().clamp(min=1)
        return 1


def encoded(name: str) -> str:
    """MXNet's name as PyTorch accepts it, without dots."""
    return name.replace('%', '%25').replace('.', '%2E')


def decoded(name: str) -> str:
    """The inverse of ``encoded``."""
    return name.replace('%2E', '.').replace('%25', '%')


class _Tensors(torch.nn.Module):
    """A bare holder of tensors by name."""


def _value(values, slot, index):
    """An output of the node in ``slot``; nodes of several outputs keep a tuple there."""
    value = values[slot]
    return value[index] if isinstance(value, tuple) else value


def _zeros(symbol: mx.sym.Symbol, image_shape: Optional[Shape]) -> Tuple[Params, Params]:
    """Parameters of the right shapes, all zero."""
    graph = logits(Graph.from_symbol(symbol))
    shapes = graph.shapes({DATA: (1, *image_shape_of(symbol, image_shape))})
    states = set(symbol.list_auxiliary_states())
    zeros = {node.name: mx.nd.zeros(shapes[Output(node)]) for node in graph.variables() if node.name != DATA}
    return {name: zeros[name] for name in zeros if name not in states}, {
        name: zeros[name] for name in zeros if name in states
    }


def _tensor(params, name):
    if name not in params:
        raise CheckpointError(f'the auxiliary state {name!r} of the network is missing')
    # A copy: from_numpy shares memory. In PyTorch's own memory, whose alignment is always the same: MKL's last digits
    # depend on it, and a resumed run must not.
    return torch.from_numpy(params[name].asnumpy()).clone(memory_format=torch.contiguous_format)


def _arrays(named):
    arrays = {}
    for name, tensor in named:
        tensor = tensor.detach().cpu()
        values = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).contiguous().numpy()
        arrays[decoded(name)] = mx.nd.array(values, dtype=values.dtype)
    return arrays
