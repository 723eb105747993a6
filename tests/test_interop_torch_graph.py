"""Networks in PyTorch against MXNet: inference, training, every gradient, running statistics; then single operators,
the loss, and names.
"""

import numpy as np
import pytest
from helpers.mxnet_twin import (
    CIFAR,
    FAMILIES,
    OPERATOR_CASES,
    PLACEMENTS,
    Pass,
    half_dead,
    random_images,
    random_params,
    small_network,
    smooth,
)

from graphs.graph import Graph
from graphs.losses import logits
from graphs.strip import strip
from interop.gluon_zoo import zoo_network
from runtime import mx
from runtime.errors import CheckpointError, GraphError
from symbols import get_symbol

torch = pytest.importorskip('torch')


from interop.torch_graph import TorchGraph  # noqa: E402  (needs PyTorch)


def assert_close(found, expected, tolerance, name=''):
    """Equal to ``tolerance`` of the largest value (of 1, if that is more)."""
    found = found.detach().numpy() if isinstance(found, torch.Tensor) else found
    assert found.shape == expected.shape, name
    np.testing.assert_allclose(
        found, expected, rtol=0, atol=tolerance * max(1, np.abs(expected).max(initial=0)), err_msg=name
    )


def compare(symbol, arg_params, aux_params, images, labels, tolerance):
    """Inference, training, gradients and statistics of a network that ends in SoftmaxOutput."""
    expected = Pass(
        symbol,
        {**{name: array.asnumpy() for name, array in arg_params.items()}, 'data': images, 'softmax_label': labels},
        aux_params,
    )
    net = TorchGraph(symbol, arg_params, aux_params)
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    x.requires_grad_()
    assert_close(net.eval()(x).softmax(1), expected.inferred, tolerance)
    logits = net.train()(x)
    net.loss(logits, y).backward()
    assert_close(logits.softmax(1), expected.trained, tolerance)
    assert_close(x.grad, expected.gradients['data'], tolerance)
    for name, parameter in net.mxnet_parameters():
        assert_close(parameter.grad, expected.gradients[name], tolerance, name)
    statistics = net.to_mxnet()[1]
    assert statistics.keys() == expected.statistics.keys()
    for name, values in expected.statistics.items():
        assert_close(statistics[name].asnumpy(), values, tolerance, name)


@pytest.mark.parametrize('placement', PLACEMENTS)
@pytest.mark.parametrize('family', FAMILIES)
def test_a_network_trains_as_in_mxnet(family, placement):
    symbol, shape = small_network(family, placement)
    compare(symbol, *random_params(symbol, shape), *random_images(shape), tolerance=1e-10)


@pytest.mark.parametrize('family', FAMILIES)
def test_in_single_precision_too(family):
    symbol, shape = small_network(family)
    compare(smooth(symbol), *random_params(symbol, shape, 'float32'), *random_images(shape, 'float32'), tolerance=1e-4)


@pytest.mark.parametrize('family', FAMILIES)
def test_the_logits_are_mxnets(family):
    symbol, shape = small_network(family)
    arg_params, aux_params = random_params(symbol, shape)
    images, _ = random_images(shape)
    graph = logits(Graph.from_symbol(symbol))
    expected = Pass(
        graph.to_symbol(),
        {**{name: array.asnumpy() for name, array in arg_params.items()}, 'data': images},
        aux_params,
        train=False,
    )
    assert_close(TorchGraph(symbol, arg_params, aux_params).eval()(torch.from_numpy(images)), expected.inferred, 1e-12)


@pytest.mark.parametrize('family', FAMILIES)
def test_a_stripped_network_trains_as_in_mxnet(family):
    symbol, shape = small_network(family)
    arg_params, aux_params = half_dead(*random_params(symbol, shape))
    stripped = strip(symbol, arg_params, aux_params, {'data': (1, *shape)}, for_training=True)
    assert sum(array.size for array in stripped.arg_params.values()) < sum(array.size for array in arg_params.values())
    compare(stripped.symbol, stripped.arg_params, stripped.aux_params, *random_images(shape), tolerance=1e-10)


