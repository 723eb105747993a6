"""Convert a network for another runtime. The result is compared with MXNet before it is written, and the largest
difference is printed.

    python tools/convert.py run/stripped --to onnx --out resnet20.onnx
    python tools/convert.py run/stripped --to torch --out resnet20
    python tools/convert.py run/stripped --to int8 --out resnet20-int8 --data cifar10
    python tools/convert.py run/stripped --to int8-onnx --out resnet20-int8.onnx --data cifar10
    python tools/convert.py resnet20-12fca82f.th --to mxnet --out resnet20

The source is a checkpoint of MXNet, PREFIX:EPOCH, or PREFIX for the last whole one; for --to mxnet it is a PyTorch
(.pth, .pt, .th, .safetensors) or GluonCV (.params) file of a network of ours, or the name of a GluonCV network.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence

import numpy as np

from formats.checkpoint_files import load_checkpoint, named_checkpoint, save_model
from formats.onnx_file import load_onnx
from formats.optional import optional_module
from formats.params_file import save_arrays
from graphs.comparison import Difference
from graphs.graph import Shape, image_shape_of, only_input
from graphs.int8 import require_float
from graphs.predictor import Network, Predictor
from graphs.preprocessing import Preprocessing, preprocessing_of, with_preprocessing
from graphs.strip import strip
from interop import convert
from interop.conversion_proof import prove_conversion
from interop.models import read_model
from interop.naming_styles import PYTORCH_STYLE
from interop.onnx_export import export_onnx
from interop.quantize import quantize, save_int8
from interop.quantize_onnx import onnx_quantization, quantize_onnx
from interop.runners import OnnxRunner
from runtime import mx
from runtime.argument_types import image_count
from runtime.checkpoint_argument import add_old_epoch, checkpoint_name
from runtime.cli import Parser, run
from runtime.errors import UserError
from runtime.files import written_whole
from symbols import parse_image_shape
from train.data.datasets import DATASETS, Dataset, load_dataset, train_iterator
from train.evaluation import Predict, accuracy, normalisation

CALIBRATION_BATCH = 32


def parser() -> Parser:
    """The parser of this script."""
    made = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument(
        'checkpoint',
        metavar='SOURCE',
        type=checkpoint_name,
        help='a checkpoint of MXNet; for --to mxnet a file, or the name of a GluonCV network',
    )
    add_old_epoch(made)
    files = made.add_argument_group('files')
    files.add_argument(
        '--to',
        choices=sorted(FORMATS),
        required=True,
        help='; '.join(f'{name}: {function.__doc__}' for name, function in FORMATS.items()),
    )
    files.add_argument('--out', required=True, help='file or prefix to write; a missing ending is added')
    files.add_argument('--force', action='store_true', help='replace files of these names (the input never)')
    files.add_argument('--image-shape', help='channels,height,width, where the symbol does not say it')
    files.add_argument(
        '--style',
        choices=sorted(set(PYTORCH_STYLE.values())),
        help='for --to state-dict: whose names to give the tensors (torchvision, akamaster, pytorchcv; default: the '
        'usual ones)',
    )
    calibration = made.add_argument_group('8 bits')
    calibration.add_argument(
        '--data',
        choices=sorted(DATASETS),
        help='for --to int8 and int8-onnx: calibrate on training images of this data set, and print what accuracy it '
        'costs',
    )
    calibration.add_argument('--data-dir', help='where that data set is')
    calibration.add_argument(
        '--calibration-images',
        type=image_count,
        default=512,
        help='how many of them set the range of each feature map (default: 512)',
    )
    return made


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Convert as the command line ``argv`` says; returns the exit code."""
    args = parser().parse_args(argv)
    print(FORMATS[args.to](args))
    return 0


def to_onnx(args: argparse.Namespace) -> str:
    """OUT.onnx, for ONNX Runtime and others"""
    (path,) = claimed(args, '.onnx')
    network = source_network(args)
    return wrote(path, export_onnx(*network, image_shape(args, network[0]), path))


