"""Train a network with scaling factors on ImageNet, or on images like it, by the authors' recipe."""

import logging

from runtime.argument_types import positive
from runtime.cli import run
from symbols import parse_image_shape
from train.arguments import training_parser
from train.build import check_arguments
from train.data.datasets import synthetic_data, test_io
from train.data.imagenet import add_imagenet_args, check_paths, imagenet_from_args
from train.distributed.group import group_of
from train.distributed.server import serve
from train.fit import fit
from train.log import open_log

TRAINING_IMAGES = 1281167


def parser():
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


def main(argv=None):
    serve()  # does not return in a parameter server
    args = parser().parse_args(argv)
    shape = parse_image_shape(args.image_shape)
    if not args.benchmark:
        check_paths(args)
    check_arguments(args, shape, args.num_classes)
    with group_of(args) as group:
        open_log(rank=group.rank)
        if args.benchmark:
            train = validation = synthetic_data(
                args.batch_size, shape, args.num_classes, (args.num_examples or TRAINING_IMAGES) // group.size
            )
        else:
            train, validation, _ = imagenet_from_args(
                args, shape, args.num_classes, args.batch_size, part_index=group.rank, num_parts=group.size
            )
        if args.test_io:
            logging.info('%.1f images/s over the epoch', test_io(train))
            return 0
        return fit(args, train, validation, shape, args.num_classes, top_k=5, group=group)


if __name__ == '__main__':
    run(main)
