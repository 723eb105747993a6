"""Batches for MXNet, each a pure function of the seed, the epoch and its place in the epoch.

There is no prefetching thread. A batch of 64 CIFAR images takes 0.6 ms (``measure_throughput``), MXNet computes
asynchronously meanwhile, and where MXNet already uses all cores, a second thread only takes time from it. Without one,
no batch is half prepared when a run is stopped or resumed.
"""

from __future__ import annotations

from typing import Any, Dict, Optional, Sequence, Tuple

import numpy as np

from runtime import mx
from runtime.errors import DataError

from .arrays import NO_CLASS, Images, Recycled
from .augment import Draws, Preprocessor
from .fingerprint import fingerprint


class BatchIterator(mx.io.DataIter):
    """Batches of one size with 'data' (B, C, H, W) float32 and 'softmax_label' (B,), numbered from 0 in each epoch.
    ``len`` is batches per epoch.
    """

    def __init__(self, image_shape: Sequence[int], batch_size: int) -> None:
        super().__init__(batch_size)
        self.provide_data = [mx.io.DataDesc('data', (batch_size, *image_shape))]
        self.provide_label = [mx.io.DataDesc('softmax_label', (batch_size,))]
        self.epoch = 0
        self._upcoming = 0

    def __len__(self) -> int:
        raise NotImplementedError

    def _batch(self, number):
        raise NotImplementedError

    def fingerprint(self) -> Optional[Dict[str, Any]]:
        """What identifies the data set, see ``fingerprint``; None where it does not matter."""
        return None

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Go to batch ``first_batch`` of ``epoch``, whatever was read before."""
        self.epoch = epoch
        self._upcoming = first_batch

    def reset(self) -> None:
        """Go to the start of the next epoch."""
        self.set_epoch(self.epoch + 1)

    def next(self) -> mx.io.DataBatch:
        """The next batch. Raises StopIteration at the end of the epoch."""
        if self._upcoming >= len(self):
            raise StopIteration
        batch = self._batch(self._upcoming)
        self._upcoming += 1
        return batch

    def _pack(self, images, labels, pad, index):
        return mx.io.DataBatch(
            data=[mx.nd.array(images)],
            label=[mx.nd.array(labels)],
            pad=pad,
            index=index,
            provide_data=self.provide_data,
            provide_label=self.provide_label,
        )


class Shuffle:
    """Which of ``count`` images a step takes, and the share of one worker in it: a pure function of the seed, the epoch
    and the number of the step.

    An epoch takes ``examples`` images (None: all), as many as fill whole steps; ``len`` is its steps. Raises DataError
    where there are too few, or no such part.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int,
        part_index: int = 0,
        num_parts: int = 1,
        examples: Optional[int] = None,
    ) -> None:
        if not 0 <= part_index < num_parts:
            raise DataError(f'part {part_index} of {num_parts} does not exist: parts are numbered from 0')
        examples = count if examples is None else examples
        if examples > count:
            raise DataError(f'--num-examples {examples}: there are {count} training images')
        if batch_size < 1 or examples < batch_size * num_parts:
            raise DataError(
                f'a batch size of {batch_size} on {num_parts} worker(s) does not fit {examples} training images; use a '
                'smaller --batch-size'
            )
        self._count, self._seed = count, seed
        self.step = batch_size * num_parts  # images that all workers together take in one step
        self.share = slice(part_index * batch_size, (part_index + 1) * batch_size)
        self._length = examples // self.step
        self._order: Optional[np.ndarray] = None
        self._order_epoch: Optional[int] = None

    def __len__(self) -> int:
        return self._length

    def index(self, epoch: int, number: int) -> np.ndarray:
        """The images (B,) that this worker takes in step ``number``."""
        return self._epoch_order(epoch)[number * self.step : (number + 1) * self.step][self.share]

    def generator(self, epoch: int, *stream: int) -> np.random.Generator:
        """The generator of a stream of random numbers, named by one number or more; stream 0 is for the order of the
        images.
        """
        # The last number must not be 0 where there are more than three: NumPy seeds [a, b, c] and [a, b, c, 0] alike.
        return np.random.default_rng([self._seed, epoch, *stream])

    def _epoch_order(self, epoch):
        if self._order_epoch != epoch:
            self._order, self._order_epoch = self.generator(epoch, 0).permutation(self._count), epoch
        return self._order


