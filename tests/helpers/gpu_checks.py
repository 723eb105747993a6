"""What a graphics card is asked to compute, and what it is compared with: NumPy, the equations, and the same step on
the CPU.

A check takes a device and returns what to say of it. It raises AssertionError where the device is wrong, and Skip where
it cannot be asked.
"""

from typing import NamedTuple

import numpy as np

from graphs.half import LOSS_SCALE, half
from graphs.memonger import recomputed
from graphs.strip import strip
from helpers import several_devices as several
from helpers.apg_twin import Twin
from helpers.mxnet_twin import BATCH, FAMILIES, PLACEMENTS, random_images, random_params, small_network
from optimizers import APG
from runtime import mx
from train.engines.mxnet import MXNetEngine
from train.engines.mxnet_half import HalfEngine

CPU = mx.cpu()
NETWORKS = [(family, placement) for family in FAMILIES for placement in PLACEMENTS]


class Skip(Exception):
    """A check that cannot be made here; the message says why."""


class Found(NamedTuple):
    """A training step of a network: class probabilities, all gradients end to end, and the statistics of batch
    normalisation, also end to end.
    """

    output: np.ndarray
    gradient: np.ndarray
    statistics: np.ndarray


def runs_kernels(device):
    """Its own kernels, the BLAS and the convolutions give what NumPy gives."""
    random = np.random.RandomState(0)
    a, b, image = random.rand(64, 48), random.rand(48, 32), random.rand(2, 3, 9, 9)
    weight = random.rand(5, 3, 3, 3)
    on = {
        name: mx.nd.array(value, device, 'float32')
        for name, value in (('a', a), ('b', b), ('image', image), ('weight', weight))
    }
    close(mx.nd.dot(on['a'], on['b']), a @ b, 1e-5)
    close(mx.nd.relu(on['a'] - 0.5), np.maximum(a - 0.5, 0), 1e-5)
    windows = np.lib.stride_tricks.sliding_window_view(image, (3, 3), axis=(2, 3))
    close(
        mx.nd.Convolution(on['image'], on['weight'], kernel=(3, 3), num_filter=5, no_bias=True),
        np.einsum('nchwij,ocij->nohw', windows, weight),
        1e-5,
    )
    return 'equal to NumPy to 1e-5'


def moves_by_the_equations(device, dtype='float32'):
    """APG against its float64 twin, over two learning rates; in float16 with a float32 master copy, which must be as
    exact.
    """
    is_half, random = dtype == 'float16', np.random.RandomState(1)
    names = {0: 'conv_weight', 1: 'lambda_block'}
    optimizer = APG(gamma=0.1, momentum=0.9, wd=0.01, learning_rate=0.1, param_idx2name=names, multi_precision=is_half)
    values = {0: random.randn(300).astype(dtype), 1: random.rand(7).astype(dtype)}
    weights = {index: mx.nd.array(value, device, dtype) for index, value in values.items()}
    states = {index: optimizer.create_state_multi_precision(index, weight) for index, weight in weights.items()}
    twins = {
        index: Twin(value, 'lambda' in names[index], gamma=0.1, momentum=0.9, wd=0 if index else 0.01)
        for index, value in values.items()
    }
    for step in range(20):
        optimizer.set_learning_rate(0.1 if step < 10 else 0.02)
        for index, weight in weights.items():
            gradient = random.randn(*weight.shape).astype(dtype)
            optimizer.update_multi_precision(index, weight, mx.nd.array(gradient, device, dtype), states[index])
            twins[index].step(gradient.astype(np.float64), optimizer.learning_rate)
    for index, weight in weights.items():
        close(states[index][0] if is_half else weight, twins[index].value, 3e-6)
    return 'λ and weights within 3e-6 of the float64 twin'


def moves_by_the_equations_in_half(device):
    return moves_by_the_equations(device, 'float16')


def trains_like_the_cpu(device):
    """A step of every family, in both placements of λ."""
    worst = 0
    for family, placement in NETWORKS:
        network = small_network(family, placement)
        here, there = step(network, device), step(network, CPU)
        worst = max(
            worst, check_same(f'{family} {placement}', here, there, output=1e-4, direction=1e-4, statistics=1e-4)
        )
    return f'{len(NETWORKS)} networks, gradients at most {worst:.1g} apart in direction'