@pytest.mark.parametrize('fold_bn', [False, True])
@pytest.mark.parametrize('family', FAMILIES)
def test_a_stripped_network_for_inference(family, fold_bn):
    symbol, shape = small_network(family)
    arg_params, aux_params = half_dead(*random_params(symbol, shape, 'float32'))
    stripped = strip(symbol, arg_params, aux_params, {'data': (1, *shape)}, fold_bn=fold_bn)
    images = torch.from_numpy(random_images(shape, 'float32')[0])
    full = TorchGraph(symbol, arg_params, aux_params).eval()(images)
    net = TorchGraph(stripped.symbol, stripped.arg_params, stripped.aux_params).eval()
    assert_close(net(images), full.detach().numpy(), 1e-4)
    with pytest.raises(GraphError, match='for-training'):
        net.loss(full, torch.zeros(len(images)))


@pytest.mark.parametrize(
    ('name', 'side'), [('cifar_resnet20_v1', 32), ('mobilenetv2_0.25', 32), ('squeezenet1.1', 224)]
)
def test_networks_of_gluoncv(name, side):
    block = zoo_network(name)
    block.initialize(mx.init.Xavier())
    images = mx.nd.random.normal(shape=(2, 3, side, side))
    expected = block(images).asnumpy()
    symbol = block(mx.sym.var('data'))
    params = {key: parameter.data() for key, parameter in block.collect_params().items()}
    states = {key: params.pop(key) for key in symbol.list_auxiliary_states()}
    assert_close(TorchGraph(symbol, params, states).eval()(torch.from_numpy(images.asnumpy())), expected, 1e-4)


@pytest.mark.parametrize('name', OPERATOR_CASES)
def test_an_operator(name):
    symbol, shape = OPERATOR_CASES[name]
    # These MXNet always computes in single precision.
    tolerance = 1e-6 if name in ('leaky', 'prelu', 'elu') else 1e-12
    random = np.random.RandomState(0)
    shapes = dict(zip(symbol.list_arguments(), symbol.infer_shape(data=shape)[0]))
    states = {
        key: mx.nd.array(random.uniform(0.5, 1.5, size), dtype='float64')
        for key, size in zip(symbol.list_auxiliary_states(), symbol.infer_shape(data=shape)[2])
    }
    arguments = {key: random.standard_normal(size) for key, size in shapes.items()}
    out_grad = random.standard_normal(symbol.infer_shape(data=shape)[1][0])
    expected = Pass(symbol, arguments, states, out_grad=out_grad)
    params = {key: mx.nd.array(values, dtype='float64') for key, values in arguments.items() if key != 'data'}
    net = TorchGraph(symbol, params, states)
    x = torch.from_numpy(arguments['data']).requires_grad_()
    assert_close(net.eval()(x), expected.inferred, tolerance)
    output = net.train()(x)
    assert_close(output, expected.trained, tolerance)
    output.backward(torch.from_numpy(out_grad))
    assert_close(x.grad, expected.gradients['data'], tolerance)
    for key, parameter in net.mxnet_parameters():
        gradient = np.zeros(parameter.shape) if parameter.grad is None else parameter.grad
        assert_close(gradient, expected.gradients[key], tolerance, key)
    for key, values in expected.statistics.items():
        assert_close(net.to_mxnet()[1][key].asnumpy(), values, tolerance, key)


@pytest.mark.parametrize(
    'options',
    [
        {},
        {'grad_scale': 3},
        {'normalization': 'batch'},
        {'normalization': 'valid'},
        {'smooth_alpha': 0.1},
        {'use_ignore': True, 'ignore_label': 2},
        {'use_ignore': True, 'ignore_label': 2, 'normalization': 'valid', 'grad_scale': 0.5},
    ],
    ids=str,
)
def test_the_loss_has_the_gradient_of_softmax_output(options):
    symbol = mx.sym.SoftmaxOutput(mx.sym.Variable('data') * 1, name='softmax', **options)
    random = np.random.RandomState(0)
    scores, labels = random.standard_normal((6, 5)), np.array([0.0, 2, 4, 2, 1, 3])
    expected = Pass(symbol, {'data': scores, 'softmax_label': labels}, {}).gradients['data']
    net, x = TorchGraph(symbol, {}, {}), torch.from_numpy(scores).requires_grad_()
    net.loss(net(x), torch.from_numpy(labels)).backward()
    # MXNet divides and shares out in single precision.
    assert_close(x.grad, expected, 1e-7 if {'smooth_alpha', 'normalization'} & options.keys() else 1e-14)