def to_torch(args: argparse.Namespace) -> str:
    """OUT.pt, a TorchScript file for torch.jit.load in PyTorch or C++, without this project"""
    (path,) = claimed(args, '.pt')
    torch_export = optional_module('interop.torch_export', 'torch==2.13.0', 'PyTorch')
    network = source_network(args)
    return wrote(path, torch_export.export_torch(*network, image_shape(args, network[0]), path))


def to_int8(args: argparse.Namespace) -> str:
    """OUT-symbol.json and OUT-0000.params in 8 bits, and OUT-onednn-symbol.json for stock MXNet with oneDNN on a CPU"""
    _check_calibration(args)
    written = claimed(args, '-symbol.json', '-0000.params', '-onednn-symbol.json')
    network = source_network(args)
    calibration = calibration_of(args, network.symbol)
    quantized = quantize(*network, calibration.images)
    symbol = with_preprocessing(quantized.symbol, calibration.preprocessing, calibration.image_shape)
    quantized = quantized._replace(symbol=symbol)
    cost = accuracy_cost(network, Predictor(quantized), calibration)
    save_int8(args.out, quantized)
    return f'wrote {", ".join(written)}\n{cost}'


def to_int8_onnx(args: argparse.Namespace) -> str:
    """OUT.onnx in 8 bits, by ONNX Runtime's quantisation"""
    _check_calibration(args)
    (path,) = claimed(args, '.onnx')
    onnx_quantization()
    network = source_network(args)
    calibration = calibration_of(args, network.symbol)
    with tempfile.TemporaryDirectory() as folder:
        whole, made = (os.path.join(folder, name) for name in ('float.onnx', 'int8.onnx'))
        folded = strip(*network, {only_input(Predictor(network).inputs): (1, *calibration.image_shape)}, fold_bn=True)
        export_onnx(folded.symbol, folded.arg_params, folded.aux_params, calibration.image_shape, whole)
        quantize_onnx(whole, made, calibration.images)
        cost = accuracy_cost(network, OnnxRunner(load_onnx(made), path), calibration)
        with written_whole(path) as scratch:
            shutil.copyfile(made, scratch)
    return f'wrote {path}\n{cost}'


def to_mxnet(args: argparse.Namespace) -> str:
    """OUT-symbol.json and OUT-0000.params, from a file of PyTorch or GluonCV"""
    graph, params = claimed(args, '-symbol.json', '-0000.params')
    network = convert.to_mxnet(args.checkpoint)
    original = read_model(args.checkpoint).outputs
    difference = prove_conversion(
        original, Predictor(Network(*network)), image_shape_of(network[0]), f'{args.checkpoint} as read'
    )
    save_model(args.out, 0, *network)
    return wrote(f'{graph} and {params}', difference)


def to_state_dict(args: argparse.Namespace) -> str:
    """OUT.safetensors under the names of a PyTorch module (--style), λ folded"""
    (path,) = claimed(args, '.safetensors')
    network = Network(*load_checkpoint(*named_checkpoint(args.checkpoint)))
    state = convert.to_torch_state(network.arg_params, network.aux_params, args.style)
    return wrote(path, read_back(network, path, lambda scratch: save_safetensors(scratch, state)))


def to_gluoncv(args: argparse.Namespace) -> str:
    """OUT.params, for GluonCV's load_parameters, λ folded"""
    (path,) = claimed(args, '.params')
    network = Network(*load_checkpoint(*named_checkpoint(args.checkpoint)))
    params = convert.to_gluoncv_params(network.arg_params, network.aux_params)
    return wrote(path, read_back(network, path, lambda scratch: save_arrays(scratch, params)))


# Each does the whole conversion and returns what is to be printed. The docstrings are the help of --to.
FORMATS: Dict[str, Callable[[argparse.Namespace], str]] = {
    'onnx': to_onnx,
    'torch': to_torch,
    'int8': to_int8,
    'int8-onnx': to_int8_onnx,
    'mxnet': to_mxnet,
    'state-dict': to_state_dict,
    'gluoncv': to_gluoncv,
}


def read_back(network: Network, path: str, write: Callable[[str], object]) -> Difference:
    """Write ``path`` by ``write(scratch file)``, once what was written has been read as a network again; returns the
    difference of that one and ``network``. Raises ProofError where they differ by more than rounding.
    """
    with written_whole(path) as scratch:
        write(scratch)
        again = Network(*convert.to_mxnet(scratch))
        return prove_conversion(Predictor(again), Predictor(network), image_shape_of(again.symbol), path)


