"""From a network that is trained to one that is used: what stands at its end."""
from .graph import LABEL_OPERATORS, Graph, Node, Output

# What each loss puts out, without its label.
PREDICTIONS = {'SoftmaxOutput': 'softmax', 'LogisticRegressionOutput': 'sigmoid'}


def drop_losses(graph):
    """Let every loss that reads a label become the prediction that it puts out, under the same name and of the same shape."""
    replacements = {}
    for node in graph.nodes():
        if node.op not in LABEL_OPERATORS:
            continue
        attrs = {'axis': '1' if node.value('multi_output', False) else '-1'} if node.op == 'SoftmaxOutput' else {}
        replacements[Output(node)] = Output(Node(PREDICTIONS.get(node.op, '_copy'), node.name, attrs, node.inputs[:1]))
    graph.replace(replacements)


def logits(graph):
    """The graph up to what goes into its final softmax or sigmoid: the numbers in which differences are not squashed."""
    heads = []
    for head in graph.heads:
        while head.node.op in ('softmax', 'log_softmax', 'sigmoid', '_copy', *LABEL_OPERATORS):
            head = head.node.inputs[0]
        heads.append(head)
    return Graph(heads, graph.attrs)
