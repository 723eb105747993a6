"""Inference of checkpoints in every runtime that is installed: is a network that has fewer MACs faster by as much?"""

import argparse
import importlib
import logging
import os
import tempfile
from functools import partial
from typing import List, NamedTuple, Optional, Tuple

import numpy as np

from formats.checkpoint_files import find_checkpoint, load_checkpoint, save_model
from formats.onnx_file import load_onnx
from graphs.complexity import complexity
from graphs.graph import Graph, Shape, data_shape_of
from graphs.int8 import integer_symbol, is_int8
from graphs.lambdas import is_lambda
from graphs.strip import strip
from interop.models import ONNX_ENDING
from interop.onnx_macs import onnx_macs
from interop.runners import OnnxRunner
from runtime import mx
from runtime.errors import DataError, UserError
from symbols import parse_image_shape
from tools.tables.published import find_row, read_tables
from tools.tables.structures import random_network

from .alternating import RunSteps, threads, time_alternating
from .report import TableRow, milliseconds
from .speed_plot import draw

NEEDS = {'mxnet': (), 'onnxruntime': ('onnx', 'onnxruntime'), 'torch': ('torch',)}


class Network(NamedTuple):
    """A network, ready for inference: a checkpoint, λ and batch normalisation folded away, saved as
    ``prefix``-0000.params and, for ONNX Runtime, ``prefix``.onnx; or an ONNX file as it is. ``macs`` is None where
    they cannot be counted.
    """

    source: str
    prefix: str
    image_shape: Shape
    macs: Optional[int]
    runtimes: Tuple[str, ...] = tuple(NEEDS)


def measure(args: argparse.Namespace) -> List[TableRow]:
    """One row for each runtime, device, batch size and network; ratios are to the first network."""
    runtimes = [name for name in args.runtimes if _is_installed(name)]
    with tempfile.TemporaryDirectory() as folder:
        networks = [
            prepared(source, args.image_shape, os.path.join(folder, str(number)), 'onnxruntime' in runtimes)
            for number, source in enumerate(args.models)
        ]
        rows = [
            row
            for runtime in runtimes
            for device in _devices(runtime)
            for batch in args.batch_sizes
            for row in _compared(networks, runtime, device, batch, args)
        ]
    if args.plot:
        draw([row for row in rows if row['MACs ratio']], args.plot)
    return rows


def prepared(source: str, image_shape: Optional[str], prefix: str, as_onnx: bool) -> Network:
    """The Network of a checkpoint, an ONNX file or a row of the published tables, saved under ``prefix``, with an ONNX
    file if ``as_onnx``. ``image_shape`` ('3,224,224') is for one that does not say it. Raises UserError where
    ``source`` is none of them.
    """
    if source.endswith(ONNX_ENDING):
        return _onnx_file(source, image_shape, prefix)
    named = find_checkpoint(source)
    if named:
        symbol, arg_params, aux_params = load_checkpoint(*named)
        # λ is set to 1, so that a full network stays full; its speed does not depend on λ.
        arg_params = {name: mx.nd.ones_like(array) if is_lambda(name) else array for name, array in arg_params.items()}
    else:
        symbol, arg_params, aux_params = _published(source)
    shape = parse_image_shape(image_shape) if image_shape else data_shape_of(symbol)
    if not shape:
        raise UserError(f'{source} does not say which images it takes: give --image-shape channels,height,width')
    if is_int8(Graph.from_symbol(symbol)):
        save_model(prefix, 0, symbol, arg_params, aux_params)
        return Network(source, prefix, shape, complexity(symbol, {'data': (1, *shape)}).macs, ('mxnet',))
    symbol, arg_params, aux_params, _ = strip(symbol, arg_params, aux_params, {'data': (1, *shape)}, fold_bn=True)
    save_model(prefix, 0, symbol, arg_params, aux_params)
    if as_onnx:
        importlib.import_module('interop.onnx_export').export_onnx(
            symbol, arg_params, aux_params, shape, f'{prefix}.onnx'
        )
    return Network(source, prefix, shape, complexity(symbol, {'data': (1, *shape)}).macs)


def _onnx_file(path, image_shape, prefix):
    model = load_onnx(path)
    shape = parse_image_shape(image_shape) if image_shape else OnnxRunner(model, path).image_shape
    if not shape:
        raise UserError(f'{path} does not say which images it takes: give --image-shape channels,height,width')
    with open(f'{prefix}{ONNX_ENDING}', 'wb') as out:
        out.write(model.SerializeToString())
    return Network(path, prefix, shape, onnx_macs(model), ('onnxruntime',))


