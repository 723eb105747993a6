"""A whole training step, forward, backward and update, with λ and without, in each placement and engine."""
import importlib
from functools import partial

from optimizers import APG
from runtime import mx, usable_cores
from runtime.errors import MissingDependencyError
from symbols import get_symbol, parse_image_shape
from train.data import synthetic_data
from train.engine import MXNetEngine

from .contest import contest
from .report import milliseconds

OPTIMIZER = {'learning_rate': 1e-3, 'momentum': 0.9, 'wd': 1e-4}

# What is compared: name → (scale, placement). 'off' is the network without λ, 'output' the authors' graph.
LAMBDAS = {'off': ('none', 'weight'), 'weight': (None, 'weight'), 'output': (None, 'output')}


def measure(args):
    """The rows of the table; the first contestant is what the others are measured by."""
    builds = {f'{engine} {name}': partial(ENGINES[engine], args.network, args.num_layers, args.num_classes, args.image_shape, args.batch_size, *LAMBDAS[name])
              for engine in args.engines for name in args.lambdas}
    measured = contest(builds, args.rounds, args.steps, args.clock)
    reference = next(iter(measured.values()))
    return [{'engine, λ': name, 'images/s': args.batch_size / result.median, 'speed over the first': 1 / result.time_over(reference), **milliseconds(result)}
            for name, result in measured.items()]


def mxnet_training(network, num_layers, num_classes, image_shape, batch_size, scale, placement):
    """Steps as ``train.fit`` takes them, on one fixed batch of noise."""
    symbol = get_symbol(network, num_layers, num_classes, image_shape, scale, placement)
    data = synthetic_data(batch_size, parse_image_shape(image_shape), num_classes)
    context = mx.gpu() if mx.context.num_gpus() else mx.cpu()
    engine = MXNetEngine(symbol, [context], data.provide_data, data.provide_label)
    names = dict(enumerate(name for name in symbol.list_arguments() if name not in ('data', 'softmax_label')))
    engine.start(APG(param_idx2name=names, sym=symbol, rescale_grad=1 / batch_size, **OPTIMIZER))
    batch = next(data)

    def turn(steps):
        for _ in range(steps):
            engine.step(batch, seed=0)
        engine.settle()

    return turn


def torch_training(network, num_layers, num_classes, image_shape, batch_size, scale, placement):
    """The same graph, batch and optimizer in PyTorch, channels last."""
    try:
        torch = importlib.import_module('torch')
    except ImportError:
        raise MissingDependencyError('--engines torch needs PyTorch: make venv EXTRAS=torch') from None
    torch.set_num_threads(usable_cores())
    data = synthetic_data(batch_size, parse_image_shape(image_shape), num_classes)
    batch = next(data)
    net = importlib.import_module('interop.torch_graph').TorchGraph(*initialised(network, num_layers, num_classes, image_shape, scale, placement, data))
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    net = net.to(device, memory_format=torch.channels_last).train()
    images = torch.from_numpy(batch.data[0].asnumpy()).to(device, memory_format=torch.channels_last)
    labels = torch.from_numpy(batch.label[0].asnumpy()).to(device)
    settings = {'lr': OPTIMIZER['learning_rate'], 'momentum': OPTIMIZER['momentum'], 'wd': OPTIMIZER['wd'], 'rescale_grad': 1 / batch_size}
    optimizer = importlib.import_module('interop.torch_optim').APG(net.mxnet_parameters(), **settings)

    def turn(steps):
        for _ in range(steps):
            optimizer.zero_grad()
            net.loss(net(images), labels).backward()
            optimizer.step()
        if device == 'cuda':
            torch.cuda.synchronize()

    return turn


ENGINES = {'mxnet': mxnet_training, 'torch': torch_training}


def initialised(network, num_layers, num_classes, image_shape, scale, placement, data):
    """(symbol, arg_params, aux_params) of a network with random weights."""
    symbol = get_symbol(network, num_layers, num_classes, image_shape, scale, placement)
    module = mx.mod.Module(symbol)
    module.bind(data.provide_data, data.provide_label, for_training=False)
    module.init_params(mx.init.Xavier(rnd_type='gaussian', factor_type='in', magnitude=2))
    return (symbol, *module.get_params())
