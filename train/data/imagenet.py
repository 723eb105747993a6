"""ImageNet, or any set of images like it, from record files or folders to MXNet's iterators, by the options of a
command line.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Dict, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from graphs.preprocessing import IMAGES, Preprocessing
from runtime import usable_cores
from runtime.argument_types import divisors, from_zero_to_one, numbers, processes, side
from runtime.errors import DataError

from .augment import RGB_MEAN, RGB_STD
from .decoder_pool import DecoderPool
from .image_augment import DRAWS, CentreView, ImageAugmentation, RandomView
from .image_exact import ExactCentreView, ExactRandomView
from .image_sources import FolderSource, ImageReader, RecordSource, Source, named

if TYPE_CHECKING:
    from .image_iterators import ImageEvalIterator, ImageTrainIterator

RECIPE = ImageAugmentation()


class ImageNet(NamedTuple):
    """The iterators of a data set (``train`` is None where only validation was asked for) and the processes behind
    both.
    """

    train: Optional[ImageTrainIterator]
    validation: ImageEvalIterator
    pool: DecoderPool


def add_imagenet_args(parser: argparse.ArgumentParser, with_training: bool = True) -> argparse._ArgumentGroup:
    """Add the options that find and prepare images to a parser; their names are those of MXNet's own scripts. Returns
    the group.
    """
    group = parser.add_argument_group('images')
    group.add_argument('--data-val', metavar='REC', help='the record file to validate with, its .idx beside it')
    group.add_argument('--data-val-idx', metavar='IDX', help='its index, where that is elsewhere')
    group.add_argument(
        '--resize',
        type=side,
        metavar='N',
        help='validation: the shorter side becomes N pixels, and the centre is cut out (left out: 256 '
        'for 224 pixels, in proportion for other shapes)',
    )
    group.add_argument(
        '--data-nthreads', type=processes, metavar='N', help='processes that decode images (left out: one a core)'
    )
    group.add_argument(
        '--max-bad',
        type=from_zero_to_one,
        default=0.001,
        metavar='SHARE',
        help='more damaged images than this share of a data set end the run; fewer '
        'are left out and named in the log (default: %(default)s)',
    )
    group.add_argument(
        '--exact-pipeline',
        type=int,
        choices=(0, 1),
        default=0,
        help="1: pixels to the last bit as in the authors' iterator: JPEGs are decoded at full size, OpenCV rounds as "
        'in MXNet 1.9.1'
        + (
            ', and an image that no random crop fits in is scaled before its centre is cut out; sets '
            '--first-rate-late. Slower'
            if with_training
            else ', for a network that was trained so'
        ),
    )
    if with_training:
        _add_training(group)
    return group


def _add_training(group):
    group.add_argument('--data-train', metavar='REC', help='the record file to train with, its .idx beside it')
    group.add_argument('--data-train-idx', metavar='IDX', help='its index, where that is elsewhere')
    group.add_argument(
        '--data-dir',
        metavar='FOLDER',
        help='in the place of record files: a folder with train/ and val/ in it, which hold a folder of images '
        'for each class, or with train.rec and val.rec. Shape, classes, schedule, batch and γ that are not given are '
        'chosen by the images, and the log says how',
    )
    group.add_argument(
        '--rgb-mean', type=numbers, default=RGB_MEAN, metavar='R,G,B', help='subtracted from pixels of 0..255'
    )
    group.add_argument(
        '--rgb-std', type=divisors, default=RGB_STD, metavar='R,G,B', help='what pixels are then divided by'
    )
    group.add_argument(
        '--min-random-area',
        type=from_zero_to_one,
        default=RECIPE.area[0],
        metavar='A',
        help='the smallest crop to train on, as a share of the image',
    )
    for name in ('brightness', 'contrast', 'saturation'):
        group.add_argument(
            f'--{name}',
            type=from_zero_to_one,
            default=getattr(RECIPE, name),
            metavar='X',
            help=f'{name} is multiplied by 1 ± X',
        )
    group.add_argument(
        '--pca-noise',
        type=from_zero_to_one,
        default=RECIPE.pca_noise,
        metavar='X',
        help='standard deviation of the noise on colours',
    )
    group.add_argument(
        '--random-mirror', type=int, choices=(0, 1), default=1, help='1: swap left and right, half of the time'
    )


def imagenet_from_args(
    args: argparse.Namespace,
    image_shape: Tuple[int, ...],
    num_classes: int,
    batch_size: int,
    with_training: bool = True,
    part_index: int = 0,
    num_parts: int = 1,
    sources: Optional[Dict[str, Source]] = None,
) -> ImageNet:
    """The ``ImageNet`` that the options of ``add_imagenet_args`` ask for; ``sources`` are those of ``open_sources``,
    where these are open already.

    Of ``num_parts`` workers, number ``part_index`` gets its part of each training step, as ``train_iterator`` has it,
    and of the validation images. Raises DataError where there is no such data, or it does not fit ``image_shape`` or
    ``num_classes``; OSError for a file that cannot be opened.
    """
    from .image_iterators import Damage, ImageEvalIterator, ImageTrainIterator  # load MXNet, so not before it is needed

    if len(image_shape) != 3 or image_shape[0] != 3:
        raise DataError(
            f'images have three channels, not the {image_shape[0]} of --image-shape {",".join(map(str, image_shape))}'
        )
    found = sources or open_sources(args, with_training)
    for part, source in found.items():
        _check_classes(args, part, source, num_classes)
    normalisation = args.rgb_mean, args.rgb_std
    centre_view, random_view = (ExactCentreView, ExactRandomView) if args.exact_pipeline else (CentreView, RandomView)
    views: Dict[str, Union[CentreView, RandomView]] = {
        'validation': centre_view(image_shape, resize_of(args, image_shape), *normalisation)
    }
    if with_training:
        views['training'] = random_view(image_shape, _augmentation(args), *normalisation)
    readers = [ImageReader(source, views[part], num_classes) for part, source in found.items()]
    pool = DecoderPool(readers, image_shape, batch_size, DRAWS, args.data_nthreads or usable_cores())
    damage = {part: Damage(part, len(source), args.max_bad) for part, source in found.items()}
    common = image_shape, batch_size
    validation = ImageEvalIterator(
        pool, 0, *common, damage['validation'], len(found['validation']), part_index, num_parts
    )
    if not with_training:
        return ImageNet(None, validation, pool)
    train = ImageTrainIterator(
        pool,
        1,
        *common,
        damage['training'],
        len(found['training']),
        args.seed,
        part_index,
        num_parts,
        args.num_examples,
        found['training'],
    )
    return ImageNet(train, validation, pool)


def open_sources(
    args: argparse.Namespace, with_training: bool = True, classes: Sequence[str] = ()
) -> Dict[str, Source]:
    """The images that the options ask for: 'validation' and, ``with_training``, 'training'. ``classes`` fixes the
    classes of folders, where they are known. Raises DataError as ``imagenet_from_args`` does.
    """
    check_paths(args, with_training)
    found = {'validation': _source(args, 'val', classes)}
    if with_training:
        found['training'] = _source(args, 'train', classes)
        _check_same_classes(args, found)
    return found


def resize_of(args: argparse.Namespace, image_shape: Tuple[int, ...]) -> int:
    """The pixels that the shorter side of an image is scaled to, before the centre of ``image_shape`` is cut out."""
    return args.resize or (max(image_shape[1:]) * 256 + 112) // 224


def preprocessing_for(
    args: argparse.Namespace, image_shape: Tuple[int, ...], classes: Sequence[str] = ()
) -> Preprocessing:
    """How images must be prepared for a network that is trained by these options."""
    mean, std = (tuple(np.atleast_1d(value).tolist()) for value in (args.rgb_mean, args.rgb_std))
    return Preprocessing(mean, std, resize_of(args, image_shape), tuple(classes), IMAGES)


def find_records(args: argparse.Namespace) -> None:
    """Where ``--data-dir`` is a folder with train.rec and val.rec, set the options of record files to these, as in the
    authors' scripts.
    """
    folder = args.data_dir
    if not folder or os.path.isdir(os.path.join(folder, 'val')):
        return
    for part in ('train', 'val'):
        path = os.path.join(folder, f'{part}.rec')
        if hasattr(args, f'data_{part}') and not getattr(args, f'data_{part}') and os.path.isfile(path):
            setattr(args, f'data_{part}', path)
            args.data_dir = None


def check_paths(args: argparse.Namespace, with_training: bool = True) -> None:
    """Raise DataError unless the options say where the images are, and files and folders of these names exist."""
    find_records(args)
    parts = ('train', 'val') if with_training else ('val',)
    records = [getattr(args, f'data_{part}') for part in parts]
    wanted = ' and '.join(f'--data-{part} {part}.rec' for part in parts)
    if args.data_dir and any(records):
        raise DataError(f'give either {wanted}, or --data-dir, not both')
    if not args.data_dir and not all(records):
        raise DataError(
            f'no images: give {wanted} (tools/make_record.py makes them), or --data-dir with train/ and val/ in it; '
            '--benchmark 1 needs none'
            if with_training
            else f'no images: give {wanted}, or --data-dir with val/ in it'
        )
    for path in [args.data_dir, *records]:
        if path and not os.path.exists(path):
            raise DataError(f'{path}: no such {"folder" if path == args.data_dir else "file"}')


def _source(args, part, classes):
    if not args.data_dir:
        return RecordSource(getattr(args, f'data_{part}'), getattr(args, f'data_{part}_idx'))
    return FolderSource(os.path.join(args.data_dir, part), classes)


def _check_classes(args, part, source, num_classes):
    if args.data_dir and len(source.classes) != num_classes:
        raise DataError(
            f'{args.data_dir}/{"train" if part == "training" else "val"} has {len(source.classes)} class folders '
            f'({named(source.classes)}), the network {num_classes} classes; check --num-classes'
        )


def _check_same_classes(args, found):
    if args.data_dir and found['training'].classes != found['validation'].classes:
        different = sorted(set(found['training'].classes) ^ set(found['validation'].classes))[0]
        raise DataError(
            f'{args.data_dir}: train/ and val/ have different class folders; {different!r} is in one of them only'
        )


def _augmentation(args):
    return RECIPE._replace(
        area=(args.min_random_area, RECIPE.area[1]),
        brightness=args.brightness,
        contrast=args.contrast,
        saturation=args.saturation,
        pca_noise=args.pca_noise,
        mirror=bool(args.random_mirror),
    )
