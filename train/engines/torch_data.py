"""Data sets in the memory of the device: images are uploaded once, as bytes, and shuffled, shifted, mirrored and
normalised there.

The random decisions are those for MXNet (``TrainIterator.decisions``), so that both engines see the same batches, to
the bit.
"""

from typing import Optional, Union

import numpy as np
import torch

from runtime import mx
from train.data.arrays import NO_CLASS
from train.data.augment import Preprocessor
from train.data.iterators import BatchIterator, EvalIterator, TrainIterator

from .interface import Batches


def on_device(iterator: Batches, device: torch.device) -> Batches:
    """``iterator`` with its images on ``device``, where they are an array in memory; any other iterator as it is."""
    if type(iterator) is TrainIterator and isinstance(iterator.images, np.ndarray):
        return DeviceTrainIterator(iterator, device)
    if type(iterator) is EvalIterator and isinstance(iterator.images, np.ndarray):
        return DeviceEvalIterator(iterator, device)
    return iterator


class DeviceIterator(BatchIterator):
    """Batches of ``iterator``, whose 'data' and 'softmax_label' are tensors on ``device``."""

    def __init__(self, iterator: Union[TrainIterator, EvalIterator], device: torch.device) -> None:
        super().__init__(iterator.images.shape[1:], iterator.batch_size)
        self._iterator, self._device = iterator, device
        # As int32: bytes cannot be indices of classes beyond 255.
        self._images, self._labels = (
            torch.as_tensor(array, device=device) for array in (iterator.images, iterator.labels.astype(np.int32))
        )
        self._pixels = DevicePreprocessor(iterator.preprocessor, device)

    def __len__(self) -> int:
        return len(self._iterator)

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Go to batch ``first_batch`` of ``epoch``, whatever was read before."""
        super().set_epoch(epoch, first_batch)
        self._iterator.set_epoch(epoch, first_batch)

    def _pack(self, images, labels, pad, index):
        return mx.io.DataBatch(data=[images], label=[labels], pad=pad, index=index)


class DeviceTrainIterator(DeviceIterator):
    """Shuffled, augmented batches. The decisions for a whole epoch are made at its first batch and uploaded together,
    so that the device does not wait for them later.
    """

    _decisions: Optional[torch.Tensor] = None

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Go to batch ``first_batch`` of ``epoch``; its decisions are made at its first batch."""
        super().set_epoch(epoch, first_batch)
        self._decisions = None

    def _batch(self, number):
        index, rows, columns, mirrored = self._of_epoch()[number]
        images = self._pixels.augmented(self._images[index], rows, columns, mirrored.bool())
        return self._pack(images, self._labels[index], pad=0, index=None)

    def _of_epoch(self):
        """The decisions of every batch: (batches, 4, B) integers on the device."""
        if self._decisions is None:
            decided = (self._iterator.decisions(number) for number in range(len(self)))
            self._decisions = torch.as_tensor(
                np.array([(index, *draws) for index, draws in decided]), device=self._device
            )
        return self._decisions


class DeviceEvalIterator(DeviceIterator):
    """Every image once, in order; the last batch is filled up with blank images, which ``pad`` counts."""

    def _batch(self, number):
        index = slice(number * self.batch_size, (number + 1) * self.batch_size)
        images, labels = self._pixels.plain(self._images[index]), self._labels[index]
        pad = self.batch_size - len(images)
        images = torch.nn.functional.pad(images, (0, 0) * 3 + (0, pad))
        return self._pack(images, torch.nn.functional.pad(labels, (0, pad), value=NO_CLASS), pad, index=None)


class DevicePreprocessor:
    """What a ``Preprocessor`` does, on tensors on ``device``, rounding as it rounds."""

    def __init__(self, preprocessor: Preprocessor, device: torch.device) -> None:
        self._mean, self._std, self._canvas = (
            torch.as_tensor(array, device=device)
            for array in (preprocessor.mean, preprocessor.std, preprocessor.blank())
        )
        self._shift = preprocessor.augmentation.shift

    def plain(self, images: torch.Tensor) -> torch.Tensor:
        """Normalise ``images`` (B, C, H, W) uint8; float32 of the same shape."""
        return (images.float() - self._mean) / self._std

    def augmented(
        self, images: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, mirrored: torch.Tensor
    ) -> torch.Tensor:
        """Normalise and augment ``images`` (B, C, H, W) uint8 by the decisions (B,) about each; float32 of the same
        shape.
        """
        count, channels, height, width = images.shape
        images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)
        canvas = self._canvas.expand(count, -1, -1, -1).clone()
        canvas[:, :, self._shift : self._shift + height, self._shift : self._shift + width] = self.plain(images)
        batch, channel, y, x = (torch.arange(size, device=images.device) for size in (count, channels, height, width))
        y, x = y + rows[:, None], x + columns[:, None]
        return canvas[batch.view(-1, 1, 1, 1), channel.view(-1, 1, 1), y[:, None, :, None], x[:, None, None, :]]
