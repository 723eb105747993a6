"""Say which classes images show, by a trained network: an MXNet checkpoint, full or stripped, or an ONNX file.

    python tools/predict.py runs/mine cat.jpg dog.jpg
    python tools/predict.py runs/mine-stripped cat.jpg --top-k 3
    python tools/predict.py runs/mine.onnx cat.jpg --json

The model itself says how images are prepared and what its classes are called, if it was trained here.
"""

import argparse
import json
import sys
from typing import List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from graphs.preprocessing import Preprocessing
from interop.models import Model, read_model
from runtime.argument_types import divisors, numbers, positive, side
from runtime.checkpoint_argument import checkpoint_name
from runtime.cli import Parser, run
from runtime.errors import DataError, UserError
from runtime.reading import read_bytes
from symbols import parse_image_shape
from train.data.augment import RGB_MEAN, RGB_STD
from train.data.image_augment import CentreView
from train.data.image_sources import MAX_IMAGE_FILE
from train.evaluation import softmax

BATCH = 32


class Prediction(NamedTuple):
    """An image's file, and its classes by falling probability: (name, probability)."""

    image: str
    classes: List[Tuple[str, float]]


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Predict as the command line ``argv`` says; returns the exit code."""
    args = parser().parse_args(argv)
    model = read_model(args.model)
    shape = image_shape(args, model)
    found = predict(model, args.images, shape, preparation(args, model, shape), args.top_k)
    if args.json:
        print(json.dumps([prediction._asdict() for prediction in found]))
        return 0
    for prediction in found:
        print(prediction.image)
        for name, probability in prediction.classes:
            print(f'  {100 * probability:6.2f} %  {printable(name)}')
    return 0


def predict(
    model: Model, paths: Sequence[str], shape: Tuple[int, ...], prepared: Preprocessing, top_k: int
) -> List[Prediction]:
    """The ``top_k`` most probable classes of each image file.

    Raises DataError, naming it, for a file that is no image; UserError where the network does not take images of
    ``shape`` (3, height, width), or its output is not finite or not one number for each class.
    """
    view = CentreView(shape, prepared.resize, prepared.mean, prepared.std)
    found: List[Prediction] = []
    for begin in range(0, len(paths), BATCH):
        batch = paths[begin : begin + BATCH]
        images = np.empty((len(batch), *shape), np.float32)
        for path, out in zip(batch, images):
            read_into(out, path, view)
        logits = model.outputs(images)[0]
        _check(model, logits, prepared)
        for path, probabilities in zip(batch, softmax(logits)):
            best = np.argsort(-probabilities, kind='stable')[:top_k]
            classes = [(prepared.name_of(label), float(probabilities[label])) for label in best.tolist()]
            found.append(Prediction(path, classes))
    return found


def read_into(out: np.ndarray, path: str, view: CentreView) -> None:
    """Write the image file ``path``, prepared by ``view``, into ``out`` (3, height, width)."""
    data = read_bytes(path, MAX_IMAGE_FILE)
    try:
        view(data, None, out)
    except DataError as error:
        raise DataError(f'{path} {error}') from None


def image_shape(args: argparse.Namespace, model: Model) -> Tuple[int, ...]:
    """(3, height, width) of the images that the network takes: given, or as the model says."""
    shape = parse_image_shape(args.image_shape) if args.image_shape else model.image_shape
    if not shape:
        raise UserError(f'{args.model} does not say which images it takes: give --image-shape 3,HEIGHT,WIDTH')
    if len(shape) != 3 or shape[0] != 3:
        raise UserError(f'{args.model} takes images of shape {",".join(map(str, shape))}; image files have 3 channels')
    return tuple(shape)


def preparation(args: argparse.Namespace, model: Model, shape: Tuple[int, ...]) -> Preprocessing:
    """How images are prepared: as the model says, but for what the command line says."""
    known = model.preprocessing
    if known is None:
        known = Preprocessing(RGB_MEAN, RGB_STD, (max(shape[1:]) * 256 + 112) // 224)
        if args.rgb_mean is None or args.rgb_std is None:
            print(
                f"warning: {args.model} does not say how its images are prepared; ImageNet's mean and deviation are "
                'taken. --rgb-mean, --rgb-std and --resize change that',
                file=sys.stderr,
            )
    changes = {name: getattr(args, option) for name, option in OPTIONS.items() if getattr(args, option) is not None}
    return known._replace(**changes)


# Fields of Preprocessing, and the arguments that replace them.
OPTIONS = {'mean': 'rgb_mean', 'std': 'rgb_std', 'resize': 'resize'}


def printable(name: str) -> str:
    """A class name, escaped where it has characters that a terminal may take for commands."""
    return name if name.isprintable() else ascii(name)


def _check(model: Model, logits: np.ndarray, prepared: Preprocessing) -> None:
    if logits.ndim != 2:
        raise UserError(f'{model.source} puts out arrays of shape {logits.shape[1:]} for an image, not classes')
    if not np.isfinite(logits).all():
        raise UserError(f'{model.source} puts out numbers that are not finite; take an earlier epoch')
    if prepared.classes and len(prepared.classes) != logits.shape[1]:
        raise UserError(f'{model.source} has {logits.shape[1]} classes, but it names {len(prepared.classes)}')


def parser() -> argparse.ArgumentParser:
    """The parser of this script."""
    made = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument(
        'model',
        metavar='MODEL',
        type=checkpoint_name,
        help='a checkpoint of MXNet (PREFIX:EPOCH, or PREFIX for the last whole one), or FILE.onnx',
    )
    made.add_argument('images', nargs='+', metavar='IMAGE', help='image files')
    made.add_argument(
        '--top-k', type=positive, default=5, metavar='K', help='so many classes of each image (default: 5)'
    )
    made.add_argument('--json', action='store_true', help='print one JSON list')
    group = made.add_argument_group('where the model does not say it, or should not')
    group.add_argument('--image-shape', metavar='3,H,W', help="shape of the network's input")
    group.add_argument('--rgb-mean', type=numbers, metavar='R,G,B', help='subtracted from pixels of 0..255')
    group.add_argument('--rgb-std', type=divisors, metavar='R,G,B', help='what pixels are then divided by')
    group.add_argument(
        '--resize', type=side, metavar='N', help='the shorter side becomes N pixels, and the centre is cut out'
    )
    return made


if __name__ == '__main__':
    run(main)