def trains_in_half_like_the_cpu(device):
    """The same in float16, by the device's own kernels, and by float32 kernels between roundings on the CPU."""
    worst = 0
    for family, placement in NETWORKS:
        network = small_network(family, placement)
        here, there = step(network, device, in_half(device)), step(network, CPU, in_half(CPU))
        worst = max(
            worst, check_same(f'{family} {placement}', here, there, output=0.02, direction=0.05, statistics=0.01)
        )
    return f'{len(NETWORKS)} networks, gradients at most {worst:.1g} apart in direction'


def recomputes(device):
    """--memonger 1: the same gradients, and statistics that move once, in either type."""
    for family in FAMILIES:
        network = small_network(family)
        for change, tolerance in ((same, 1e-4), (in_half(device), 0.05)):
            again, once = (
                step(network, device, lambda symbol, change=change: recomputed(change(symbol))),
                step(network, device, change),
            )
            check_same(family, again, once, output=0.02, direction=tolerance, statistics=1e-3)
    return f'{len(FAMILIES)} networks, statistics moved once'


def follows_lambda_in_half(device):
    """λ over twenty steps in float16 on the device, and in float32 on the CPU."""
    symbol, shape = small_network('resnet-basic')
    images, labels = random_images(shape, 'float32')
    batch = mx.io.DataBatch([mx.nd.array(images)], [mx.nd.array(labels)], pad=0)
    paths = []
    for engine, made, where in ((HalfEngine, in_half(device)(symbol), device), (MXNetEngine, symbol, CPU)):
        run = engine(
            made, [where], [mx.io.DataDesc('data', images.shape)], [mx.io.DataDesc('softmax_label', labels.shape)]
        )
        run.seed(1)
        run.start(APG(gamma=0.3, momentum=0.9, learning_rate=0.005, rescale_grad=1 / BATCH, param_idx2name={}))
        paths.append([])
        for _ in range(20):
            run.step(batch, seed=0)
            paths[-1].append(np.concatenate([values.ravel() for _, values in sorted(run.lambdas().items())]))
    apart = np.abs(np.subtract(*paths)).max()
    require(apart < 0.05, f'λ is {apart:.3g} from its way in float32')
    return f'from 1 to {paths[1][-1].mean():.2f} in the mean, at most {apart:.2g} from float32'


def infers_stripped(device):
    """A stripped network, its batch normalisation folded away, on the device and on the CPU."""
    for family in FAMILIES:
        symbol, shape = small_network(family)
        arg_params, aux_params = random_params(symbol, shape, 'float32')
        if 'lambda_block' in arg_params:
            arg_params['lambda_block'][0] = 0
        stripped = strip(symbol, arg_params, aux_params, {'data': (1, *shape)}, fold_bn=True)
        images, _ = random_images(shape, 'float32')
        outputs = [predicted(stripped, images, where) for where in (device, CPU)]
        require(
            np.abs(np.subtract(*outputs)).max() < 1e-4,
            f'{family}: probabilities {np.abs(np.subtract(*outputs)).max():.2g} apart',
        )
    return f'{len(FAMILIES)} networks'


def two_train_like_one(devices):
    """Five steps over two devices, and over the first alone."""
    if len(devices) < 2:
        raise Skip('there is one card')
    found = []
    for where in (devices[:2], devices[:1]):
        run = MXNetEngine(several.network(), where, several.DATA, several.LABEL, 'device')
        run.seed(5)
        run.start(several.optimizer())
        for batch in several.batches():
            run.step(batch, seed=0)
        found.append({name: value.asnumpy() for name, value in run.parameters()[0].items()})
    for name, value in found[1].items():
        close(found[0][name], value, 1e-4)
    return 'all parameters within 1e-4 after five steps'


