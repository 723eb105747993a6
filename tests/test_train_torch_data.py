"""Images and counts on the device, on the CPU for one: to the bit what the NumPy pipeline makes of the same seed, epoch
and batch.
"""

import numpy as np
import pytest

from train.data.augment import CIFAR_AUGMENTATION, DIGITS_AUGMENTATION, Augmentation, Preprocessor
from train.data.iterators import EvalIterator, Recycled, SyntheticIterator, TrainIterator
from train.metrics import Tally

torch = pytest.importorskip('torch')

from train.engines.torch_data import on_device  # noqa: E402  (where PyTorch is missing there is nothing to import it for)
from train.engines.torch_tally import DeviceTally  # noqa: E402

CPU = torch.device('cpu')
random = np.random.default_rng(0)
IMAGES, LABELS = random.integers(0, 256, (45, 3, 9, 7), np.uint8), random.integers(0, 300, 45).astype(np.int32)


def both(kind, augmentation, *more):
    """The iterator of NumPy and the one on the device."""

    def make():
        return kind(IMAGES.copy(), LABELS, 8, *more, Preprocessor(IMAGES.shape[1:], augmentation=augmentation))

    return make(), on_device(make(), CPU)


def assert_same(expected, found):
    assert isinstance(found.data[0], torch.Tensor)
    np.testing.assert_array_equal(found.data[0].numpy(), expected.data[0].asnumpy())
    np.testing.assert_array_equal(found.label[0].numpy(), expected.label[0].asnumpy())
    assert found.data[0].dtype == torch.float32
    assert found.pad == expected.pad


@pytest.mark.parametrize(
    'augmentation', [CIFAR_AUGMENTATION, DIGITS_AUGMENTATION, Augmentation(mirror=True), None], ids=str
)
def test_training_batches_are_the_same_to_the_bit(augmentation):
    host, device = both(TrainIterator, augmentation, 7)
    assert len(host) == len(device) == 5
    for epoch, first in ((0, 0), (3, 0), (3, 2)):
        host.set_epoch(epoch, first)
        device.set_epoch(epoch, first)
        batches = list(zip(host, device))
        assert len(batches) == 5 - first
        for pair in batches:
            assert_same(*pair)


def test_test_batches_are_the_same_to_the_bit():
    host, device = both(EvalIterator, CIFAR_AUGMENTATION)
    for _ in range(2):
        batches = list(zip(host, device))
        assert [found.pad for _, found in batches] == [0, 0, 0, 0, 0, 3]
        for pair in batches:
            assert_same(*pair)
        host.reset()
        device.reset()


def test_what_is_no_array_in_memory_stays_where_it_is():
    preprocessor = Preprocessor(IMAGES.shape[1:])
    for iterator in (
        SyntheticIterator(2, (3, 8, 8), 10, 20),
        EvalIterator(Recycled(IMAGES, 90), np.resize(LABELS, 90), 8, preprocessor),
    ):
        assert on_device(iterator, CPU) is iterator


def probabilities(count, classes=7):
    scores = np.exp(random.standard_normal((count, classes)).astype(np.float32))
    return scores / scores.sum(1, keepdims=True)


def test_sums_on_the_device_are_those_of_numpy():
    expected, found = Tally(top_k=3), DeviceTally(3, CPU)
    for count in (5, 1, 8):
        scores, labels = probabilities(count), random.integers(0, 7, count).astype(np.float32)
        expected.add(scores, labels)
        found.add(torch.from_numpy(scores), torch.from_numpy(labels))
    assert found.count == 14
    for name, value in expected.sums.items():
        assert found.sums[name] == pytest.approx(value, rel=1e-6), name
    assert found.averages().keys() == expected.averages().keys()


def test_a_tally_goes_on_from_what_was_saved():
    tally = DeviceTally(0, CPU)
    tally.add(torch.from_numpy(probabilities(4)), torch.zeros(4))
    tally.sums = {'count': 10, 'correct': 9, 'in_top_k': 0, 'loss': 1.0}
    tally.add(torch.tensor([[1.0, 0.0]]), torch.tensor([0.0]))
    assert tally.sums == {'count': 11, 'correct': 10, 'in_top_k': 0, 'loss': 1.0}
    tally.clear()
    assert tally.count == 0


@pytest.mark.parametrize('make', [Tally, lambda top_k: DeviceTally(top_k, CPU)])
def test_a_loss_that_is_no_number_is_noticed(make):
    tally, array = make(0), np.asarray if make is Tally else torch.tensor
    tally.add(array([[0.5, 0.5]]), array([1]))
    assert not tally.has_nonfinite_loss
    tally.add(array([[float('nan'), 0.5]]), array([0]))
    assert tally.has_nonfinite_loss
    assert np.isnan(tally.averages()['cross-entropy'])
