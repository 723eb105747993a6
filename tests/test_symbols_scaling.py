"""Where λ stands in the graph, when it is not there at all, and what a wrong request gets."""

import json

import pytest

from graphs.graph import Graph
from runtime.errors import UnknownNetworkError
from symbols import NETWORKS, get_symbol
from train.arguments import training_parser

CIFAR = (3, 32, 32)
SMALLEST = {'resnet': 20, 'resnet-v1': 20, 'resnext': 20, 'vgg': 16}
FAMILIES = [('resnet', 20), ('resnet', 18), ('resnet-v1', 20), ('resnext', 20), ('vgg', 16)]


def symbol_of(network, depth, scale=None, placement='weight'):
    return get_symbol(network, depth, 10, CIFAR, scale=scale, lambda_placement=placement)


def lambdas(symbol):
    return [name for name in symbol.list_arguments() if 'lambda' in name]


def all_kinds(network):
    return ','.join(NETWORKS[network].SCALES)


@pytest.mark.parametrize(('network', 'depth'), FAMILIES)
@pytest.mark.parametrize('off', ['none', ''])
def test_off_means_that_no_lambda_is_in_the_graph(network, depth, off):
    placements = [symbol_of(network, depth, off, placement).tojson() for placement in ('weight', 'output')]
    assert 'lambda' not in placements[0]
    assert placements[0] == placements[1]


@pytest.mark.parametrize(('network', 'depth'), FAMILIES)
@pytest.mark.parametrize('placement', ['weight', 'output'])
def test_switching_lambda_on_adds_lambdas_and_nothing_else(network, depth, placement):
    plain, scaled = symbol_of(network, depth, 'none'), symbol_of(network, depth, all_kinds(network), placement)
    assert set(scaled.list_arguments()) - set(lambdas(scaled)) == set(plain.list_arguments())
    assert set(scaled.list_auxiliary_states()) == set(plain.list_auxiliary_states())
    assert lambdas(scaled)


@pytest.mark.parametrize(
    ('network', 'choice'), [('resnet', 'block'), ('resnet-v1', 'block'), ('resnext', 'block,group'), ('vgg', 'neuron')]
)
def test_the_papers_choice_is_the_default(network, choice):
    depth = SMALLEST[network]
    assert symbol_of(network, depth).tojson() == symbol_of(network, depth, choice).tojson()


@pytest.mark.parametrize(
    ('scale', 'expected'),
    [
        ('block', ['lambda_block']),
        ('group', ['lambda_group']),
        ('group,block', ['lambda_block', 'lambda_group']),
        (' block , group ', ['lambda_block', 'lambda_group']),
    ],
)
def test_kinds_can_be_chosen_one_by_one(scale, expected):
    assert sorted(lambdas(symbol_of('resnext', 20, scale))) == expected


def test_channel_is_another_name_for_neuron():
    """Files and runs keep the paper's word, so that those of before can be gone on with."""
    assert symbol_of('resnet', 20, ' channel ').tojson() == symbol_of('resnet', 20, 'neuron').tojson()
    assert training_parser('').parse_args(['--scale', 'block,channel']).scale == 'block,neuron'


@pytest.mark.parametrize(
    ('network', 'depth', 'inner'),
    [
        ('resnet', 20, ('conv1', 'conv2')),
        ('resnet', 18, ('conv1',)),
        ('resnet-v1', 20, ('conv1',)),
        ('resnext', 20, ('conv1', 'conv2')),
    ],
)
def test_neurons_are_the_inner_convolutions_of_a_unit(network, depth, inner):
    symbol = symbol_of(network, depth, 'neuron')
    units = {
        name.rsplit('_', 2)[0]
        for name in symbol.list_arguments()
        if name.startswith('stage') and name.endswith('_conv1_weight')
    }
    assert set(lambdas(symbol)) == {f'lambda_{unit}_{conv}' for unit in units for conv in inner}


def test_neurons_of_vgg_are_its_thirteen_convolutions():
    assert lambdas(symbol_of('vgg', 16)) == [
        f'lambda_conv{stage}_{index}'
        for stage, count in enumerate((2, 2, 3, 3, 3), start=1)
        for index in range(1, count + 1)
    ]


@pytest.mark.parametrize(('network', 'depth'), FAMILIES)
@pytest.mark.parametrize('placement', ['weight', 'output'])
def test_neuron_lambda_stands_behind_bn_and_before_relu(network, depth, placement):
    graph = Graph.from_symbol(symbol_of(network, depth, 'neuron', placement))
    readers = graph.readers()

    def next_layers(node):
        """The operators that first see a product with λ, past reshapes and multiplications."""
        found = []
        for reader, _ in readers[node]:
            found += (
                next_layers(reader)
                if reader.op in ('Reshape', 'reshape', 'elemwise_mul', 'broadcast_mul')
                else [reader]
            )
        return found

    for vector in (node for node in graph.variables() if node.name.startswith('lambda')):
        if placement == 'weight':
            norm, again = next_layers(vector)
            assert norm is again
            assert norm.op == 'BatchNorm'
            (relu,) = [reader for reader, _ in readers[norm]]
        else:
            (relu,) = next_layers(vector)
            product = relu.sources[0]
            norm = product.sources[0]
            assert (product.op, norm.op) == ('broadcast_mul', 'BatchNorm')
        assert (relu.op, relu.attrs['act_type']) == ('Activation', 'relu')
        convolution = norm.sources[0]
        assert (convolution.op, f'lambda_{convolution.name}') == ('Convolution', vector.name)


