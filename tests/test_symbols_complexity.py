"""Parameters and MACs against published counts, GluonCV, and sums done by hand."""

import functools
import json

import pytest

from graphs.complexity import complexity
from interop.gluon_zoo import zoo_network
from runtime import mx
from runtime.errors import GraphError
from symbols import get_symbol
from tools.summary import main


def counted(*network, image=(3, 32, 32), **options):
    return complexity(get_symbol(*network, image, **options), {'data': (1, *image)})


@pytest.mark.parametrize(
    ('network', 'image', 'params', 'macs'),
    [
        (('resnet', 50, 1000), (3, 224, 224), '25.504', '4089.2'),
        (('resnet', 164, 10), (3, 32, 32), '1.679', '247.6'),
        (('resnet', 164, 100), (3, 32, 32), '1.702', '247.7'),
        (('resnext', 50, 1000), (3, 224, 224), '24.961', '4230.5'),
        (('vgg', 16, 1000), (3, 224, 224), '138.358', '15470.3'),
    ],
)
@pytest.mark.parametrize('placement', ['weight', 'output'])
def test_published_counts_to_every_digit(network, image, params, macs, placement):
    found = counted(*network, image=image, lambda_placement=placement)
    assert (f'{found.params_without_bn / 1e6:.3f}', f'{found.macs / 1e6:.1f}') == (params, macs)


def test_vgg_published_total_counts_the_bias_additions():
    found = counted('vgg', 16, 1000, image=(3, 224, 224))
    assert f'{(found.macs + found.bias_adds) / 1e9:.2f}' == '15.48'


@pytest.mark.parametrize(
    ('name', 'params'),
    [
        ('resnext50_32x4d', 25_028_904),
        ('vgg16_bn', 138_365_992),
        ('cifar_resnet20_v1', 272_474),
        ('cifar_resnet20_v2', 272_282),
        ('densenet121', 7_978_856),
    ],
)
def test_gluoncv_networks(name, params):
    side = 32 if 'cifar' in name else 224
    network = zoo_network(name)
    found = complexity(network(mx.sym.var('data')), {'data': (1, 3, side, side)})
    # The beta of GluonCV's BN on the data is not learned either, but no symbol says so.
    data_bn = 3 if name.endswith('_v2') else 0
    assert found.params == params + data_bn


def test_lambdas_are_no_parameters_and_cost_nothing():
    plain, scaled = (counted('resnext', 20, 10, scale=scale) for scale in ('none', None))
    assert (plain.lambdas, scaled.lambdas) == (0, 6 + 6 * 32)
    assert plain.totals() == {**scaled.totals(), 'lambdas': 0}


def test_every_kind_of_layer_by_hand():
    x = mx.sym.Variable('data')  # 4 × 10 × 10
    x = mx.sym.Convolution(x, kernel=(3, 3), pad=(1, 1), num_filter=8, num_group=2, name='grouped')  # 8 × 10 × 10
    x = mx.sym.Deconvolution(x, kernel=(2, 2), stride=(2, 2), num_filter=6, no_bias=True, name='up')  # 6 × 20 × 20
    x = mx.sym.BatchNorm(x, name='bn')
    x = mx.sym.FullyConnected(x, num_hidden=5, name='fc')
    found = complexity(mx.sym.SoftmaxOutput(x, name='softmax'), {'data': (7, 4, 10, 10)})
    grouped, up, fc = 8 * 2 * 9, 8 * 6 * 4, 6 * 20 * 20 * 5
    assert found.params == grouped + 8 + up + 6 + fc + 5
    assert found.params_without_bn == found.params - 6
    assert found.macs == grouped * 100 + up * 100 + fc
    assert found.bias_adds == 8 * 100 + 5


@pytest.mark.parametrize(
    'operator', ['BatchNorm', 'BatchNorm_v1', 'contrib.BatchNormWithReLU', 'contrib.SyncBatchNorm']
)
@pytest.mark.parametrize(('fixed', 'learned'), [(False, 12), (True, 6), (None, 6)])
def test_of_a_batch_normalisation_only_what_is_learned_counts(operator, fixed, learned):
    make = functools.reduce(getattr, operator.split('.'), mx.sym)
    options = {} if fixed is None else {'fix_gamma': fixed}
    options.update({'key': 'bn', 'ndev': 1} if 'Sync' in operator else {})
    found = complexity(make(mx.sym.Variable('data'), name='bn', **options), {'data': (2, 6, 5, 5)})
    assert (found.params, found.params_without_bn) == (learned, 0)


@pytest.mark.parametrize('bias', [False, True])
@pytest.mark.parametrize(
    'operator',
    ['Convolution', 'Convolution_v1', 'contrib.DeformableConvolution', 'contrib.ModulatedDeformableConvolution'],
)
def test_every_convolution_multiplies(operator, bias):
    make = functools.reduce(getattr, operator.split('.'), mx.sym)
    shapes = {'data': (2, 4, 10, 10)}
    inputs = {}
    if 'Deformable' in operator:
        shapes['offset'], inputs['offset'] = (2, 18, 10, 10), mx.sym.Variable('offset')
    if 'Modulated' in operator:
        shapes['mask'], inputs['mask'] = (2, 9, 10, 10), mx.sym.Variable('mask')
    layer = make(mx.sym.Variable('data'), kernel=(3, 3), pad=(1, 1), num_filter=8, no_bias=not bias, **inputs)
    found = complexity(layer, shapes)
    weight = 8 * 4 * 9
    assert (found.params, found.macs, found.bias_adds) == (weight + 8 * bias, weight * 100, 800 * bias)


def test_a_gamma_that_is_fixed_in_one_place_and_learned_in_another_counts():
    gamma, x = mx.sym.Variable('gamma'), mx.sym.Variable('data')
    for name, fixed in (('first', True), ('second', False)):
        x = mx.sym.BatchNorm(x, gamma=gamma, fix_gamma=fixed, name=name)
    assert complexity(x, {'data': (2, 6, 5, 5)}).params == 6 + 6 + 6


def test_a_shared_weight_counts_once_and_multiplies_twice():
    weight = mx.sym.Variable('shared_weight')
    x = mx.sym.Variable('data')
    for number in (1, 2):
        x = mx.sym.FullyConnected(x, weight=weight, num_hidden=6, no_bias=True, name=f'fc{number}')
    found = complexity(x, {'data': (2, 6)})
    assert (found.params, found.macs) == (36, 72)


def test_the_batch_does_not_matter():
    symbol = get_symbol('vgg', 16, 10, (3, 32, 32))
    assert complexity(symbol, {'data': (1, 3, 32, 32)}) == complexity(symbol, {'data': (8, 3, 32, 32)})


def test_unknown_shapes_are_a_named_error():
    with pytest.raises(GraphError, match='data'):
        complexity(get_symbol('resnet', 20, 10, (3, 32, 32)), {'other': (1, 3, 32, 32)})


def test_summary_prints_one_object(capsys):
    assert main(['--network', 'resnet', '--num-layers', '50', '--json']) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found['params_without_bn'], found['macs'], found['lambdas']) == (25_503_912, 4_089_184_256, 16)


def test_summary_table_adds_up(capsys):
    main(['--network', 'resnet', '--num-layers', '20'])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    layers = [line for line in lines if len(line) == 5 and line[1] in ('Convolution', 'BatchNorm', 'FullyConnected')]
    assert sum(int(layer[4].replace(',', '')) for layer in layers) == counted('resnet', 20, 10).macs
    assert layers[0] == ['conv0', 'Convolution', '16×32×32', '432', '442,368']
