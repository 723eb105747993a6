"""Batches of image files, decoded ahead of time by a ``DecoderPool``; like those in ``iterators``, each a pure function
of the seed, the epoch and its number.

Damaged images are left out, named in the log and counted. In training another image, chosen by the seed, takes the
place of a damaged one; in validation the place stays blank.
"""

from __future__ import annotations

import logging
from typing import Any, Dict, Optional, Sequence, Set, Tuple

import numpy as np

from runtime import mx
from runtime.errors import DataError

from . import image_augment
from .arrays import NO_CLASS
from .decoder_pool import AHEAD, DecoderPool, Job
from .image_sources import Source
from .iterators import BatchIterator, Shuffle

REPLACEMENTS = 20  # in a row, for one place; --max-bad ends a run long before


class Damage:
    """The damaged images of a data set of ``count``, which the log calls ``what``: each is named once an epoch, and
    more than the share ``limit`` of them end the run.
    """

    def __init__(self, what: str, count: int, limit: float) -> None:
        self._what, self._count, self._limit = what, count, limit
        self._known: Set[int] = set()
        self._named: Set[int] = set()

    def begin(self) -> None:
        """A new epoch begins: images that are found damaged again are named again."""
        self._named.clear()

    def note(self, epoch: int, position: int, reason: str) -> None:
        """Note that the image at ``position`` is damaged. Raises DataError where more than the limit are."""
        if position not in self._named:
            logging.warning('Epoch[%d] Damaged %s image %d left out: %s', epoch, self._what, position, reason)
        self._named.add(position)
        self._known.add(position)
        if len(self._known) > self._limit * self._count:
            raise DataError(
                f'{len(self._known)} of {self._count} {self._what} images are damaged, which is more than --max-bad '
                f'{self._limit:g} allows; the '
                f'last one: {reason}'
            )


class ImageIterator(BatchIterator):
    """Batches that ``pool`` reads with its reader number ``reader``; up to AHEAD of them are under way while one is in
    use.

    As with MXNet's own iterators, the images of a batch are valid until the next batch is asked for; after that, their
    memory holds others.
    """

    def __init__(
        self, pool: DecoderPool, reader: int, image_shape: Sequence[int], batch_size: int, damage: Damage
    ) -> None:
        super().__init__(image_shape, batch_size)
        self._pool, self._reader, self._damage = pool, reader, damage
        self._jobs: Dict[int, Job] = {}
        self._in_use: Optional[Job] = None

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Go to batch ``first_batch`` of ``epoch``, whatever was read before."""
        self.cancel()
        self._damage.begin()
        super().set_epoch(epoch, first_batch)

    def cancel(self) -> None:
        """Give back the memory of all batches, those ahead and the one in use; they are read again when they are asked
        for.
        """
        self._return()
        while self._jobs:
            self._pool.release(self._jobs.popitem()[1])

    def _return(self):
        if self._in_use:
            self._pool.release(self._in_use)
        self._in_use = None

    def _batch(self, number):
        self._pool.lend(self)
        self._return()
        for upcoming in range(number, min(number + 1 + AHEAD, len(self))):
            if upcoming not in self._jobs:
                self._jobs[upcoming] = self._submit(upcoming)
        self._in_use = self._jobs.pop(number)
        labels, index = self._filled_up(self._in_use.count, *self._pool.finish(self._in_use))
        return mx.io.DataBatch(
            data=[self._pool.as_ndarray(self._in_use)],
            label=[mx.nd.array(labels)],
            pad=self.batch_size - len(index),
            index=index,
            provide_data=self.provide_data,
            provide_label=self.provide_label,
        )

    def _submit(self, number):
        raise NotImplementedError

    def _filled_up(self, count, images, labels, positions):
        """Of the first ``count`` images (B, …), move what is intact to the front and blank the rest; returns labels
        (B,) and the positions of the intact.
        """
        intact = np.flatnonzero(labels[:count] != NO_CLASS)
        missing = self.batch_size - len(intact)
        if not missing:
            return labels, positions.copy()
        images[: len(intact)] = images[intact]
        images[len(intact) :] = 0
        return np.pad(labels[intact], (0, missing), constant_values=NO_CLASS), positions[intact]


class ImageTrainIterator(ImageIterator):
    """Shuffled, augmented batches of ``count`` images; ``examples`` of them (None: all) are an epoch. Workers share it
    as in ``train_iterator``. ``source`` is where they come from, for the fingerprint.
    """

    def __init__(
        self,
        pool: DecoderPool,
        reader: int,
        image_shape: Sequence[int],
        batch_size: int,
        damage: Damage,
        count: int,
        seed: int,
        part_index: int = 0,
        num_parts: int = 1,
        examples: Optional[int] = None,
        source: Optional[Source] = None,
    ) -> None:
        super().__init__(pool, reader, image_shape, batch_size, damage)
        self._source = source
        self._count = count
        self._shuffle = Shuffle(count, batch_size, seed, part_index, num_parts, examples)

    def __len__(self) -> int:
        return len(self._shuffle)

    def fingerprint(self) -> Optional[Dict[str, Any]]:
        """What identifies the data set, see ``BatchIterator``; None where the source is not known."""
        return None if self._source is None else self._source.fingerprint()

    def decisions(self, number: int) -> Tuple[np.ndarray, np.ndarray]:
        """(positions of the images (B,), draws (B, DRAWS) about them): all random decisions about batch ``number`` of
        this epoch.
        """
        draws = image_augment.draw(self._shuffle.generator(self.epoch, 1 + number), self._shuffle.step)
        return self._shuffle.index(self.epoch, number), draws[self._shuffle.share]

    def _submit(self, number):
        epoch, attempts = self.epoch, {}

        def replace(place, position, reason):
            self._damage.note(epoch, position, reason)
            attempts[place] = attempts.get(place, 0) + 1
            if attempts[place] > REPLACEMENTS:
                raise DataError(
                    f'{REPLACEMENTS} images in a row that should replace a damaged one are damaged too; '
                    f'the last one: {reason}'
                )
            # Places are counted through all workers, so that the replacements do not depend on how many there are.
            return int(
                self._shuffle.generator(
                    epoch, 1 + number, 1 + self._shuffle.share.start + place, attempts[place]
                ).integers(self._count)
            )

        return self._pool.submit(self._reader, *self.decisions(number), replace)


class ImageEvalIterator(ImageIterator):
    """Every image once, in order. The last batch, and those with damaged images, are filled up with blank images, which
    ``pad`` counts.

    Worker ``part_index`` of ``num_parts`` gets images of its own; together they get all.
    """

    def __init__(
        self,
        pool: DecoderPool,
        reader: int,
        image_shape: Sequence[int],
        batch_size: int,
        damage: Damage,
        count: int,
        part_index: int = 0,
        num_parts: int = 1,
    ) -> None:
        super().__init__(pool, reader, image_shape, batch_size, damage)
        self._share = np.arange(part_index, count, num_parts)

    def __len__(self) -> int:
        return -(-len(self._share) // self.batch_size)

    def _submit(self, number):
        def replace(place, position, reason):
            self._damage.note(self.epoch, position, reason)

        positions = self._share[number * self.batch_size : (number + 1) * self.batch_size]
        return self._pool.submit(self._reader, positions, None, replace)
