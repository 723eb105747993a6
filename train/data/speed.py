"""How many images per second an iterator makes, and how many one core makes."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Optional

from .arrays import Dataset
from .augment import Augmentation, Preprocessor

if TYPE_CHECKING:
    from train.engines.interface import Batches


def test_io(iterator: Batches, frequent: int = 20) -> float:  # noqa: PT028  (MXNet's name for an option, not a test)
    """Run through one epoch of ``iterator`` with no network and log its speed every ``frequent`` batches, as MXNet's
    ``--test-io 1`` does.

    Returns images per second over the whole epoch.
    """
    start = tick = time.perf_counter()
    batches = 0
    for batches, batch in enumerate(iterator, 1):
        # The time of the copy into MXNet's memory counts too.
        batch.data[0].wait_to_read()
        if batches % frequent == 0:
            now = time.perf_counter()
            logging.info(
                'Epoch[%d] Batch [%d]\tSpeed: %.2f samples/sec',
                iterator.epoch,
                batches,
                frequent * iterator.batch_size / (now - tick),
            )
            tick = now
    return batches * iterator.batch_size / (time.perf_counter() - start)


# Where a test file imports it, pytest must not take it for a test either.
test_io.__test__ = False  # type: ignore[attr-defined]


def measure_throughput(
    dataset: Dataset, augmentation: Optional[Augmentation], batch_size: int = 64, batches: int = 2000
) -> float:
    """Images that one core turns into shuffled, augmented, normalised float32 batches in MXNet's memory, per second of
    processor time.

    Processor time is what the network loses, however busy the machine is with other work.
    """
    from .iterators import TrainIterator  # loads MXNet, so not before the command line is read

    preprocessor = Preprocessor(dataset.train_images.shape[1:], augmentation=augmentation)
    iterator = TrainIterator(dataset.train_images, dataset.train_labels, batch_size, 0, preprocessor)
    done, start = 0, time.process_time()
    while done < batches:
        test_io(iterator, frequent=len(iterator) + 1)
        iterator.reset()
        done += len(iterator)
    return done * batch_size / (time.process_time() - start)
