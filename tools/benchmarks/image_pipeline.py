"""Decoding and augmenting JPEGs of a record file: ours and MXNet's, compared with OpenCV that only decodes the same
images.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from typing import TYPE_CHECKING, List

import numpy as np

from runtime import mx, usable_cores
from runtime.packages import cv2
from train.data.augment import RGB_MEAN, RGB_STD
from train.data.decoder_pool import DecoderPool
from train.data.decoder_worker import Reader
from train.data.image_augment import DRAWS, ImageAugmentation, RandomView
from train.data.image_sources import ImageReader, RecordSource

from . import training
from .alternating import RunSteps, time_alternating
from .report import TableRow, milliseconds
from .synthetic_jpegs import write_records

if TYPE_CHECKING:
    from train.data.image_iterators import ImageTrainIterator

SHAPE, CLASSES = (3, 224, 224), 1000
LIMIT = 'cv2.imdecode alone'


def measure(args: argparse.Namespace) -> List[TableRow]:
    """One row for each candidate, the limit (bare decoding) first; and one for the network of ``--network``, in rounds
    of its own, since its steps are far longer.
    """
    rec = args.data_train or write_records(args.scratch or tempfile.gettempdir(), args.synthetic)
    builds = {LIMIT: bare, 'ours': ours, 'ImageRecordIter': stock}
    measured = time_alternating(
        {name: partial(build, rec, args.batch_size, args.seed) for name, build in builds.items()},
        args.rounds,
        args.steps,
        args.clock,
    )
    limit = measured[LIMIT]
    rows = [_row(name, result, args.batch_size, 1 / result.time_over(limit)) for name, result in measured.items()]
    if args.network:
        build = partial(
            training.training,
            training.mxnet_engine,
            args.network,
            args.num_layers,
            CLASSES,
            ','.join(map(str, SHAPE)),
            args.batch_size,
            *training.LAMBDAS['weight'],
        )
        result = time_alternating({'step': build}, args.rounds, steps=1, clock=args.clock)['step']
        rows.append(
            _row(
                f'a training step of {args.network}-{args.num_layers}',
                result,
                args.batch_size,
                limit.median / result.median,
            )
        )
    return rows


def _row(name, result, batch_size, of_the_limit):
    return {
        'pipeline': name,
        'images/s': batch_size / result.median,
        'of the limit': of_the_limit,
        'MiB at first': round(result.held_bytes[0] / 2**20),
        'MiB at last': round(result.held_bytes[-1] / 2**20),
        **milliseconds(result),
    }


class BareReader:
    """Decodes images and does nothing else."""

    def __init__(self, source: RecordSource) -> None:
        self._source = source

    def read_into(self, out: np.ndarray, position: int, draws: np.ndarray) -> float:
        """Decode the image at ``position`` and return its class; ``out`` and ``draws`` are not used."""
        data, label = self._source.read(position)
        cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        return label


def bare(rec: str, batch_size: int, seed: int) -> RunSteps:
    """The limit: as many processes as there are cores only decode images."""
    source = RecordSource(rec)
    return turns_of(iterator(source, BareReader(source), batch_size, seed))


def ours(rec: str, batch_size: int, seed: int) -> RunSteps:
    """The pipeline of train_imagenet.py."""
    source = RecordSource(rec)
    return turns_of(iterator(source, ImageReader(source, RandomView(SHAPE), CLASSES), batch_size, seed))


def iterator(source: RecordSource, reader: Reader, batch_size: int, seed: int) -> ImageTrainIterator:
    """An iterator over ``source`` by as many processes as there are cores."""
    from train.data.image_iterators import Damage, ImageTrainIterator  # load MXNet

    pool = DecoderPool([reader], SHAPE, batch_size, DRAWS, usable_cores())
    return ImageTrainIterator(pool, 0, SHAPE, batch_size, Damage('training', len(source), 0.0), len(source), seed)


def stock(rec: str, batch_size: int, seed: int) -> RunSteps:
    """MXNet's own iterator with the same augmentation."""
    recipe = ImageAugmentation()
    options = {
        f'{name}_{channel}': value
        for name, values in (('mean', RGB_MEAN), ('std', RGB_STD))
        for channel, value in zip('rgb', values)
    }
    return turns_of(
        mx.io.ImageRecordIter(
            path_imgrec=rec,
            data_shape=SHAPE,
            batch_size=batch_size,
            preprocess_threads=usable_cores(),
            shuffle=True,
            seed=seed,
            verbose=False,
            inter_method=2,
            random_resized_crop=True,
            min_random_area=recipe.area[0],
            max_random_area=recipe.area[1],
            min_aspect_ratio=recipe.aspect[0],
            max_aspect_ratio=recipe.aspect[1],
            brightness=recipe.brightness,
            contrast=recipe.contrast,
            saturation=recipe.saturation,
            pca_noise=recipe.pca_noise,
            rand_mirror=recipe.mirror,
            **options,
        )
    )


def turns_of(batches: mx.io.DataIter) -> RunSteps:
    """Steps through an iterator, again and again; each waits until the batch is in MXNet's memory."""

    def run_steps(steps):
        for _ in range(steps):
            try:
                batch = batches.next()
            except StopIteration:
                batches.reset()
                batch = batches.next()
            batch.data[0].wait_to_read()

    return run_steps
