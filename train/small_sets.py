"""Settings that fit the images: those that the user did not give are chosen by the number and the size of the images.

The authors' recipe is for the 1.3 million photographs of ImageNet. A few hundred images need smaller batches and a
schedule in which λ can reach 0; small images need a stem that does not make them too small.
"""

import argparse
import io
import statistics
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

from formats.checkpoint_files import prefix_of, symbol_path
from formats.symbol_file import load_symbol
from graphs.graph import Graph, data_shape_of
from graphs.preprocessing import Preprocessing, preprocessing_of
from runtime.devices import contexts
from runtime.errors import DataError
from runtime.packages import Image
from symbols import has_imagenet_stem, parse_image_shape

from .build import cumulative_shrinkage, make_optimizer, network
from .data.image_sources import Source, named

AUTO = 'auto'
IMAGENET_STEM = 'imagenet'
# From so many training images on, the authors' recipe stays.
LARGE_SET = 20000
STEPS, LEAST_EPOCHS, MOST_EPOCHS = 1500, 20, 100
SMALLEST_BATCH, LARGEST_BATCH, STEPS_OF_AN_EPOCH = 8, 128, 16
# The authors' learning rate, for their batch; weights that are trained already take a tenth of it.
AUTHORS_RATE, AUTHORS_BATCH = 0.1, 128
FINETUNING = 0.1
# γ alone shrinks a λ by so much over the run; it starts at 1.
SHRINKAGE, LARGEST_GAMMA = 2.0, 0.1
SAMPLE = 100
LARGEST_SIDE, MULTIPLE = 224, 32
# Smaller images get a stem of stride 2 instead of 4, and of stride 1 instead of 2.
NEEDS_STRIDE_2, NEEDS_STRIDE_1 = 112, 48


class Origin(NamedTuple):
    """What is known of the network that a run starts from: by the symbol of ``--finetune``, or of the file that
    ``--network`` names.
    """

    image_shape: Optional[Tuple[int, ...]]
    preprocessing: Optional[Preprocessing]
    stem: Optional[int]


def given(parser: argparse.ArgumentParser, argv: Optional[Sequence[str]]) -> Set[str]:
    """The names of the arguments that the command line ``argv`` gives, itself or by a recipe."""
    unset = object()
    names = vars(parser.parse_args([]))
    found = parser.parse_args(argv, argparse.Namespace(**dict.fromkeys(names, unset)))
    return {name for name, value in vars(found).items() if value is not unset}


def choose_network(args: argparse.Namespace, known: Set[str], sources: Dict[str, Source]) -> List[str]:
    """Set the image shape, the normalisation, the stem and the number of classes that are not ``known``: given by the
    user. Returns a line for the log about each choice. Raises UserError for a checkpoint that cannot be read.
    """
    training = sources['training']
    origin = _origin(args)
    lines = []
    if training.classes:
        lines.append(f'{len(training)} training images in {len(training.classes)} classes: {named(training.classes)}')
        if 'num_classes' not in known:
            args.num_classes = len(training.classes)
    else:
        lines.append(f'{len(training)} training images; the names of their classes are not known')
    if 'image_shape' not in known:
        shape, why = _shape(training, origin)
        args.image_shape = ','.join(map(str, shape))
        lines.append(f'--image-shape {args.image_shape}: {why}')
    if origin and origin.preprocessing and not known & {'rgb_mean', 'rgb_std'}:
        args.rgb_mean, args.rgb_std = origin.preprocessing.mean, origin.preprocessing.std
        lines.append('--rgb-mean and --rgb-std are those of the network that the run starts from')
    side = min(parse_image_shape(args.image_shape)[1:])
    if args.stem == AUTO and has_imagenet_stem(args.network, args.num_layers):
        smaller = 1 if side < NEEDS_STRIDE_1 else 2 if side < NEEDS_STRIDE_2 else None
        args.stem = origin.stem if origin else smaller
        if args.stem:
            why = 'as in the network that the run starts from' if origin else f'images of {side} pixels are small'
            lines.append(
                f"--stem {args.stem}: a 3×3 convolution of stride {args.stem} in the place of ImageNet's 7×7 and "
                f'pooling; {why}'
            )
    return lines


