"""What stands at the end of a network: the loss that it is trained on, or the prediction that is used."""

from __future__ import annotations

from runtime import mx
from runtime.errors import GraphError

from .attributes import flag
from .graph import LABEL_OPERATORS, Graph, Node, Output

# What each loss puts out, without its label.
PREDICTIONS = {'SoftmaxOutput': 'softmax', 'LogisticRegressionOutput': 'sigmoid'}


def drop_losses(graph: Graph) -> None:
    """Let every loss that reads a label become the prediction that it puts out, under the same name and of the same
    shape.
    """
    replacements = {}
    for node in graph.nodes():
        if node.op not in LABEL_OPERATORS:
            continue
        attrs = {'axis': '1' if flag(node, 'multi_output') else '-1'} if node.op == 'SoftmaxOutput' else {}
        replacements[Output(node)] = Output(Node(PREDICTIONS.get(node.op, '_copy'), node.name, attrs, node.inputs[:1]))
    graph.replace(replacements)


def logits(graph: Graph) -> Graph:
    """The graph up to the inputs of its final softmax or sigmoid: the logits."""
    heads = []
    for head in graph.heads:
        while head.node.op in ('softmax', 'log_softmax', 'sigmoid', '_copy', *LABEL_OPERATORS):
            head = head.node.inputs[0]
        heads.append(head)
    return Graph(heads, graph.attrs)


def with_loss(symbol: mx.sym.Symbol) -> mx.sym.Symbol:
    """``symbol`` ending in SoftmaxOutput, whose label is ``softmax_label``; as it is where it ends in a loss already.

    A softmax at its end is taken into the loss. Raises GraphError for a network of several outputs, or one whose output
    is a sigmoid.
    """
    graph = Graph.from_symbol(symbol)
    if all(head.node.op in LABEL_OPERATORS for head in graph.heads):
        return symbol
    if len(graph.heads) != 1 or graph.heads[0].node.op == 'sigmoid':
        ends = ', '.join(head.node.op for head in graph.heads)
        raise GraphError(
            f'the network ends in {ends}, behind which a softmax loss is wrong; give the network its own loss and label'
        )
    scores = logits(graph).heads[0]
    graph.heads = [scores]
    name = graph.fresh_name('softmax')
    label = Output(Node('null', graph.fresh_name('softmax_label')))
    graph.heads = [Output(Node('SoftmaxOutput', name, {}, [scores, label]))]
    return graph.to_symbol()


def smoothed(symbol: mx.sym.Symbol, amount: float, num_classes: int) -> mx.sym.Symbol:
    """``symbol`` trained with label smoothing: a target of 1 - amount + amount / K for the label, and amount / K for
    each other of K classes.

    That is Szegedy et al. 2016, section 7. MXNet's ``smooth_alpha`` is shared among the K - 1 other classes only, so it
    is amount (K - 1) / K. Raises GraphError for a network that does not end in one SoftmaxOutput, whose loss is then
    its own.
    """
    graph = Graph.from_symbol(symbol)
    if [head.node.op for head in graph.heads] != ['SoftmaxOutput']:
        raise GraphError(
            '--label-smoothing needs a network that ends in SoftmaxOutput; this one ends in '
            f'{", ".join(head.node.op for head in graph.heads)}. '
            'Smooth the labels inside its own loss'
        )
    graph.heads[0].node.attrs['smooth_alpha'] = repr(amount * (num_classes - 1) / num_classes)
    return graph.to_symbol()
