"""How fast images are read, augmented and given to MXNet, so that the network need not wait for them."""

import argparse
from typing import List

from train.data.datasets import DATASETS, dataset_from_args, measure_throughput

from . import image_pipeline
from .report import TableRow


def measure(args: argparse.Namespace) -> List[TableRow]:
    """The rows of the table: for a data set in memory one with its augmentation and one without, by one core; for JPEGs
    one for each pipeline, by all cores.
    """
    if args.data_train or args.synthetic:
        return image_pipeline.measure(args)
    dataset = dataset_from_args(args)
    kinds = {'none': None, "the paper's": DATASETS[dataset.name].augmentation}
    return [
        {
            'data set': dataset.name,
            'augmentation': name,
            'images/s/core': measure_throughput(dataset, augmentation, args.batch_size, args.batches),
        }
        for name, augmentation in kinds.items()
    ]