def _published(name):
    """A published structure with random weights."""
    try:
        row = find_row(read_tables(), name)
    except DataError:
        raise UserError(
            f'{name}: give a checkpoint, for example runs/resnet20:240, an ONNX file, or a published row such as '
            'imagenet-resnet/sss-resnet-41'
        ) from None
    if not row.network or not row.keep:
        raise UserError(f'{name}: its structure was not published, so it cannot be built')
    return random_network(row.network, row.keep)


def mxnet_inference(network: Network, device: str, batch: int) -> RunSteps:
    """Steps of MXNet's Module, whose graph oneDNN fuses. ``device`` is 'cpu' or 'gpu'."""
    symbol, arg_params, aux_params = load_checkpoint(network.prefix, 0)
    if is_int8(Graph.from_symbol(symbol)) and device == 'cpu':
        symbol = integer_symbol(symbol)
    module = mx.mod.Module(symbol, label_names=None, context=mx.gpu() if device == 'gpu' else mx.cpu())
    images = mx.io.DataBatch([mx.nd.array(_noise(network, batch))])
    module.bind([('data', images.data[0].shape)], for_training=False)
    module.set_params(arg_params, aux_params)

    def run_steps(steps):
        for _ in range(steps):
            module.forward(images, is_train=False)
            module.get_outputs()[0].wait_to_read()

    return run_steps


def onnx_inference(network: Network, device: str, batch: int) -> RunSteps:
    """Steps of ONNX Runtime, with its own optimizations of the graph."""
    onnxruntime = importlib.import_module('onnxruntime')
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    provider = 'CUDAExecutionProvider' if device == 'gpu' else 'CPUExecutionProvider'
    session = onnxruntime.InferenceSession(f'{network.prefix}.onnx', options, providers=[provider])
    images = {session.get_inputs()[0].name: _noise(network, batch)}

    def run_steps(steps):
        for _ in range(steps):
            session.run(None, images)

    return run_steps


def torch_inference(network: Network, device: str, batch: int) -> RunSteps:
    """Steps of PyTorch, which runs the graph operator by operator, channels last."""
    torch = importlib.import_module('torch')
    torch.set_num_threads(threads())
    place = {'device': 'cuda' if device == 'gpu' else 'cpu', 'memory_format': torch.channels_last}
    net = (
        importlib.import_module('interop.torch_graph')
        .TorchGraph(*load_checkpoint(network.prefix, 0))
        .to(**place)
        .eval()
    )
    images = torch.from_numpy(_noise(network, batch)).to(**place)

    def run_steps(steps):
        with torch.inference_mode():
            for _ in range(steps):
                net(images).cpu()

    return run_steps


RUNTIMES = {'mxnet': mxnet_inference, 'onnxruntime': onnx_inference, 'torch': torch_inference}


def _compared(networks, runtime, device, batch, args):
    networks = [network for network in networks if runtime in network.runtimes]
    if not networks:
        return
    measured = time_alternating(
        {network.source: partial(RUNTIMES[runtime], network, device, batch) for network in networks},
        args.rounds,
        args.steps,
        args.clock,
    )
    full = networks[0]
    for network in networks:
        result = measured[network.source]
        speed_up = 1 / result.time_over(measured[full.source])
        macs_ratio = full.macs / network.macs if full.macs and network.macs else None
        yield {
            'runtime': f'{runtime} {device}',
            'batch': batch,
            'network': network.source,
            'GMACs': network.macs / 1e9 if network.macs else None,
            'images/s': batch / result.median,
            'speed-up': speed_up,
            'MACs ratio': macs_ratio,
            'of it': speed_up / macs_ratio if macs_ratio else None,
            **milliseconds(result),
        }


def _is_installed(runtime):
    try:
        for package in NEEDS[runtime]:
            importlib.import_module(package)
    except ImportError as error:
        logging.warning('%s is left out: %s', runtime, error)
        return False
    return True


def _devices(runtime):
    return ('cpu', 'gpu') if _sees_gpu(runtime) else ('cpu',)


def _sees_gpu(runtime):
    if runtime == 'mxnet':
        return mx.context.num_gpus() > 0
    if runtime == 'torch':
        return importlib.import_module('torch').cuda.is_available()
    return 'CUDAExecutionProvider' in importlib.import_module('onnxruntime').get_available_providers()


def _noise(network, batch):
    return np.random.default_rng(0).normal(size=(batch, *network.image_shape)).astype(np.float32)
