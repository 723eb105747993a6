"""Weights mapped by name compute what they computed where they come from: GluonCV's own blocks, PyTorch modules written
here, and published errors.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from formats.params_file import save_arrays
from graphs.predictor import Network, Predictor
from interop.convert import to_gluoncv_params, to_mxnet, to_torch_state
from interop.gluon_zoo import zoo_network
from runtime import mx
from runtime.errors import CheckpointError
from symbols import get_symbol
from train.data.cifar import CIFAR10
from train.data.cifar_cache import cache_folder
from train.data.datasets import eval_iterator, load_dataset
from train.evaluation import score

CHECKPOINTS = Path(__file__).resolve().parents[2] / 'shared' / 'data' / 'checkpoints'


def drawn(name, shape, generator):
    """A value for every kind of parameter that keeps activations in range and hides no mistake: no statistic is left at
    0 or 1.
    """
    if name.endswith(('running_mean', 'moving_mean', 'beta', 'bias')):
        return generator.normal(0, 0.2, shape)
    if name.endswith(('running_var', 'moving_var', 'gamma')):
        return generator.uniform(0.5, 1.5, shape)
    if 'lambda' in name:
        return generator.uniform(0, 2, shape) * (generator.random_sample(shape) > 0.2)
    return generator.normal(0, np.sqrt(1 / np.prod(shape[1:])), shape)


def random_zoo_network(name, side, **options):
    block = zoo_network(name, **options)
    block.initialize()
    block(mx.nd.zeros((1, 3, side, side)))
    generator = np.random.RandomState(0)
    for parameter in block.collect_params().values():
        parameter.set_data(mx.nd.array(drawn(parameter.name, parameter.shape, generator)))
    return block


def random_params(symbol, image_shape, seed=0):
    generator = np.random.RandomState(seed)
    arguments, _, states = symbol.infer_shape(data=(1, *image_shape))
    params = [
        {
            name: mx.nd.array(drawn(name, shape, generator))
            for name, shape in zip(names, shapes)
            if name not in ('data', 'softmax_label')
        }
        for names, shapes in ((symbol.list_arguments(), arguments), (symbol.list_auxiliary_states(), states))
    ]
    return tuple(params)


def images(side, count=2, seed=1):
    return np.random.RandomState(seed).standard_normal((count, 3, side, side)).astype(np.float32)


def assert_agree(found, expected):
    """To 1e-4, on the scale of the largest logit where that is above 1."""
    assert np.abs(expected).max() > 0.1
    assert np.abs(found - expected).max() < 1e-4 * max(1, np.abs(expected).max())


@pytest.mark.parametrize('name', ['resnet50_v2', 'resnext50_32x4d', 'vgg16_bn'])
def test_ours_computes_what_gluoncv_computes(name, tmp_path):
    side = 64
    block = random_zoo_network(name, side, classes=100)
    path = str(tmp_path / 'weights.params')
    block.save_parameters(path)
    symbol, arg_params, aux_params = to_mxnet(path)
    assert_agree(
        Predictor(Network(symbol, arg_params, aux_params))(images(side))[0], block(mx.nd.array(images(side))).asnumpy()
    )


@pytest.mark.parametrize(
    ('name', 'network', 'scale'),
    [
        ('resnet50_v2', 'resnet', 'block,neuron'),
        ('resnext50_32x4d', 'resnext', 'block,group'),
        ('vgg16_bn', 'vgg', 'neuron'),
    ],
)
def test_gluoncv_computes_what_ours_computes_lambda_included(name, network, scale, tmp_path):
    side, depth = 64, 16 if network == 'vgg' else 50
    symbol = get_symbol(network, depth, 100, (3, side, side), scale, 'output')
    arg_params, aux_params = random_params(symbol, (3, side, side))
    path = str(tmp_path / 'weights.params')
    save_arrays(path, to_gluoncv_params(arg_params, aux_params))
    block = zoo_network(name, classes=100)
    block.load_parameters(path)
    assert_agree(
        block(mx.nd.array(images(side))).asnumpy(), Predictor(Network(symbol, arg_params, aux_params))(images(side))[0]
    )


def test_the_files_of_gluons_export_and_of_its_old_save_are_read_alike(tmp_path):
    block = random_zoo_network('resnext50_32x4d', 64, classes=10)
    block.hybridize()
    block(mx.nd.array(images(64)))
    block.export(str(tmp_path / 'exported'))
    block.collect_params().save(str(tmp_path / 'old.params'))
    block.save_parameters(str(tmp_path / 'new.params'))
    new, *others = [to_mxnet(str(tmp_path / name)) for name in ('new.params', 'old.params', 'exported-0000.params')]
    for other in others:
        assert all(other[1][name].asnumpy().tobytes() == new[1][name].asnumpy().tobytes() for name in new[1])
        assert other[2].keys() == new[2].keys()


def test_gluoncvs_normalisation_of_the_data_stays_only_where_it_does_something(tmp_path):
    symbol = get_symbol('resnet', 50, 10, (3, 64, 64), scale='none')
    arg_params, aux_params = random_params(symbol, (3, 64, 64))
    params = to_gluoncv_params(arg_params, aux_params)
    path = str(tmp_path / 'weights.params')
    save_arrays(path, params)
    assert set(to_mxnet(path)[1]) == set(arg_params)
    params['features.0.running_mean'][:] = 0.1
    save_arrays(path, params)
    assert set(to_mxnet(path)[1]) - set(arg_params) == {'bn_data_gamma', 'bn_data_beta'}


def test_a_gluoncv_file_goes_there_and_back_to_the_bit(tmp_path):
    block = random_zoo_network('resnet50_v2', 64, classes=10)
    path = str(tmp_path / 'weights.params')
    block.save_parameters(path)
    _, arg_params, aux_params = to_mxnet(path)
    back = to_gluoncv_params(arg_params, aux_params)
    before = mx.nd.load(path)
    assert before.keys() == back.keys()
    assert all(before[name].asnumpy().tobytes() == back[name].asnumpy().tobytes() for name in before)


def torch_resnet_v1(torch, units):
    """akamaster's CIFAR ResNet, written anew: a slice of stride 2 and padded channels where a unit widens."""
    nn, functional = torch.nn, torch.nn.functional

    class Unit(nn.Module):
        def __init__(self, channels_in, channels):
            super().__init__()
            self.stride = 1 if channels_in == channels else 2
            self.conv1, self.bn1 = (
                nn.Conv2d(channels_in, channels, 3, self.stride, 1, bias=False),
                nn.BatchNorm2d(channels),
            )
            self.conv2, self.bn2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels)

        def forward(self, x):
            y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
            more = (y.shape[1] - x.shape[1]) // 2
            return torch.relu(y + functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, more, more)))

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.bn1, self.linear = (
                nn.Conv2d(3, 16, 3, 1, 1, bias=False),
                nn.BatchNorm2d(16),
                nn.Linear(64, 10),
            )
            for stage, (before, width) in enumerate(((16, 16), (16, 32), (32, 64)), start=1):
                setattr(
                    self,
                    f'layer{stage}',
                    nn.Sequential(*[Unit(before if unit == 0 else width, width) for unit in range(units)]),
                )

        def forward(self, x):
            x = self.layer3(self.layer2(self.layer1(torch.relu(self.bn1(self.conv1(x))))))
            return self.linear(x.mean((2, 3)))

    return Network().eval()