class TrainIterator(BatchIterator):
    """Shuffled, augmented batches; see ``train_iterator``."""

    def __init__(
        self,
        images: Images,
        labels: np.ndarray,
        batch_size: int,
        seed: int,
        preprocessor: Preprocessor,
        part_index: int = 0,
        num_parts: int = 1,
    ) -> None:
        self._shuffle = Shuffle(len(images), batch_size, seed, part_index, num_parts)
        super().__init__(images.shape[1:], batch_size)
        self.images, self.labels, self.preprocessor = images, labels, preprocessor

    def __len__(self) -> int:
        return len(self._shuffle)

    def fingerprint(self) -> Optional[Dict[str, Any]]:
        """What identifies the data set: the sum is over its images and labels."""
        images = self.images.pool if isinstance(self.images, Recycled) else self.images
        return fingerprint(len(self.images), [images, self.labels])

    def decisions(self, number: int) -> Tuple[np.ndarray, Draws]:
        """(indices of the images (B,), ``Draws`` about them): all random decisions about batch ``number`` of this
        epoch.
        """
        # The decisions for all workers are drawn, and each takes its share: however many workers there are, a step sees
        # the same images, shifted alike.
        draws = self.preprocessor.draw(self._shuffle.generator(self.epoch, 1 + number), self._shuffle.step)
        return self._shuffle.index(self.epoch, number), Draws(*(decision[self._shuffle.share] for decision in draws))

    def _batch(self, number):
        index, draws = self.decisions(number)
        images = self.preprocessor.augmented(self.images[index], draws)
        return self._pack(images, self.labels[index], pad=0, index=index)


class EvalIterator(BatchIterator):
    """Every image once, in order; the last batch is filled up with blank images, which ``pad`` counts. ``epoch``
    changes nothing.

    Of ``num_parts`` workers, number ``part_index`` takes every ``num_parts``-th image. Raises DataError where there are
    no images.
    """

    def __init__(
        self,
        images: Images,
        labels: np.ndarray,
        batch_size: int,
        preprocessor: Preprocessor,
        part_index: int = 0,
        num_parts: int = 1,
    ) -> None:
        if batch_size < 1 or not len(images):
            raise DataError(f'nothing to evaluate: {len(images)} images in batches of {batch_size}')
        super().__init__(images.shape[1:], batch_size)
        self.images, self.labels, self.preprocessor = images, labels, preprocessor
        self._share = np.arange(part_index, len(images), num_parts)

    def __len__(self) -> int:
        return -(-len(self._share) // self.batch_size)

    def _batch(self, number):
        index = self._share[number * self.batch_size : (number + 1) * self.batch_size]
        images = self.preprocessor.plain(self.images[index])
        pad = self.batch_size - len(index)
        images = np.pad(images, [(0, pad)] + [(0, 0)] * 3)
        labels = np.pad(self.labels[index], (0, pad), constant_values=NO_CLASS)
        return self._pack(images, labels, pad, index)


class SyntheticIterator(BatchIterator):
    """One fixed batch of noise again and again, so that only the network takes time."""

    def __init__(
        self, batch_size: int, image_shape: Sequence[int], num_classes: int, num_examples: int, seed: int = 0
    ) -> None:
        super().__init__(image_shape, batch_size)
        generator = np.random.default_rng(seed)
        images = generator.standard_normal((batch_size, *image_shape), np.float32)
        labels = generator.integers(0, num_classes, batch_size)
        self._only = self._pack(images, labels, pad=0, index=None)
        self._length = max(1, num_examples // batch_size)

    def __len__(self) -> int:
        return self._length

    def _batch(self, number):
        return self._only