def choose_schedule(args: argparse.Namespace, known: Set[str], count: int) -> List[str]:
    """Set the batch, the epochs, the learning rate and γ that are not ``known`` by the ``count`` of training images,
    where there are fewer than LARGE_SET; returns a line for the log. The network must be chosen.
    """
    if count >= LARGE_SET:
        return []
    chosen: Dict[str, Any] = {}
    if 'batch_size' not in known:
        chosen['batch_size'] = _batch(count, len(contexts(args.gpus, args.cpus)))
    args.batch_size = chosen.get('batch_size', args.batch_size)
    steps = max(1, count // args.batch_size)
    if 'num_epochs' not in known:
        chosen['num_epochs'] = min(MOST_EPOCHS, max(LEAST_EPOCHS, -(-STEPS // steps)))
    if not known & {'lr_schedule', 'lr_step_epochs'}:
        chosen['lr_schedule'] = 'cosine'
    if 'lr' not in known:
        rate = AUTHORS_RATE * args.batch_size / AUTHORS_BATCH * (FINETUNING if args.finetune else 1)
        chosen['lr'] = float(f'{rate:.2g}')
    vars(args).update(chosen)
    if 'gamma' not in known and args.optimizer == 'apg' and not (args.target_macs or args.target_params):
        chosen['gamma'] = args.gamma = _gamma(args, steps)
    if not chosen:
        return []
    listed = ' '.join(f'--{name.replace("_", "-")} {value}' for name, value in chosen.items())
    return [f'Chosen for {count} training images, since not given: {listed}']


def _batch(count: int, devices: int) -> int:
    """A power of 2 that leaves some steps in an epoch, a multiple of the ``devices``; never more than the images."""
    batch = LARGEST_BATCH
    while batch > SMALLEST_BATCH and batch * STEPS_OF_AN_EPOCH > count or batch > max(count, 1):
        batch //= 2
    return batch + -batch % devices


def _gamma(args: argparse.Namespace, steps: int) -> float:
    """The γ that shrinks every λ by SHRINKAGE over the run, where no gradient holds it up."""
    shape = parse_image_shape(args.image_shape)
    with_one = argparse.Namespace(**{**vars(args), 'gamma': 1.0})
    optimizer = make_optimizer(with_one, network(args, shape, args.num_classes), steps)
    shrunk = cumulative_shrinkage(with_one, optimizer, steps)
    return float(f'{min(LARGEST_GAMMA, SHRINKAGE / shrunk[-1]):.2g}') if shrunk and shrunk[-1] else args.gamma


def _shape(training: Source, origin: Optional[Origin]) -> Tuple[Tuple[int, ...], str]:
    if origin and origin.image_shape:
        return origin.image_shape, 'as in the network that the run starts from'
    found = _shorter_sides(training)
    if not found:
        return (3, LARGEST_SIDE, LARGEST_SIDE), 'no image could be measured'
    median = int(statistics.median(found))
    side = min(LARGEST_SIDE, max(MULTIPLE, median // MULTIPLE * MULTIPLE))
    return (3, side, side), f'the shorter side of the images is {median} pixels in the median'


def _shorter_sides(source: Source) -> List[int]:
    """The shorter sides of up to SAMPLE images, by their headers; damaged ones are left to the training to name."""
    sides = []
    for position in range(0, len(source), -(-len(source) // SAMPLE)):
        try:
            with Image.open(io.BytesIO(source.read(position)[0])) as image:
                sides.append(min(image.size))
        except (DataError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue
    return sides


def _origin(args: argparse.Namespace) -> Optional[Origin]:
    if args.finetune:
        path = symbol_path(prefix_of(args.finetune))
    elif args.network.endswith('.json'):
        path = args.network
    else:
        return None
    symbol = load_symbol(path)
    return Origin(data_shape_of(symbol), preprocessing_of(symbol, path), _stem_of(symbol))


def _stem_of(symbol) -> Optional[int]:
    """The stride of a 3×3 convolution that a network of ours begins with, None where it has ImageNet's stem."""
    first = next((node for node in Graph.from_symbol(symbol).nodes() if node.op == 'Convolution'), None)
    if first is None or not first.attrs.get('kernel', '').startswith('(3'):
        return None
    return 2 if first.attrs.get('stride', '').startswith('(2') else 1
