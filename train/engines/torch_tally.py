"""Accuracy and loss, counted on the device that has the probabilities; the sums are read from a card only when they are
asked for.
"""

import torch

from train.metrics import Sums, Tally


class DeviceTally(Tally):
    """A ``Tally`` of tensors on ``device``. On a card, adding does not wait for the step that it counts."""

    _sums: Sums

    def __init__(self, top_k: int, device: torch.device) -> None:
        self._unread, self._unread_count = torch.zeros(3, dtype=torch.float64, device=device), 0
        super().__init__(top_k)

    @torch.no_grad()
    def add(self, probabilities: torch.Tensor, labels: torch.Tensor) -> None:
        """Count images with class ``probabilities`` (N, K) and ``labels`` (N,) of any dtype, tensors both."""
        labels = labels.long()
        of_label = probabilities.gather(1, labels[:, None])
        before = (~(probabilities < of_label)).sum(1) - 1
        correct = (before < 1).sum(dtype=torch.float64)
        in_top_k = (before < self._top_k).sum(dtype=torch.float64)
        loss = of_label.clamp(min=1e-12).log().neg().sum(dtype=torch.float64)
        self._unread += torch.stack((correct, in_top_k, loss))
        self._unread_count += len(labels)

    @property
    def has_nonfinite_loss(self) -> bool:
        """As in ``Tally``. On a card it is always False, since reading the loss would wait for the card."""
        return self._unread.device.type == 'cpu' and super().has_nonfinite_loss

    @property
    def sums(self) -> Sums:
        """The sums so far, read from the device."""
        if self._unread_count:
            correct, in_top_k, loss = self._unread.tolist()
            self._sums = {
                'count': self._sums['count'] + self._unread_count,
                'correct': self._sums['correct'] + int(correct),
                'in_top_k': self._sums['in_top_k'] + int(in_top_k),
                'loss': self._sums['loss'] + loss,
            }
            self._forget()
        return self._sums

    @sums.setter
    def sums(self, sums: Sums) -> None:
        self._forget()
        self._sums = sums

    def _forget(self):
        self._unread.zero_()
        self._unread_count = 0