def torch_resnext(torch, units, widths, classes):
    """torchvision's ResNeXt 32×4d, written anew."""
    nn = torch.nn

    class Unit(nn.Module):
        def __init__(self, channels_in, channels, stride, project):
            super().__init__()
            inner = channels // 2
            self.conv1, self.bn1 = nn.Conv2d(channels_in, inner, 1, bias=False), nn.BatchNorm2d(inner)
            self.conv2, self.bn2 = nn.Conv2d(inner, inner, 3, stride, 1, groups=32, bias=False), nn.BatchNorm2d(inner)
            self.conv3, self.bn3 = nn.Conv2d(inner, channels, 1, bias=False), nn.BatchNorm2d(channels)
            self.downsample = (
                nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))
                if project
                else nn.Identity()
            )

        def forward(self, x):
            y = torch.relu(self.bn1(self.conv1(x)))
            return torch.relu(self.bn3(self.conv3(torch.relu(self.bn2(self.conv2(y))))) + self.downsample(x))

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.bn1, self.fc = (
                nn.Conv2d(3, 64, 7, 2, 3, bias=False),
                nn.BatchNorm2d(64),
                nn.Linear(widths[-1], classes),
            )
            self.stages, before = len(units), 64
            for stage, (count, width) in enumerate(zip(units, widths), start=1):
                blocks = [
                    Unit(before if unit == 0 else width, width, 2 if unit == 0 and stage > 1 else 1, unit == 0)
                    for unit in range(count)
                ]
                setattr(self, f'layer{stage}', nn.Sequential(*blocks))
                before = width

        def forward(self, x):
            x = nn.functional.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, 2, 1)
            for stage in range(1, self.stages + 1):
                x = getattr(self, f'layer{stage}')(x)
            return self.fc(x.mean((2, 3)))

    return Network().eval()