def save_safetensors(path: str, state: Dict[str, np.ndarray]) -> None:
    """Write a dict name → NumPy array. Raises MissingDependencyError without safetensors."""
    optional_module('safetensors.numpy', 'safetensors').save_file(
        {name: np.ascontiguousarray(array) for name, array in state.items()}, path
    )


def claimed(args: argparse.Namespace, *endings: str) -> List[str]:
    """The paths to write, one for each ending. Raises UserError, before any work, where one is the source, or exists
    and --force is not given.
    """
    targets = [args.out if args.out.endswith(ending) and len(endings) == 1 else args.out + ending for ending in endings]
    sources: Sequence[str] = [args.checkpoint] if args.to == 'mxnet' else named_checkpoint(args.checkpoint).paths
    for target in targets:
        if os.path.realpath(target) in map(os.path.realpath, sources):
            raise UserError(f'{target} is an input: give another --out')
        if os.path.exists(target) and not args.force:
            raise UserError(f'{target} is already there: give another --out, or --force to replace it')
    return targets


def source_network(args: argparse.Namespace) -> Network:
    """The checkpoint to convert. Raises UserError for one in 8 bits."""
    network = Network(*load_checkpoint(*named_checkpoint(args.checkpoint)))
    require_float(network.symbol, args.checkpoint)
    return network


def _check_calibration(args):
    if not args.data:
        raise UserError(f'--to {args.to} calibrates on real images: give their data set, --data')


def image_shape(args: argparse.Namespace, symbol: mx.sym.Symbol) -> Shape:
    """The (channels, height, width) of the images that the network takes."""
    return image_shape_of(symbol, parse_image_shape(args.image_shape) if args.image_shape else None)


class Calibration(NamedTuple):
    """The ``images`` that ranges are set by, float32 (N, C, H, W), and the ``dataset`` that they and the test images
    are from; how it is prepared for the network.
    """

    images: np.ndarray
    dataset: Dataset
    preprocessing: Optional[Preprocessing]
    image_shape: Shape


def calibration_of(args: argparse.Namespace, symbol: mx.sym.Symbol) -> Calibration:
    """The ``Calibration`` that the command line asks for, for a network of this symbol."""
    shape, known = image_shape(args, symbol), preprocessing_of(symbol, args.checkpoint)
    dataset = load_dataset(args.data, args.data_dir, shape)
    return Calibration(calibration_images(dataset, args.calibration_images, known), dataset, known, shape)


def accuracy_cost(network: Network, converted: Predict, calibration: Calibration) -> str:
    """A line that says the accuracy on the test images of ``network`` and of ``converted``, a function from images to
    outputs.
    """
    before, after = (
        accuracy(predict, calibration.dataset, preprocessing=calibration.preprocessing)
        for predict in (Predictor(network), converted)
    )
    return (
        f'accuracy on the test images of {calibration.dataset.name}: {before:.4f} before, {after:.4f} in int8 '
        f'({100 * (after - before):+.2f} points)'
    )


def calibration_images(dataset: Dataset, count: int, preprocessing: Optional[Preprocessing] = None) -> np.ndarray:
    """The first ``count`` training images in random order, prepared as for a test: float32 (N, C, H, W), normalised as
    ``preprocessing`` says, or by the authors' constants.
    """
    size = min(CALIBRATION_BATCH, count, len(dataset.train_labels))
    batches = train_iterator(dataset, size, 0, False, *normalisation(preprocessing))
    images = [batch.data[0].asnumpy() for batch, _ in zip(batches, range(-(-count // size)))]
    return np.concatenate(images)[:count]


def wrote(what: str, difference: Difference) -> str:
    """The lines that say ``what`` was written, and how far it differs from MXNet."""
    lines = [f'wrote {what}', f'largest difference from MXNet, as a part of the spread: {difference.relative:.2g}']
    if len(difference.outputs) > 1:
        lines += [f'  output {output.name}: {output.relative:.2g}' for output in difference.outputs]
    return '\n'.join(lines)


if __name__ == '__main__':
    run(main)
