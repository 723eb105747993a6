"""ImageNet, or any set of images like it, from record files or folders to MXNet's iterators: the options, and what they
stand for.
"""

import os
from typing import Any, NamedTuple, Optional

from runtime import usable_cores
from runtime.argument_types import divisors, from_zero_to_one, numbers, positive
from runtime.errors import DataError

from .augment import RGB_MEAN, RGB_STD
from .decoder_pool import DecoderPool
from .image_augment import DRAWS, CentreView, ImageAugmentation, RandomView
from .image_iterators import Damage, ImageEvalIterator, ImageTrainIterator
from .image_sources import FolderSource, ImageReader, RecordSource

RECIPE = ImageAugmentation()


class ImageNet(NamedTuple):
    """The iterators of a data set (``train`` is None where only validation was asked for) and the processes behind
    both.
    """

    train: Optional[Any]
    validation: Any
    pool: DecoderPool


def add_imagenet_args(parser, with_training=True):
    """Add the options that find and prepare images to a parser; their names are those of MXNet's own scripts. Returns
    the group.
    """
    group = parser.add_argument_group('images')
    group.add_argument('--data-val', metavar='REC', help='the record file to validate with, its .idx beside it')
    group.add_argument('--data-val-idx', metavar='IDX', help='its index, where that is elsewhere')
    group.add_argument(
        '--resize',
        type=positive,
        metavar='N',
        help='validation: the shorter side becomes N pixels, and the centre is cut out (left out: 256 '
        'for 224 pixels, in proportion for other shapes)',
    )
    group.add_argument(
        '--data-nthreads', type=positive, metavar='N', help='processes that decode images (left out: one a core)'
    )
    group.add_argument(
        '--max-bad',
        type=from_zero_to_one,
        default=0.001,
        metavar='SHARE',
        help='more damaged images than this share of a data set end the run; fewer '
        'are left out and named in the log (default: %(default)s)',
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
        'for each class; slower on a disk that turns',
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


def imagenet_from_args(args, image_shape, num_classes, batch_size, with_training=True, part_index=0, num_parts=1):
    """The ``ImageNet`` that the options of ``add_imagenet_args`` ask for.

    Of ``num_parts`` workers, number ``part_index`` gets its part of each training step, as ``train_iterator`` has it,
    and of the validation images. Raises DataError where there is no such data, or it does not fit ``image_shape`` or
    ``num_classes``; OSError for a file that cannot be opened.
    """
    if len(image_shape) != 3 or image_shape[0] != 3:
        raise DataError(
            f'images have three channels, not the {image_shape[0]} of --image-shape {",".join(map(str, image_shape))}'
        )
    check_paths(args, with_training)
    normalisation = args.rgb_mean, args.rgb_std
    resize = args.resize or (max(image_shape[1:]) * 256 + 112) // 224
    found = {'validation': _source(args, 'val', num_classes)}
    views = {'validation': CentreView(image_shape, resize, *normalisation)}
    if with_training:
        found['training'], views['training'] = (
            _source(args, 'train', num_classes),
            RandomView(image_shape, _augmentation(args), *normalisation),
        )
        _check_same_classes(args, found)
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


def check_paths(args, with_training=True):
    """Raise DataError unless the options say where the images are, and files and folders of these names exist."""
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
    for path in filter(None, [args.data_dir, *records]):
        if not os.path.exists(path):
            raise DataError(f'{path}: no such {"folder" if path == args.data_dir else "file"}')


def _source(args, part, num_classes):
    if not args.data_dir:
        return RecordSource(getattr(args, f'data_{part}'), getattr(args, f'data_{part}_idx'))
    source = FolderSource(os.path.join(args.data_dir, part))
    if len(source.classes) != num_classes:
        raise DataError(
            f'{args.data_dir}/{part} has {len(source.classes)} class folders, the network {num_classes} classes; mind '
            '--num-classes'
        )
    return source


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