def torch_replays_what_it_computes(device):
    """--engine torch: six steps recorded as a CUDA graph, and one by one."""
    try:
        import torch

        from train.engines.torch import TorchEngine
        from train.engines.torch_arithmetic import Arithmetic
    except ImportError:
        raise Skip('PyTorch is not installed; make venv EXTRAS=torch') from None
    if not torch.cuda.is_available():
        raise Skip(f'PyTorch {torch.__version__} sees no card')
    outputs = []
    for graphs in ('on', 'off'):
        run = TorchEngine(
            several.network(), str(device.device_id), several.DATA, several.LABEL, Arithmetic(cuda_graphs=graphs)
        )
        run.seed(5)
        run.start(several.optimizer())
        outputs.append([run.step(batch, seed=0).cpu().numpy() for batch in several.batches() * 2])
    close(outputs[0], outputs[1], 1e-5)
    return 'ten steps within 1e-5'


# Of each device; two_train_like_one takes a list of them, and torch_replays_what_it_computes a card.
CHECKS = (
    runs_kernels,
    moves_by_the_equations,
    moves_by_the_equations_in_half,
    trains_like_the_cpu,
    trains_in_half_like_the_cpu,
    recomputes,
    follows_lambda_in_half,
    infers_stripped,
)


def same(symbol):
    return symbol


def in_half(device):
    """A function that makes a symbol one of half precision, for ``device``."""
    return lambda symbol: half(symbol, wide_products=device.device_type == 'cpu')


def step(network, device, change=same):
    """A step of a (symbol, image shape) with parameters at random, ``Found``; ``change`` makes of the symbol what is
    computed.
    """
    symbol, shape = network
    arg_params, aux_params = random_params(symbol, shape, 'float32')
    images, labels = random_images(shape, 'float32')
    symbol = change(symbol)
    arguments = {
        **arg_params,
        'data': mx.nd.array(images),
        'softmax_label': mx.nd.array(labels),
        LOSS_SCALE: mx.nd.full((BATCH,), 256),
    }
    arguments = {name: arguments[name].copyto(device) for name in symbol.list_arguments()}
    gradients = {name: mx.nd.zeros_like(arguments[name]) for name in arg_params}
    executor = symbol.bind(
        device, arguments, gradients, 'write', {name: array.copyto(device) for name, array in aux_params.items()}
    )
    executor.forward(is_train=True)
    executor.backward()
    mx.nd.waitall()
    return Found(executor.outputs[0].asnumpy(), end_to_end(gradients), end_to_end(executor.aux_dict))


def end_to_end(arrays):
    return np.concatenate([array.asnumpy().ravel() for _, array in sorted(arrays.items())])


def predicted(stripped, images, device):
    symbol, arg_params, aux_params = stripped[:3]
    arguments = {
        'data': mx.nd.array(images, device),
        **{name: array.copyto(device) for name, array in arg_params.items()},
    }
    executor = symbol.bind(
        device,
        arguments,
        aux_states={name: array.copyto(device) for name, array in aux_params.items()},
        grad_req='null',
    )
    return executor.forward(is_train=False)[0].asnumpy()


def check_same(name, here, there, output, direction, statistics):
    """Require two steps to be the same within tolerances; how far apart the gradients are, 1 - cosine."""
    close(here.output, there.output, output, name)
    close(here.statistics, there.statistics, statistics, name)
    apart = 1 - here.gradient @ there.gradient / (np.linalg.norm(here.gradient) * np.linalg.norm(there.gradient))
    require(apart < direction, f'{name}: gradients are {apart:.2g} apart in direction')
    ratio = np.linalg.norm(here.gradient) / np.linalg.norm(there.gradient)
    require(abs(ratio - 1) < 0.1, f'{name}: gradients are {ratio:.3g} times as long')
    return max(apart, 0)


def close(found, expected, tolerance, name=''):
    found = found.asnumpy() if isinstance(found, mx.nd.NDArray) else np.asarray(found)
    apart = np.abs(found.astype(np.float64) - expected).max() / max(1, np.abs(expected).max())
    require(apart <= tolerance, f'{name} {apart:.2g} apart, {tolerance:g} allowed'.strip())


def require(is_so, otherwise):
    if not is_so:
        raise AssertionError(otherwise)
