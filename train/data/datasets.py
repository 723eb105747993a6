"""The data sets by name, and MXNet's iterators over them.

``load_dataset`` gives arrays, ``train_iterator`` and ``eval_iterator`` give batches of them; ``add_data_args`` and
``dataset_from_args`` are the same for a command line. (ImageNet has too many images for arrays: see
``train.data.imagenet``.)
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from graphs.preprocessing import Preprocessing
from runtime.argument_types import divisors, numbers, positive, shape_of
from runtime.errors import DataError

from .arrays import Dataset, Images, Recycled
from .augment import CIFAR_AUGMENTATION, DIGITS_AUGMENTATION, RGB_MEAN, RGB_STD, Augmentation, PerChannel, Preprocessor
from .cifar import CIFAR10, CIFAR100
from .cifar_cache import load_cifar
from .class_names import CLASS_NAMES
from .digits import load_digits_split
from .speed import measure_throughput, test_io

if TYPE_CHECKING:
    from .iterators import EvalIterator, SyntheticIterator, TrainIterator

__all__ = [
    'DATASETS',
    'Dataset',
    'add_data_args',
    'dataset_from_args',
    'eval_iterator',
    'load_dataset',
    'measure_throughput',
    'preprocessing_for',
    'synthetic_data',
    'test_io',
    'train_iterator',
]


class DatasetInfo(NamedTuple):
    """What is known of a data set before it is read."""

    image_shape: Tuple[int, int, int]  # the default, (channels, height, width)
    num_classes: int
    augmentation: Augmentation
    any_shape: bool  # whether its images can be made in another shape


DATASETS = {
    'digits': DatasetInfo((3, 32, 32), 10, DIGITS_AUGMENTATION, any_shape=True),
    'cifar10': DatasetInfo((3, 32, 32), 10, CIFAR_AUGMENTATION, any_shape=False),
    'cifar100': DatasetInfo((3, 32, 32), 100, CIFAR_AUGMENTATION, any_shape=False),
    'synthetic': DatasetInfo((3, 32, 32), 10, Augmentation(), any_shape=True),
}

SYNTHETIC_EXAMPLES = 1024
SYNTHETIC_POOL = 64


def load_dataset(
    name: str,
    data_dir: Optional[str] = None,
    image_shape: Optional[Sequence[int]] = None,
    num_classes: Optional[int] = None,
    num_examples: Optional[int] = None,
) -> Dataset:
    """Read the data set ``name`` (a key of ``DATASETS``), CIFAR's from ``data_dir`` or else from MXNet's cache, which
    is filled over the network where it lacks files.

    ``image_shape``, ``num_classes`` and ``num_examples`` (training images, synthetic data only) replace the data set's
    own. Raises DataError where the name is unknown, a file is missing or damaged, or the data set does not have images
    of this shape or so few classes.
    """
    if name not in DATASETS:
        raise DataError(f'unknown data set {name!r}; known are {", ".join(DATASETS)}')
    info = DATASETS[name]
    shape = tuple(image_shape or info.image_shape)
    _check_shape(name, info, shape)
    num_classes = num_classes or info.num_classes
    if num_classes < info.num_classes and name != 'synthetic':
        raise DataError(f'{name} has {info.num_classes} classes, {num_classes} are too few; leave --num-classes out')
    return Dataset(name, *_read(name, data_dir, shape, num_classes, num_examples or SYNTHETIC_EXAMPLES), num_classes)


def train_iterator(
    dataset: Dataset,
    batch_size: int,
    seed: int,
    augment: bool = True,
    mean: PerChannel = RGB_MEAN,
    std: PerChannel = RGB_STD,
    part_index: int = 0,
    num_parts: int = 1,
) -> TrainIterator:
    """A ``DataIter`` over shuffled, augmented training batches that starts at epoch 0.

    * What a batch holds depends on ``seed`` (not negative), the epoch and its number alone: ``set_epoch(epoch,
      first_batch=0)`` goes to any place, and ``reset()`` to the next epoch. Images that do not fill a batch are left
      out of that epoch.
    * Of ``num_parts`` workers, number ``part_index`` gets its own part of each step, all parts being equally large.
      Together they see exactly what a single worker with ``num_parts`` times the batch size sees.

    Raises DataError where there are too few images for one step, or no such part.
    """
    from .iterators import TrainIterator  # loads MXNet, so not before the command line is read

    augmentation = DATASETS[dataset.name].augmentation if augment else None
    preprocessor = Preprocessor(dataset.image_shape, mean, std, augmentation)
    return TrainIterator(
        dataset.train_images, dataset.train_labels, batch_size, seed, preprocessor, part_index, num_parts
    )


def eval_iterator(
    dataset: Dataset,
    batch_size: int,
    mean: PerChannel = RGB_MEAN,
    std: PerChannel = RGB_STD,
    part_index: int = 0,
    num_parts: int = 1,
) -> EvalIterator:
    """A ``DataIter`` over every test image once, in order. The last batch is filled up with blank images of label -1,
    and its ``pad`` says how many.

    Worker ``part_index`` of ``num_parts`` gets images of its own; together they get all.
    """
    from .iterators import EvalIterator

    return EvalIterator(
        dataset.test_images,
        dataset.test_labels,
        batch_size,
        Preprocessor(dataset.image_shape, mean, std),
        part_index,
        num_parts,
    )


def synthetic_data(
    batch_size: int,
    image_shape: Sequence[int] = (3, 224, 224),
    num_classes: int = 1000,
    num_examples: int = 1281167,
    seed: int = 0,
) -> SyntheticIterator:
    """A ``DataIter`` that returns one fixed batch of noise as often as ``num_examples`` images need it, at no cost: for
    benchmarks of the network.
    """
    from .iterators import SyntheticIterator

    return SyntheticIterator(batch_size, tuple(image_shape), num_classes, num_examples, seed)


def add_data_args(parser: argparse.ArgumentParser, more: Sequence[str] = ()) -> argparse._ArgumentGroup:
    """Add the options that choose, find and prepare the data to a parser; returns the group. A script sets its own
    ``--dataset`` default.

    ``more`` are data sets that the script can read besides.
    """
    group = parser.add_argument_group('data')
    group.add_argument(
        '--dataset',
        choices=[*DATASETS, *more],
        default='cifar10',
        help='digits needs no download; synthetic is noise, to try things out',
    )
    group.add_argument(
        '--data-dir',
        metavar='FOLDER',
        help='CIFAR files that you already have: the folder of the binary or the python version, the '
        "tar.gz of either, or the folder around them (left out: MXNet's cache, filled over the network when it is "
        'empty)',
    )
    group.add_argument(
        '--image-shape',
        type=shape_of,
        metavar='C,H,W',
        help="shape of the network's input (default: the data set's, 3,32,32)",
    )
    group.add_argument(
        '--num-classes', type=positive, metavar='N', help="outputs of the network (default: the data set's)"
    )
    group.add_argument(
        '--num-examples',
        type=positive,
        metavar='N',
        help='training images per epoch of synthetic data and benchmarks; real data sets have their own number',
    )
    group.add_argument(
        '--rgb-mean',
        type=numbers,
        default=RGB_MEAN,
        metavar='R,G,B',
        help="subtracted from pixels of 0..255 (default: the authors' ImageNet constants, for CIFAR too)",
    )
    group.add_argument(
        '--rgb-std', type=divisors, default=RGB_STD, metavar='R,G,B', help='what pixels are then divided by'
    )
    switch = group.add_mutually_exclusive_group()
    switch.add_argument(
        '--augment',
        dest='augment',
        action='store_true',
        default=True,
        help='CIFAR: shift by up to 4 pixels and mirror; digits: shift by up to 2 pixels (the default)',
    )
    switch.add_argument(
        '--no-augment',
        dest='augment',
        action='store_false',
        help='train on the images as they are, to see over-fitting or to debug',
    )
    return group


def preprocessing_for(args: argparse.Namespace, image_shape: Tuple[int, ...], num_classes: int) -> Preprocessing:
    """How images must be prepared for a network that is trained by the options of ``add_data_args``."""
    names = CLASS_NAMES.get(args.dataset, ())
    mean, std = (tuple(np.atleast_1d(value).tolist()) for value in (args.rgb_mean, args.rgb_std))
    return Preprocessing(mean, std, max(image_shape[1:]), names if len(names) == num_classes else (), args.dataset)


def dataset_from_args(args: argparse.Namespace) -> Dataset:
    """``load_dataset`` by the options of ``add_data_args``."""
    return load_dataset(args.dataset, args.data_dir, args.image_shape, args.num_classes, args.num_examples)


def _read(
    name: str, data_dir: Optional[str], image_shape: Tuple[int, ...], num_classes: int, num_examples: int
) -> Tuple[Images, np.ndarray, Images, np.ndarray]:
    """(train images, train labels, test images, test labels)"""
    if name == 'digits':
        _, height, width = image_shape
        return load_digits_split(height, width)
    if name == 'synthetic':
        return _noise(num_examples, image_shape, num_classes, seed=1) + _noise(
            -(-num_examples // 4), image_shape, num_classes, seed=2
        )
    return load_cifar({'cifar10': CIFAR10, 'cifar100': CIFAR100}[name], data_dir)


def _noise(count, image_shape, num_classes, seed):
    generator = np.random.default_rng(seed)
    pool = generator.integers(0, 256, (min(count, SYNTHETIC_POOL), *image_shape), np.uint8)
    labels = generator.integers(0, num_classes, len(pool)).astype(np.int32)
    return Recycled(pool, count), np.resize(labels, count)


def _check_shape(name, info, shape):
    if len(shape) != 3 or min(shape) < 1:
        raise DataError(f'an image shape is channels,height,width, not {",".join(map(str, shape))}')
    if shape == info.image_shape or (info.any_shape and (name == 'synthetic' or shape[0] == 3)):
        return
    possible = '3,H,W' if info.any_shape else ','.join(map(str, info.image_shape))
    raise DataError(f'{name} has images of {possible}, not {",".join(map(str, shape))}')