@pytest.mark.parametrize('p', [0.5, 0.2])
def test_dropout_keeps_and_scales(p):
    net = TorchGraph(mx.sym.Dropout(mx.sym.Variable('data') * 1, p=p), {}, {})
    ones = torch.ones(1000, 100)
    assert torch.equal(net.eval()(ones), ones)
    torch.manual_seed(0)
    values, counts = net.train()(ones).unique(return_counts=True)
    assert values.tolist() == pytest.approx([0, 1 / (1 - p)])
    assert counts[0] / ones.numel() == pytest.approx(p, abs=0.01)


def test_parameters_come_back_without_loss():
    symbol, shape = small_network('resnext')
    for dtype in ('float16', 'float32', 'float64'):
        params = random_params(symbol, shape, dtype)
        for before, after in zip(params, TorchGraph(symbol, *params).to_mxnet()):
            assert before.keys() == after.keys()
            assert all(
                before[name].dtype == after[name].dtype and (before[name].asnumpy() == after[name].asnumpy()).all()
                for name in before
            )


def test_names_are_mxnets_whatever_they_hold():
    weight = mx.sym.Variable('odd.name_100%2E', shape=(3, 4))
    net = TorchGraph(mx.sym.dot(mx.sym.Variable('data'), weight), {'odd.name_100%2E': mx.nd.ones((3, 4))}, {})
    assert list(net.to_mxnet()[0]) == ['odd.name_100%2E']
    assert [name for name, _ in net.mxnet_parameters()] == ['odd.name_100%2E']


def test_a_network_is_rebuilt_from_symbol_and_state_dict():
    symbol, shape = small_network('resnet')
    net = TorchGraph(symbol, *random_params(symbol, shape, 'float32'))
    rebuilt = TorchGraph(symbol)
    assert {name.split('.')[0] for name in net.state_dict()} == {'arg', 'aux'}
    rebuilt.load_state_dict(net.state_dict())
    images = torch.from_numpy(random_images(shape, 'float32')[0])
    assert torch.equal(rebuilt.eval()(images), net.eval()(images))


def test_the_network_stays_apart_from_what_it_was_made_of():
    symbol, shape = small_network('vgg')
    arg_params, aux_params = random_params(symbol, shape, 'float32')
    before = arg_params['fc1_bias'].asnumpy()
    with torch.no_grad():
        TorchGraph(symbol, arg_params, aux_params).arg.fc1_bias.add_(1)
    assert (arg_params['fc1_bias'].asnumpy() == before).all()


@pytest.mark.parametrize(
    ('symbol', 'message'),
    [
        (mx.sym.LRN(mx.sym.Variable('data'), nsize=3, name='odd'), "LRN 'odd'.*does not know this operator"),
        (
            mx.sym.Pooling(mx.sym.Variable('data'), kernel=(2, 2), pool_type='lp', p_value=2, name='odd'),
            "Pooling 'odd'.*pool_type=lp",
        ),
        (
            mx.sym.Convolution(mx.sym.Variable('data'), kernel=(3,), num_filter=2, name='odd', no_bias=True),
            "Convolution 'odd'.*kernel",
        ),
        (mx.sym.Variable('data') + mx.sym.Variable('more'), 'exactly one input'),
    ],
)
def test_what_is_not_converted_is_named(symbol, message):
    with pytest.raises(GraphError, match=message):
        TorchGraph(symbol, {'odd_weight': mx.nd.zeros((2, 3, 3))}, {})


def test_several_outputs_are_a_tuple():
    data = mx.sym.Variable('data')
    symbol = mx.sym.Group([mx.sym.softmax(data * 2), mx.sym.relu(data)])
    twice, positive = TorchGraph(symbol, {}, {})(torch.tensor([[1.0, -3.0]]))
    assert (twice.tolist(), positive.tolist()) == ([[2, -6]], [[1, 0]])


def test_a_missing_state_is_named():
    symbol = get_symbol('resnet', 20, 10, CIFAR)
    arg_params, _ = random_params(symbol, CIFAR, 'float32')
    with pytest.raises(CheckpointError, match='bn1_moving_mean'):
        TorchGraph(symbol, arg_params, {})
