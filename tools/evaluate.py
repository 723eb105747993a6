"""Score a checkpoint, full, stripped or in 8 bits, or an ONNX file, on the test images of a data set: every image
counted once.

Examples:
    python tools/evaluate.py runs/resnet20:240 --dataset cifar10
    python tools/evaluate.py runs/resnet50-stripped.onnx --data-val val.rec
    python tools/evaluate.py runs/resnet50-stripped --dataset imagenet --data-dir imagenet
"""

from __future__ import annotations

import argparse
import json
from typing import Optional, Sequence, Tuple

import numpy as np

from formats.checkpoint_files import load_checkpoint, named_checkpoint
from graphs.graph import Shape, data_shape_of
from graphs.predictor import Network, Predictor
from graphs.preprocessing import IMAGES, Preprocessing, preprocessing_of
from interop.models import ONNX_ENDING, read_model
from runtime import mx
from runtime.argument_types import positive
from runtime.checkpoint_argument import HELP, add_checkpoint
from runtime.cli import Parser, run
from runtime.devices import contexts
from runtime.errors import UserError
from train.data.datasets import add_data_args, dataset_from_args, eval_iterator
from train.data.image_sources import named
from train.data.imagenet import add_imagenet_args, check_paths, imagenet_from_args, open_sources
from train.evaluation import Predict, normalisation, score, warn_of_another
from train.log import open_log

IMAGENET = 'imagenet'


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Evaluate as the command line ``argv`` says; returns the exit code."""
    args = parser().parse_args(argv)
    name, predict, known, own_shape = opened(args)
    if args.data_val:
        args.dataset = IMAGENET
    args.dataset = args.dataset or _dataset_of(known)
    args.rgb_mean, args.rgb_std = normalisation(known, args.rgb_mean, args.rgb_std)
    if args.dataset == IMAGENET:
        check_paths(args, with_training=False)
    dataset = None if args.dataset == IMAGENET else dataset_from_args(args)
    shape = dataset.image_shape if dataset else args.image_shape or own_shape or (3, 224, 224)
    num_classes = classes_of(predict, shape)
    if dataset:
        warn_of_another(known, dataset.name)
        images = eval_iterator(dataset, args.batch_size, args.rgb_mean, args.rgb_std)
    else:
        open_log()  # for the names of damaged images
        classes = known.classes if known else ()
        if known:
            warn_of_another(known, IMAGES)
            # A resize belongs to its image shape.
            args.resize = args.resize or (known.resize if shape == own_shape else None)
        sources = open_sources(args, False, classes)
        _check_same_classes(name, classes, sources['validation'].classes)
        images = imagenet_from_args(
            args, shape, num_classes, args.batch_size, with_training=False, sources=sources
        ).validation
    wanted = dataset.num_classes if dataset else num_classes
    averages, count = score(predict, images, args.top_k, progress=args.dataset, num_classes=wanted)
    if args.json:
        print(json.dumps(dict(averages, images=count, dataset=args.dataset)))
        return 0
    print(f'{name} on {args.dataset}: {count} images')
    for name, value in averages.items():
        print(f'{name} {value:.6f}' + (f' (error {100 * (1 - value):.2f} %)' if 'accuracy' in name else ''))
    return 0


def opened(args: argparse.Namespace) -> Tuple[str, Predict, Optional[Preprocessing], Optional[Shape]]:
    """The network to score: its name, the function that computes it, how images are prepared for it, and their shape;
    the last two are None where it does not say them. Raises UserError for an ONNX file with ``--gpus``.
    """
    if args.checkpoint.endswith(ONNX_ENDING):
        if args.gpus:
            raise UserError(f'--gpus {args.gpus}: ONNX files are computed on the CPU; leave it out')
        model = read_model(args.checkpoint)
        return args.checkpoint, model.outputs, model.preprocessing, model.image_shape
    checkpoint = named_checkpoint(args.checkpoint)
    network = Network(*load_checkpoint(*checkpoint))
    predict = Predictor(network, context=device(args.gpus))
    return (
        str(checkpoint),
        predict,
        preprocessing_of(network.symbol, checkpoint.prefix),
        data_shape_of(network.symbol),
    )


def _dataset_of(known: Optional[Preprocessing]) -> str:
    """The data set that a network was trained on, as ``--dataset`` calls it."""
    name = known.dataset if known else None
    return IMAGENET if name == IMAGES else name or 'cifar10'


def _check_same_classes(prefix: str, expected: Sequence[str], found: Sequence[str]) -> None:
    """Raise UserError where images have names of classes (``found``), and others than the network."""
    if expected and found and list(expected) != list(found):
        raise UserError(
            f'{prefix} was trained on other classes ({named(expected)}) than these images have ({named(found)})'
        )


def device(gpus: Optional[str]) -> mx.Context:
    """The one device of ``--gpus``. Raises UserError for several."""
    found = contexts(gpus)
    if len(found) > 1:
        raise UserError(f'--gpus {gpus}: evaluation runs on one card; give one number')
    return found[0]


def classes_of(predict: Predict, shape: Shape) -> int:
    """The number of classes of a network for images of ``shape``. Raises UserError where it has no classes."""
    output = predict(np.zeros((1, *shape), np.float32))[0]
    if output.ndim != 2:
        raise UserError(f'the network puts out arrays of shape {output.shape[1:]} for an image, not one number a class')
    return output.shape[1]


def parser() -> Parser:
    """The parser of this script."""
    made = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_checkpoint(made, f'{HELP}; or an ONNX file, FILE.onnx')
    made.add_argument(
        '--batch-size',
        type=positive,
        default=100,
        help='images at a time; the result does not depend on it (default: 100)',
    )
    made.add_argument(
        '--top-k',
        type=positive,
        default=5,
        help='also count images whose class is among the k most probable (default: 5)',
    )
    made.add_argument('--gpus', type=str, help='a card to use, for example 0; left out: the CPU')
    made.add_argument('--json', action='store_true', help='print one JSON object')
    add_data_args(made, more=(IMAGENET,))
    add_imagenet_args(made, with_training=False)
    made.set_defaults(dataset=None, rgb_mean=None, rgb_std=None)  # what the network itself says comes before
    return made


if __name__ == '__main__':
    run(main)