def torch_vgg(torch, classes, hidden):
    """torchvision's vgg16_bn, written anew, for images of 64×64."""
    nn, layers, channels = torch.nn, [], 3
    for count, width in zip((2, 2, 3, 3, 3), (64, 128, 256, 512, 512)):
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, 3, 1, 1), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Sequential(*layers)
            self.classifier = nn.Sequential(
                nn.Linear(2048, hidden),
                nn.ReLU(),
                nn.Dropout(),
                nn.Linear(hidden, hidden),
                nn.ReLU(),
                nn.Dropout(),
                nn.Linear(hidden, classes),
            )

        def forward(self, x):
            return self.classifier(self.features(x).flatten(1))

    return Network().eval()


@pytest.mark.parametrize(
    ('network', 'depth', 'side', 'scale', 'build'),
    [
        ('resnet-v1', 20, 32, 'block,neuron', lambda torch: torch_resnet_v1(torch, 3)),
        (
            'resnext',
            50,
            64,
            'block,group',
            lambda torch: torch_resnext(torch, (3, 4, 6, 3), (256, 512, 1024, 2048), 10),
        ),
        ('vgg', 16, 64, 'neuron', lambda torch: torch_vgg(torch, 10, 4096)),
    ],
)
def test_pytorch_computes_what_ours_computes_and_comes_back(network, depth, side, scale, build, tmp_path):
    torch = pytest.importorskip('torch')
    symbol = get_symbol(network, depth, 10, (3, side, side), scale)
    arg_params, aux_params = random_params(symbol, (3, side, side))
    expected = Predictor(Network(symbol, arg_params, aux_params))(images(side))[0]
    module = build(torch)
    state = to_torch_state(arg_params, aux_params)
    module.load_state_dict({name: torch.from_numpy(values) for name, values in state.items()}, strict=True)
    with torch.no_grad():
        assert_agree(module(torch.from_numpy(images(side))).numpy(), expected)
    path = str(tmp_path / 'weights.pth')
    torch.save(module.state_dict(), path)
    assert_agree(Predictor(Network(*to_mxnet(path)))(images(side))[0], expected)


def test_safetensors_hold_the_same(tmp_path):
    safetensors = pytest.importorskip('safetensors.numpy')
    symbol = get_symbol('resnet', 20, 10, (3, 32, 32), scale='none')
    arg_params, aux_params = random_params(symbol, (3, 32, 32))
    path = str(tmp_path / 'weights.safetensors')
    safetensors.save_file(to_torch_state(arg_params, aux_params), path)
    found, arguments, states = to_mxnet(path)
    assert found.tojson() == symbol.tojson()
    assert {name: array.asnumpy().tobytes() for name, array in {**arg_params, **aux_params}.items()} == {
        name: array.asnumpy().tobytes() for name, array in {**arguments, **states}.items()
    }


def test_what_a_style_does_not_name_is_refused():
    arg_params, aux_params = random_params(get_symbol('resnet', 20, 10, (3, 32, 32)), (3, 32, 32))
    with pytest.raises(CheckpointError, match='torchvision has no resnet like ours; known for it: gluoncv, pytorchcv'):
        to_torch_state(arg_params, aux_params, 'torchvision')
    with pytest.raises(CheckpointError, match='what GluonCV would get is not a network'):
        to_gluoncv_params(*random_params(get_symbol('resnet', 18, 10, (3, 32, 32)), (3, 32, 32)))


@pytest.mark.parametrize(
    ('file', 'depth', 'errors'), [('resnet20-12fca82f.th', 20, 827), ('resnet32-d509ac18.th', 32, 737)]
)
def test_published_errors_on_cifar_10(file, depth, errors):
    """Of 10,000 images, in MXNet, from files that PyTorch wrote."""
    path = CHECKPOINTS / file
    if not path.exists():
        pytest.skip(f'{file} is not beside the repository')
    if not os.path.exists(os.path.join(cache_folder(CIFAR10), 'test_batch.bin')):
        pytest.skip('CIFAR-10 is not in the cache')
    symbol, arg_params, aux_params = to_mxnet(str(path))
    assert symbol.tojson() == get_symbol('resnet-v1', depth, 10, (3, 32, 32), scale='none').tojson()

    run = Predictor(Network(symbol, arg_params, aux_params))

    averages, count = score(run, eval_iterator(load_dataset('cifar10'), 500))
    assert (count, round(count * (1 - averages['accuracy']))) == (10_000, errors)
