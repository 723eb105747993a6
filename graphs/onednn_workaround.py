"""One place where MXNet 1.9.1 computes a wrong sum, and the way around it.

For inference on a CPU, MXNet hands a convolution and the ``elemwise_add`` behind it to oneDNN as one operator, which
adds into the memory of the other operand. If that operand is itself the output of a convolution that another operator
reads as well, the result is wrong by as much as the values themselves (or the network does not bind). Stripping makes
such sums: where the first unit of a stage is dead, the second adds its branch to the bare projection. ``broadcast_add``
of two equal shapes is the same function, and is left alone.
"""

from .graph import Graph

SUMS = ('elemwise_add', '_plus', '_add')
# What oneDNN merges with the convolution below it, or MXNet computes in place.
TRANSPARENT = ('BatchNorm', '_copy', 'identity', 'BlockGrad', 'Dropout', 'Cast', 'amp_cast')


def guard_sums(graph: Graph) -> None:
    """Let every sum of ``graph`` that MXNet would compute wrongly be a ``broadcast_add``."""
    readers = graph.readers()
    for node in graph.nodes():
        if node.op in SUMS and any(_is_shared_convolution(source, readers) for source in node.sources):
            node.op = 'broadcast_add'


def _is_shared_convolution(node, readers):
    shared = len(readers[node]) > 1
    while node.op in TRANSPARENT:
        node = node.sources[0]
        shared = shared or len(readers[node]) > 1
    return shared and node.op == 'Convolution'
