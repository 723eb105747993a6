"""Metrics of training: accuracy and loss, the scaling factors, and the structures alive."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Dict, Mapping

import numpy as np

from graphs.lambdas import lambda_layout
from runtime import mx

# Sums over images: count, correct, in_top_k, loss. The counts are whole numbers.
Sums = Dict[str, Any]


class Tally:
    """Exact running averages over images: accuracy, cross-entropy and, for ``top_k`` above 1, top-k accuracy.

    A class that is as probable as the right one, or NaN, counts as more probable: a network that gives all classes the
    same probability has an accuracy of 0.
    """

    def __init__(self, top_k: int = 0) -> None:
        self._top_k = top_k
        self.sums: Sums = {}
        self.clear()

    def clear(self) -> None:
        """Forget all images."""
        self.sums = {'count': 0, 'correct': 0, 'in_top_k': 0, 'loss': 0.0}

    @property
    def count(self) -> int:
        """Images so far."""
        return self.sums['count']

    def add(self, probabilities: np.ndarray, labels: np.ndarray) -> None:
        """Count images with class ``probabilities`` (N, K) and ``labels`` (N,) of any dtype, NumPy arrays both."""
        labels = labels.astype(int)
        of_label = probabilities[np.arange(len(labels)), labels]
        loss = -np.log(np.maximum(of_label, 1e-12)).sum() if np.isfinite(of_label).all() else np.nan
        self.sums['count'] += len(labels)
        self.sums['loss'] += float(loss)
        before = (~(probabilities < of_label[:, None])).sum(axis=1) - 1
        self.sums['correct'] += int((before < 1).sum())
        self.sums['in_top_k'] += int((before < self._top_k).sum())

    @property
    def has_nonfinite_loss(self) -> bool:
        """Whether a loss was not finite."""
        return not np.isfinite(self.sums['loss'])

    def averages(self) -> OrderedDict[str, float]:
        """The averages so far by MXNet's names of them; nan before the first image."""
        count = self.count or np.nan
        found = OrderedDict(accuracy=self.sums['correct'] / count)
        if self._top_k > 1:
            found[f'top_k_accuracy_{self._top_k}'] = self.sums['in_top_k'] / count
        found['cross-entropy'] = self.sums['loss'] / count
        return found


def lambda_statistics(symbol: mx.sym.Symbol, lambdas: Mapping[str, np.ndarray]) -> OrderedDict[str, Dict[str, Any]]:
    """λ by kind, from ``lambdas``, a dict from name to array.

    Returns a dict from kind to {'alive', 'total', 'stages': {stage: [alive, total]}, 'min', 'median', 'max'}; alive is
    what is not exactly 0.
    """
    by_kind: OrderedDict[str, Dict[str, Any]] = OrderedDict()
    for vector in lambda_layout(symbol):
        values = np.asarray(lambdas[vector.name])
        rows = values.reshape(len(vector.stages), -1)
        kind = by_kind.setdefault(vector.kind, {'values': [], 'stages': OrderedDict()})
        kind['values'].append(values.ravel())
        for stage, row in zip(vector.stages, rows):
            alive, total = kind['stages'].get(stage, (0, 0))
            kind['stages'][stage] = [alive + int(np.count_nonzero(row)), total + row.size]
    return OrderedDict(
        (name, _summary(np.concatenate(kind['values']), kind['stages'])) for name, kind in by_kind.items()
    )


def _summary(values, stages):
    return {
        'alive': int(np.count_nonzero(values)),
        'total': int(values.size),
        'stages': stages,
        'min': float(values.min()),
        'median': float(np.median(values)),
        'max': float(values.max()),
    }
