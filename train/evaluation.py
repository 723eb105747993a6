"""The accuracy of a network on a data set: every image once, none twice."""

import sys
from typing import Callable, Dict, List, Optional, Tuple

import numpy as np
import tqdm

from graphs.preprocessing import Preprocessing
from runtime.errors import DataError, UserError

from .data.arrays import Dataset
from .data.augment import RGB_MEAN, RGB_STD
from .data.datasets import eval_iterator
from .engines.interface import Batches
from .metrics import Tally

BATCH = 100
# From images (N, channels, height, width) to the outputs before the softmax, one array for each; the first is scored.
Predict = Callable[[np.ndarray], List[np.ndarray]]
Numbers = Tuple[float, ...]  # one for each channel, or one for all


def accuracy(
    predict: Predict,
    dataset: Dataset,
    mean: Optional[Numbers] = None,
    std: Optional[Numbers] = None,
    progress: Optional[str] = None,
    preprocessing: Optional[Preprocessing] = None,
) -> float:
    """The part of all test images of ``dataset`` that a network classifies right; see ``score``.

    ``mean`` and ``std`` are subtracted from pixels of 0..255, and divided by; None: what the network's own
    ``preprocessing`` says, or else the authors' constants. Where ``preprocessing`` names another data set, a warning
    says so.
    """
    warn_of_another(preprocessing, dataset.name)
    images = eval_iterator(dataset, BATCH, *normalisation(preprocessing, mean, std))
    return score(predict, images, progress=progress, num_classes=dataset.num_classes)[0]['accuracy']


def normalisation(
    preprocessing: Optional[Preprocessing], mean: Optional[Numbers] = None, std: Optional[Numbers] = None
) -> Tuple[Numbers, Numbers]:
    """(mean, std) as given, or else as a network's own ``preprocessing`` says, or else the authors' constants."""
    known = (preprocessing.mean, preprocessing.std) if preprocessing else (RGB_MEAN, RGB_STD)
    return mean or known[0], std or known[1]


def warn_of_another(preprocessing: Optional[Preprocessing], dataset: str) -> None:
    """Say on stderr where a network was trained on another data set: its accuracy on ``dataset`` means little."""
    if preprocessing and preprocessing.dataset not in (None, dataset):
        print(
            f'warning: this network was trained on {preprocessing.dataset}; its classes need not be those of {dataset}',
            file=sys.stderr,
        )


def score(
    predict: Predict,
    iterator: Batches,
    top_k: int = 0,
    progress: Optional[str] = None,
    num_classes: Optional[int] = None,
) -> Tuple[Dict[str, float], int]:
    """(averages by name, number of images) of a network over an iterator of ``eval_iterator``.

    A class that is as probable as the right one counts as more probable: see ``Tally``. Raises UserError where an
    output is not finite, or not of ``num_classes``; DataError where there are no images.
    """
    tally = Tally(top_k)
    iterator.reset()
    for batch in tqdm.tqdm(
        iterator, desc=progress, total=len(iterator), unit='batch', leave=False, disable=None if progress else True
    ):
        count = batch.data[0].shape[0] - (batch.pad or 0)
        logits = predict(batch.data[0].asnumpy())[0][:count]
        _check(logits, num_classes)
        tally.add(softmax(logits), batch.label[0].asnumpy()[:count])
    if not tally.count:
        raise DataError('there are no images to evaluate on')
    return tally.averages(), tally.count


def softmax(logits: np.ndarray) -> np.ndarray:
    """Class probabilities (N, K) in double precision, in which logits that differ stay different."""
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True).astype(np.float64))
    return exponents / exponents.sum(axis=1, keepdims=True)


def _check(logits: np.ndarray, num_classes: Optional[int]) -> None:
    if logits.ndim != 2:
        raise UserError(f'the network puts out arrays of shape {logits.shape[1:]} for an image, not one number a class')
    if num_classes is not None and logits.shape[1] != num_classes:
        raise UserError(
            f'the network has {logits.shape[1]} classes, the data set {num_classes}; choose another data set'
        )
    if not np.isfinite(logits).all():
        raise UserError(
            'the network puts out NaN or infinity, so there is nothing to score; check its parameters, or take an '
            'earlier epoch'
        )
