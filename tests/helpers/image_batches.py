"""Batches of the ImageNet pipeline over thirty small images, which the fixtures ``rec``, ``open_images`` and ``images``
make, and what is in them.
"""

import argparse

import numpy as np

from helpers.jpegs import jpeg, save_records
from train.data.imagenet import add_imagenet_args, imagenet_from_args

SHAPE = (3, 32, 32)
COUNT = 30


def save_images(folder):
    """30 images of 3 classes in a record file; returns the name of the .rec."""
    return save_records(folder / 'train', [jpeg(number) for number in range(COUNT)])


def open_images(*flags, batch_size=8, num_classes=3, shape=SHAPE, processes=1, **parts):
    """Open data with the command line's options; its ``pool`` is to be closed."""
    parser = argparse.ArgumentParser()
    add_imagenet_args(parser).add_argument('--num-examples', type=int)
    parser.set_defaults(seed=7)
    return imagenet_from_args(
        parser.parse_args([*map(str, flags), '--data-nthreads', str(processes)]),
        shape,
        num_classes,
        batch_size,
        **parts,
    )


def contents(batch):
    return batch.data[0].asnumpy().copy(), batch.label[0].asnumpy(), batch.pad, batch.index.tolist()


def epoch_of(iterator):
    return [contents(batch) for batch in iterator]


def assert_same(some, others):
    assert len(some) == len(others)
    for one, other in zip(some, others):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])
        assert one[2:] == other[2:]
