"""Train a network with scaling factors on ImageNet, or on images like it, by the authors' recipe; on your own images in
folders, by settings that fit them.
"""

import argparse
import logging
from typing import Optional, Sequence

from runtime.argument_types import positive
from runtime.cli import run
from runtime.errors import UserError
from symbols import parse_image_shape
from train import small_sets
from train.arguments import training_parser
from train.build import check_arguments
from train.data.datasets import synthetic_data, test_io
from train.data.imagenet import (
    add_imagenet_args,
    check_paths,
    imagenet_from_args,
    open_sources,
    preprocessing_for,
)
from train.distributed.group import group_of
from train.distributed.role import serve
from train.engines.interface import Batches
from train.finetune import name_checkpoint
from train.fit import fit
from train.log import open_log

TRAINING_IMAGES = 1281167


def parser() -> argparse.ArgumentParser:
    """The parser of this script."""
    made = training_parser(__doc__)
    group = add_imagenet_args(made)
    group.add_argument('--image-shape', default='3,224,224', metavar='C,H,W', help="shape of the network's input")
    group.add_argument('--num-classes', type=positive, default=1000, help='outputs of the network')
    group.add_argument(
        '--num-examples',
        type=positive,
        metavar='N',
        help='images of an epoch, which the schedule counts in (left out: all there are; '
        f"{TRAINING_IMAGES}, ImageNet's, with --benchmark 1)",
    )
    group.add_argument(
        '--stem',
        choices=(small_sets.AUTO, small_sets.IMAGENET_STEM, '2', '1'),
        default=small_sets.AUTO,
        help="the first layers of resnet and resnext: ImageNet's, or a 3×3 convolution of stride 2 or 1 for small "
        "images; auto: ImageNet's, but with --data-dir by the size of the images, or as in --finetune",
    )
    # Section 4.2 of the paper and the authors' scripts: 4 cards of 32 images each.
    made.set_defaults(
        network='resnet',
        num_layers=50,
        batch_size=128,
        num_epochs=100,
        lr=0.1,
        lr_step_epochs='30,60,90',
        wd=1e-4,
        gamma=0.01,
    )
    return made


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Train as the command line ``argv`` says; returns the exit code."""
    serve()  # does not return in a parameter server
    args = parser().parse_args(argv)
    args.first_rate_late |= bool(args.exact_pipeline)
    by_the_images = bool(args.data_dir) and not args.benchmark
    sources, notes = None, []
    if not args.benchmark:
        check_paths(args)
    if by_the_images:
        open_log(quiet=args.quiet)
        known = small_sets.given(parser(), argv)
        name_checkpoint(args)
        sources = open_sources(args)
        notes = small_sets.choose_network(args, known, sources)
        notes += small_sets.choose_schedule(args, known, args.num_examples or len(sources['training']))
    args.stem = int(args.stem) if str(args.stem).isdecimal() else None  # as older runs have it in their manifests
    shape = parse_image_shape(args.image_shape)
    check_arguments(args, shape, args.num_classes)
    with group_of(args) as group:
        open_log(rank=group.rank)
        preprocessing = None
        train: Batches
        validation: Batches
        if args.benchmark:
            train = validation = synthetic_data(
                args.batch_size, shape, args.num_classes, (args.num_examples or TRAINING_IMAGES) // group.size
            )
        else:
            sources = sources or open_sources(args)
            classes = sources['training'].classes
            if len(classes) not in (0, args.num_classes):
                raise UserError(
                    f'the images have {len(classes)} classes, the network {args.num_classes}; check --num-classes'
                )
            found = imagenet_from_args(
                args, shape, args.num_classes, args.batch_size, True, group.rank, group.size, sources
            )
            assert found.train is not None  # with_training
            train, validation = found.train, found.validation
            preprocessing = preprocessing_for(args, shape, classes)
        if args.test_io:
            logging.info('%.1f images/s over the epoch', test_io(train))
            return 0
        return fit(args, train, validation, shape, args.num_classes, 5, group, preprocessing, notes)


if __name__ == '__main__':
    run(main)
