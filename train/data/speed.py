"""How fast batches come: of an iterator, and of one core that makes them."""

import logging
import time

from .augment import Preprocessor


def test_io(iterator, frequent=20):  # noqa: PT028  (the name is that of MXNet's option, it is no test)
    """Run through one epoch of ``iterator`` with no network and log its speed every ``frequent`` batches, as MXNet's
    ``--test-io 1`` does.

    Returns images per second over the whole epoch.
    """
    start = tick = time.perf_counter()
    batches = 0
    for batches, batch in enumerate(iterator, 1):
        # Waiting for the copy into MXNet's memory is part of the price.
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


def measure_throughput(dataset, augmentation, batch_size=64, batches=2000):
    """Images that one core turns into shuffled, augmented, normalised float32 batches in MXNet's memory, per second of
    processor time.

    Processor time is what the network does without, whatever else the machine is busy with.
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
