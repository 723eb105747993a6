"""Train a network with scaling factors on CIFAR-10, CIFAR-100 or, without any download, on scikit-learn's handwritten
digits.
"""

from typing import Optional, Sequence

from runtime.cli import run
from symbols import parse_image_shape
from train.arguments import RecipeParser, training_parser
from train.build import check_arguments
from train.data.datasets import (
    DATASETS,
    add_data_args,
    dataset_from_args,
    eval_iterator,
    preprocessing_for,
    synthetic_data,
    test_io,
    train_iterator,
)
from train.distributed.group import group_of
from train.distributed.role import serve
from train.engines.interface import Batches
from train.fit import fit
from train.log import open_log


def parser() -> RecipeParser:
    """The parser of this script, with the defaults of the paper's section 4.1."""
    made = training_parser(__doc__)
    add_data_args(made)
    made.set_defaults(
        network='resnet', num_layers=20, batch_size=64, num_epochs=240, lr=0.1, lr_step_epochs='120,160', wd=1e-4
    )
    return made


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Train as the command line ``argv`` says; returns the exit code."""
    serve()  # does not return in a parameter server
    args = parser().parse_args(argv)
    shape = parse_image_shape(args.image_shape or DATASETS[args.dataset].image_shape)
    classes = args.num_classes or DATASETS[args.dataset].num_classes
    check_arguments(args, shape, classes)
    with group_of(args) as group:
        open_log(rank=group.rank)
        train: Batches
        val: Batches
        if args.benchmark:
            train = val = synthetic_data(args.batch_size, shape, classes, (args.num_examples or 50000) // group.size)
        else:
            dataset = dataset_from_args(args)
            share = {'part_index': group.rank, 'num_parts': group.size}
            train = train_iterator(
                dataset, args.batch_size, args.seed, args.augment, args.rgb_mean, args.rgb_std, **share
            )
            val = eval_iterator(dataset, args.batch_size, args.rgb_mean, args.rgb_std, **share)
        if args.test_io:
            test_io(train)
            return 0
        preprocessing = None if args.benchmark else preprocessing_for(args, shape, classes)
        return fit(args, train, val, shape, classes, group=group, preprocessing=preprocessing)


if __name__ == '__main__':
    run(main)
