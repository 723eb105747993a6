"""A network in half precision: its products and feature maps in float16, everything that training adds up in float32.

Parameters stay what they are, float32 variables of the same names: the graph casts them where a product reads them. So
the optimizer moves what ``multi_precision`` would call the master copies, by the same rule and to the last bit as in a
float32 run; their gradients arrive in float32; files hold float32; and a run may go on in either precision.
(``multi_precision`` itself is for those who hold float16 parameters, with the bare optimizer.)

MXNet's own ``contrib.amp`` casts by lists of operators and would round λ and W before it multiplies them: here, what
only parameters enter is computed in float32 and rounded once.
"""

from __future__ import annotations

from typing import Collection, Dict, Set, Tuple

from runtime import mx
from runtime.errors import GraphError

from .attributes import text
from .graph import Graph, Node, Output, fed, labels

# What a tensor core computes: factors in float16, sums in float32, the result in float16.
PRODUCTS = ('Convolution', 'Deconvolution', 'FullyConnected', 'dot', 'batch_dot')
# Operators that neither add up many numbers nor leave the range of what they read, or do so in float32 inside. The rest
# computes in float32.
FOLLOWERS = (
    'Activation',
    'relu',
    'clip',
    'Dropout',
    'elemwise_add',
    '_Plus',
    '_plus',
    'broadcast_add',
    'add_n',
    'ElementWiseSum',
    'Concat',
    'SliceChannel',
    'slice_axis',
    'Flatten',
    'Reshape',
    'transpose',
    'SwapAxis',
    'expand_dims',
    'squeeze',
    'Pad',
    '_copy',
    'identity',
)

LOSS_SCALE = 'loss_scale'
FLOAT32 = '0'  # by MXNet's numbers of types


def half(symbol: mx.sym.Symbol, wide_products: bool = False, inputs: Collection[str] = ('data',)) -> mx.sym.Symbol:
    """``symbol`` with products and the feature maps between them in float16; λ, γ, β, statistics, the softmax and its
    loss in float32.

    ``wide_products`` leaves the sums of products to float32 kernels, between roundings of what goes in and comes out:
    what a tensor core does, and the one way on a CPU, for which MXNet has no such kernels. ``inputs`` are the variables
    that are no parameters, besides labels.

    The result has one more input, ``LOSS_SCALE`` (N,): the gradient of each image's loss is multiplied by it before it
    enters float16, and everything below with it. Raises GraphError where the network does not end in one
    ``SoftmaxOutput``, behind which there is nothing to scale.
    """
    graph = Graph.from_symbol(symbol)
    if [head.node.op for head in graph.heads] != ['SoftmaxOutput']:
        raise GraphError(
            'half precision scales the loss of a SoftmaxOutput; this network ends in '
            f'{", ".join(head.node.op for head in graph.heads)}'
        )
    casts, of_data, no_parameters = _Casts(graph), fed(graph, inputs), {*inputs, *labels(graph)}
    for variable in graph.variables():
        if variable.name not in no_parameters:
            variable.attrs['__dtype__'] = FLOAT32  # behind a cast it no longer follows from the data's
    for node in graph.nodes():
        node.inputs = [casts.settled(source) for source in node.inputs]
        if node.is_variable or node not in of_data:
            continue
        if node.op in PRODUCTS:
            casts.round(node, wide_products)
        elif not _follows(node):
            node.inputs = [casts.to(source, 'float32') for source in node.inputs]
        elif node.op == 'BatchNorm':  # its parameters are float32 whatever the map is
            casts.set_half(node, casts.is_half(node.inputs[0]))
        elif any(casts.is_half(source) for source in node.inputs):
            node.inputs = [casts.to(source, 'float16') for source in node.inputs]
            casts.set_half(node, True)
    loss = graph.heads[0].node
    loss.inputs[0] = _gradient_times(loss.inputs[0], LOSS_SCALE)
    return graph.to_symbol()


def _follows(node):
    """Whether ``node`` computes in the type of the map that it reads."""
    if node.op == 'Pooling':
        return text(node, 'pool_type', 'max') == 'max'
    if node.op == 'LeakyReLU':
        return len(node.inputs) == 1
    return node.op == 'BatchNorm' or node.op in FOLLOWERS


def _gradient_times(source, name):
    """``source`` (N, K), to the bit, with a gradient that is multiplied by the variable ``name`` (N,). (SoftmaxOutput's
    own ``out_grad`` does nothing.)
    """

    def node(op, *inputs, **attrs):
        counter.append(op)
        return Output(Node(op, f'{name}_{len(counter)}', attrs, inputs))

    counter = []
    factor = node('Reshape', Output(Node('null', name, {'__dtype__': FLOAT32})), shape='(-1, 1)')
    scaled = node('broadcast_mul', source, factor)
    nothing = node('elemwise_sub', scaled, node('BlockGrad', scaled))
    return node('elemwise_add', node('BlockGrad', source), nothing)


class _Casts:
    """The casts of a graph, one for each value and type, and which values are float16."""

    def __init__(self, graph: Graph) -> None:
        self._taken = {node.name for node in graph.nodes()}
        self._made: Dict[Tuple[Output, str], Output] = {}
        self._rounded: Dict[Output, Output] = {}
        self._half: Set[Node] = set()

    def is_half(self, source: Output) -> bool:
        return source.node in self._half and (source.node.op != 'BatchNorm' or source.index == 0)

    def set_half(self, node: Node, is_half: bool) -> None:
        if is_half:
            self._half.add(node)

    def settled(self, source: Output) -> Output:
        """``source``, or what stands in its place since it was rounded."""
        return self._rounded.get(source, source)

    def to(self, source: Output, dtype: str) -> Output:
        """``source`` in ``dtype``."""
        if self.is_half(source) == (dtype == 'float16'):
            return source
        if (source, dtype) not in self._made:
            self._made[source, dtype] = self._cast(source, dtype)
        return self._made[source, dtype]

    def round(self, node: Node, wide: bool) -> None:
        """Let ``node`` multiply float16 numbers and put out float16 ones; ``wide`` computes the product in float32."""
        node.inputs = [self.to(source, 'float16') for source in node.inputs]
        if wide:
            node.inputs = [self.to(source, 'float32') for source in node.inputs]
            self._rounded[Output(node)] = self._cast(Output(node), 'float16')
        else:
            self.set_half(node, True)

    def _cast(self, source, dtype):
        name, number = f'{source.node.name}{source.index or ""}_{dtype}', 0
        while name in self._taken:
            number += 1
            name = f'{source.node.name}{source.index or ""}_{dtype}_{number}'
        self._taken.add(name)
        cast = Node('Cast', name, {'dtype': dtype}, [source])
        self.set_half(cast, dtype == 'float16')
        return Output(cast)
