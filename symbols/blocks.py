"""Networks with λ as Gluon blocks, to be trained in a loop of your own.

net = scaled_block(my_block, (3, 32, 32))       # or as_block('resnet', 20, 10, (3, 32, 32))
net.initialize(mx.init.Xavier())                # where my_block is not initialised yet
trainer = gluon.Trainer(net.collect_params(), 'apg', {'learning_rate': 0.1, 'gamma': 0.01, 'wd': 1e-4})
...
print(net.report())                             # structures alive, and what they cost
net.strip('runs/smaller')                       # without what is dead, for stock MXNet
"""

from __future__ import annotations

from typing import Iterable, Optional, Sequence, Tuple, Union

import numpy as np

from graphs.alive import AliveCounter
from graphs.complexity import complexity
from graphs.graph import Graph, Output
from graphs.insertion import add_lambda
from graphs.lambdas import is_lambda
from graphs.losses import logits
from graphs.predictor import Network
from graphs.stripped_files import ProvedStrip, strip_with_proof, write_stripped
from runtime import mx
from runtime.errors import GraphError

from . import get_symbol, parse_image_shape

# Initial values of parameters by the ending of their names; all others are drawn as ``initialize`` says.
INITIAL = {'gamma': 'ones', 'var': 'ones', 'beta': 'zeros', 'mean': 'zeros', 'bias': 'zeros'}


class ScaledBlock(mx.gluon.SymbolBlock):
    """A network with λ: a Gluon block from images (N, C, H, W) to what ``symbol`` puts out.

    ``shared`` is a ParameterDict whose parameters are used where their names are those of the symbol.
    """

    def __init__(
        self, symbol: mx.sym.Symbol, image_shape: Tuple[int, ...], shared: Optional[mx.gluon.ParameterDict] = None
    ) -> None:
        super().__init__(symbol, mx.sym.Variable('data', dtype=np.float32), shared)
        self.symbol, self.data_shapes = symbol, {'data': (1, *image_shape)}
        graph = Graph.from_symbol(symbol)
        shapes = graph.shapes(self.data_shapes)
        self.lambdas = []
        for node in graph.variables():
            if node.name not in self.data_shapes:
                parameter = self.params.get(node.name)
                parameter.shape = shapes[Output(node)]
                if is_lambda(node.name):
                    parameter.init, parameter.wd_mult = mx.init.One(), 0.0
                    self.lambdas.append(parameter)
                elif parameter.init is None:  # Gluon would draw these at random
                    parameter.init = INITIAL.get(node.name.rpartition('_')[2])
        self._full, self._alive = complexity(symbol, self.data_shapes), AliveCounter(symbol, self.data_shapes)

    def network(self) -> Network:
        """The symbol with the parameters of now, as dicts name → NDArray on the CPU."""
        mx.nd.waitall()  # moving statistics are written late
        arrays = {
            name: parameter.data(parameter.list_ctx()[0]).copyto(mx.cpu()) for name, parameter in self.params.items()
        }
        aux_params = {name: arrays.pop(name) for name in self.symbol.list_auxiliary_states()}
        return Network(self.symbol, arrays, aux_params)

    def report(self) -> str:
        """One line: how many structures are alive, and the MACs and parameters of what stripping would leave."""
        network = self.network()
        alive = self._alive({**network.arg_params, **network.aux_params})
        values = np.concatenate([network.arg_params[one.name].asnumpy().ravel() for one in self.lambdas])
        full = self._full
        return (
            f'{np.count_nonzero(values)} of {values.size} structures alive; '
            f'{100 * alive.macs / full.macs:.1f} % of the MACs ({alive.macs:,} of {full.macs:,}), '
            f'{100 * alive.params / full.params:.1f} % of the parameters'
        )

    def strip(self, prefix: str) -> ProvedStrip:
        """Remove what is dead, prove that the function is the same, and write PREFIX-symbol.json, PREFIX-0000.params
        and PREFIX-structure.json for stock MXNet.

        Raises ProofError where the function would change, NothingLeftError where nothing would be left.
        """
        proved = strip_with_proof(self.network(), self.data_shapes)
        write_stripped(prefix, proved)
        return proved


def scaled_block(
    block: mx.gluon.HybridBlock,
    image_shape: Tuple[int, int, int],
    kinds: Iterable[str] = ('channel',),
    exclude: Iterable[str] = (),
) -> ScaledBlock:
    """``block`` with λ = 1 multiplied in, see ``graphs.insertion.add_lambda``. The two share their parameters.

    ``block`` maps images of ``image_shape`` (C, H, W) to one output. If it is initialised, so is the result. Raises
    GraphError where it has several outputs, has λ already, or has nothing that λ could remove.
    """
    symbol = block(mx.sym.Variable('data'))
    if not isinstance(symbol, mx.sym.Symbol) or len(symbol) != 1:
        raise GraphError(f'{block.name} has several outputs; λ can only be added to a block of one output')
    symbol, found = add_lambda(symbol, image_shape, kinds, exclude)
    if not found:
        raise GraphError(f'{block.name} has no structure of the kinds {", ".join(kinds)} that could be removed')
    shared = block.collect_params()
    made = ScaledBlock(symbol, image_shape, shared)
    contexts = _contexts(shared)
    if contexts:
        for parameter in made.lambdas:
            parameter.initialize(ctx=contexts)
        for parameter in made.params.values():  # all shapes are known now, so that nothing waits for the first images
            if parameter._deferred_init:
                parameter._finish_deferred_init()
    return made


def as_block(
    network: str, num_layers: int, num_classes: int, image_shape: Union[str, Sequence[int]], scale: Optional[str] = None
) -> ScaledBlock:
    """A network of ours as a block from images to the logits (N, num_classes); arguments as for ``get_symbol``."""
    symbol = logits(Graph.from_symbol(get_symbol(network, num_layers, num_classes, image_shape, scale))).to_symbol()
    return ScaledBlock(symbol, parse_image_shape(image_shape))


def _contexts(params):
    """The devices that the first parameter is initialised on; None where it is not."""
    for parameter in params.values():
        try:
            return parameter.list_ctx()
        except RuntimeError:
            return None
    return None