@pytest.mark.parametrize(
    ('network', 'depth'), [(network, depth) for network, depth in FAMILIES if 'block' in NETWORKS[network].SCALES]
)
@pytest.mark.parametrize('placement', ['weight', 'output'])
def test_projections_and_the_residual_stream_are_never_scaled(network, depth, placement):
    graph = Graph.from_symbol(symbol_of(network, depth, all_kinds(network), placement))
    shortcuts = [node for node in graph.nodes() if node.name.endswith(('_sc', '_sc_bn')) and not node.is_variable]
    assert shortcuts
    for node in shortcuts:
        assert all(source.is_variable for source in node.sources[1:]) or node.op == 'Concat'
        assert {reader.op for reader, _ in graph.readers()[node]} <= {'elemwise_add', 'BatchNorm', '_mul_scalar'}
    sums = [node for node in graph.nodes() if node.op == 'elemwise_add']
    scaled_sides = [[depends_directly_on_lambda(side) for side in node.sources] for node in sums]
    assert sums
    assert all(sides == [True, False] for sides in scaled_sides)


def depends_directly_on_lambda(node):
    """Whether λ meets this output of a branch: in the product it is, or in the parameters of the layer it is."""
    pending = node.sources[1:] if node.op in ('Convolution', 'BatchNorm', 'broadcast_mul') else []
    while pending:
        source = pending.pop()
        if source.is_variable and 'lambda' in source.name:
            return True
        pending += source.sources
    return False


@pytest.mark.parametrize(('network', 'depth'), FAMILIES)
@pytest.mark.parametrize('placement', ['weight', 'output'])
def test_lambda_starts_at_one_and_is_never_decayed(network, depth, placement):
    attributes = symbol_of(network, depth, all_kinds(network), placement).attr_dict()
    vectors = [settings for name, settings in attributes.items() if '__kind__' in settings]
    assert vectors
    for settings in vectors:
        assert json.loads(settings['__init__'])[0] == 'one'
        assert float(settings['__wd_mult__']) == 0


@pytest.mark.parametrize('placement', ['weight', 'output'])
@pytest.mark.parametrize('network', SMALLEST)
def test_the_same_request_gives_the_same_text_whatever_was_built_before(network, placement):
    depth = SMALLEST[network]
    first = symbol_of(network, depth, all_kinds(network), placement).tojson()
    symbol_of('resnext', 50)
    symbol_of('resnet', 18, 'block,neuron', 'output')
    assert symbol_of(network, depth, all_kinds(network), placement).tojson() == first


@pytest.mark.parametrize(
    ('request_', 'complaint'),
    [
        (('alexnet', 8, 10, CIFAR), "unknown network 'alexnet'; known: resnet, resnet-v1, resnext, vgg"),
        (('resnet', 51, 10, CIFAR), 'resnet has no depth 51; known: 18, 20, 34, 50, 101, 152, 164'),
        (('resnet-v1', 50, 10, CIFAR), 'known: 20, 32, 44, 56, 110'),
        (('resnext', 29, 10, CIFAR), 'known: 18, 20, 34, 50, 101, 152, 164'),
        (('vgg', 19, 10, CIFAR), 'known: 16'),
        (('vgg', 16, 10, CIFAR, 'block'), '--scale block: vgg-16 has no such structure; it can scale channel or none'),
        (('resnet', 20, 10, CIFAR, 'block,group'), '--scale group'),
        (('resnet', 20, 10, CIFAR, 'layers'), '--scale layers'),
        (('resnet', 20, 10, CIFAR, None, 'middle'), '--lambda-placement middle: it is one of weight, output'),
        (('resnet', 20, 10, '3,32'), "give 'channels,height,width'"),
        (('resnet', 20, 10, '3,32,x'), "give 'channels,height,width'"),
        (('resnet', 20, 10, '3,32,0'), "give 'channels,height,width'"),
        (('resnet', 20, 10, (3, 32, 32, 1)), "give 'channels,height,width'"),
    ],
)
def test_a_wrong_request_is_told_what_is_right(request_, complaint):
    with pytest.raises(UnknownNetworkError) as error:
        get_symbol(*request_)
    assert complaint in str(error.value)


def test_the_image_shape_is_text_or_a_tuple_and_stays_with_the_symbol():
    symbol = get_symbol('resnet', 20, 10, '1,28,28')
    assert symbol.tojson() == get_symbol('resnet', 20, 10, (1, 28, 28)).tojson()
    assert symbol.attr_dict()['data']['__image_shape__'] == '1,28,28'
    assert symbol.infer_shape(data=(5, 1, 28, 28))[1] == [(5, 10)]
