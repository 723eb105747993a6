"""Batches: what is in them, that they repeat exactly, and that nothing is lost or counted twice."""

import logging

import numpy as np
import pytest
from helpers.image_batches import assert_same
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime import mx
from runtime.errors import DataError
from train.data.augment import CIFAR_AUGMENTATION, Augmentation, Preprocessor
from train.data.datasets import (
    Dataset,
    eval_iterator,
    load_dataset,
    measure_throughput,
    synthetic_data,
    test_io,
    train_iterator,
)
from train.data.iterators import NO_CLASS, EvalIterator


def small_dataset(train=50, test=23, size=8):
    """Every image says which one it is: its first pixel is its label is its number."""
    rng = np.random.default_rng(0)
    images, labels = [], []
    for count in (train, test):
        stack = rng.integers(0, 256, (count, 3, size, size), np.uint8)
        stack[:, :, 0, 0] = np.arange(count)[:, None]
        images.append(stack)
        labels.append(np.arange(count, dtype=np.int32))
    return Dataset('cifar10', images[0], labels[0], images[1], labels[1], 100)


def contents(batch):
    return batch.data[0].asnumpy(), batch.label[0].asnumpy().astype(int), batch.pad


def epoch_of(iterator):
    return [contents(batch) for batch in iterator]


def test_an_epoch_shows_each_image_at_most_once_and_leaves_out_the_remainder():
    iterator = train_iterator(small_dataset(), 8, seed=3)
    batches = epoch_of(iterator)
    assert len(iterator) == len(batches) == 6
    seen = np.concatenate([labels for _, labels, _ in batches])
    assert len(set(seen)) == len(seen) == 48
    assert all(pad == 0 for _, _, pad in batches)
    with pytest.raises(StopIteration):
        iterator.next()


def test_epochs_differ_in_order_and_in_what_they_leave_out():
    iterator = train_iterator(small_dataset(), 8, seed=3)
    first = [labels.tolist() for _, labels, _ in epoch_of(iterator)]
    iterator.reset()
    assert iterator.epoch == 1
    second = [labels.tolist() for _, labels, _ in epoch_of(iterator)]
    assert first != second
    left_out = set()
    for epoch in range(40):
        iterator.set_epoch(epoch)
        left_out |= set(range(50)) - set(np.concatenate([labels for _, labels, _ in epoch_of(iterator)]))
    assert len(left_out) > 30


def test_images_belong_to_their_labels():
    dataset = small_dataset()
    iterator = train_iterator(dataset, 10, seed=0, augment=False)
    plain = Preprocessor(dataset.image_shape).plain(dataset.train_images)
    for images, labels, _ in epoch_of(iterator):
        np.testing.assert_array_equal(images, plain[labels])


def test_seeds_differ_and_a_seed_repeats():
    def labels(seed):
        return [batch[1].tolist() for batch in epoch_of(train_iterator(small_dataset(), 8, seed=seed))]

    assert labels(1) == labels(1)
    assert labels(1) != labels(2)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**40), epoch=st.integers(0, 300), first=st.integers(0, 6), read_before=st.integers(0, 5))
def test_a_resumed_epoch_goes_on_bit_for_bit(seed, epoch, first, read_before):
    dataset = small_dataset()
    whole = train_iterator(dataset, 8, seed)
    whole.set_epoch(epoch)
    resumed = train_iterator(dataset, 8, seed)
    for _ in range(read_before):
        resumed.next()
    resumed.set_epoch(epoch, first_batch=first)
    assert_same(epoch_of(whole)[first:], epoch_of(resumed))


def test_reset_is_the_next_epoch_wherever_it_happens():
    dataset = small_dataset()
    straight, jumped = (train_iterator(dataset, 8, seed=5) for _ in range(2))
    jumped.set_epoch(3, first_batch=2)
    jumped.next()
    jumped.reset()
    straight.set_epoch(4)
    assert_same(epoch_of(straight), epoch_of(jumped))


def test_the_same_image_is_augmented_differently_in_each_epoch():
    dataset = small_dataset(train=8, size=16)
    iterator = train_iterator(dataset, 8, seed=0)
    views = set()
    for epoch in range(10):
        iterator.set_epoch(epoch)
        images, labels, _ = contents(iterator.next())
        views.add(images[labels.tolist().index(5)].tobytes())
    assert len(views) >= 8


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), parts=st.integers(1, 4), batch_size=st.integers(1, 6))
def test_workers_share_an_epoch_equally_and_see_together_what_one_would(seed, parts, batch_size):
    dataset = small_dataset()
    alone = epoch_of(train_iterator(dataset, batch_size * parts, seed))
    workers = [
        epoch_of(train_iterator(dataset, batch_size, seed, part_index=part, num_parts=parts)) for part in range(parts)
    ]
    assert {len(batches) for batches in workers} == {len(alone)} == {50 // (batch_size * parts)}
    for step, (images, labels, _) in enumerate(alone):
        np.testing.assert_array_equal(np.concatenate([worker[step][0] for worker in workers]), images)
        np.testing.assert_array_equal(np.concatenate([worker[step][1] for worker in workers]), labels)
    shares = [{label for _, labels, _ in worker for label in labels} for worker in workers]
    assert len(set.union(*shares)) == sum(map(len, shares)) == len(alone) * batch_size * parts


def test_a_shape_is_stated_that_batches_have():
    iterator = train_iterator(small_dataset(), 8, seed=0)
    batch = iterator.next()
    assert [(desc.name, desc.shape) for desc in iterator.provide_data] == [('data', (8, 3, 8, 8))]
    assert [(desc.name, desc.shape) for desc in iterator.provide_label] == [('softmax_label', (8,))]
    assert batch.data[0].shape == (8, 3, 8, 8)
    assert batch.data[0].dtype == batch.label[0].dtype == np.float32


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 40), batch_size=st.integers(1, 17))
def test_evaluation_shows_every_image_once_and_counts_what_only_fills_up(count, batch_size):
    dataset = small_dataset(test=count)
    iterator = eval_iterator(dataset, batch_size)
    batches = epoch_of(iterator)
    assert len(iterator) == len(batches)
    for images, labels, pad in batches:
        assert images.shape == (batch_size, 3, 8, 8)
        assert (labels[batch_size - pad :] == NO_CLASS).all()
    kept = [(images[: batch_size - pad], labels[: batch_size - pad]) for images, labels, pad in batches]
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in kept]), np.arange(count))
    np.testing.assert_array_equal(
        np.concatenate([images for images, _ in kept]), Preprocessor((3, 8, 8)).plain(dataset.test_images)
    )
    iterator.reset()
    assert_same(batches, epoch_of(iterator))


def test_mxnet_takes_the_padding_off():
    # Module.predict is MXNet's own reading of `pad`.
    dataset = small_dataset()
    iterator = eval_iterator(dataset, 10)
    module = mx.mod.Module(mx.sym.Flatten(mx.sym.Variable('data'), name='flat'), label_names=None)
    module.bind(iterator.provide_data, for_training=False)
    module.init_params()
    predicted = module.predict(iterator).asnumpy()
    np.testing.assert_array_equal(predicted, Preprocessor((3, 8, 8)).plain(dataset.test_images).reshape(23, -1))


def test_a_module_trains_on_them():
    dataset = load_dataset('digits', image_shape=(3, 8, 8))
    data = mx.sym.Flatten(mx.sym.Variable('data'))
    module = mx.mod.Module(mx.sym.SoftmaxOutput(mx.sym.FullyConnected(data, num_hidden=10), name='softmax'))
    mx.random.seed(0)
    module.fit(
        train_iterator(dataset, 32, seed=0, augment=False),
        num_epoch=3,
        optimizer_params={'learning_rate': 0.05},
        initializer=mx.init.Xavier(),
    )
    assert module.score(eval_iterator(dataset, 360), 'acc')[0][1] > 0.9


@pytest.mark.parametrize(
    'arguments',
    [
        {'batch_size': 51},
        {'batch_size': 0},
        {'batch_size': 20, 'num_parts': 3},
        {'batch_size': 2, 'part_index': 2, 'num_parts': 2},
        {'batch_size': 2, 'part_index': -1},
    ],
)
def test_what_cannot_be_shared_out_is_refused(arguments):
    with pytest.raises(DataError, match='batch size|part'):
        train_iterator(small_dataset(), seed=0, **arguments)


def test_nothing_to_evaluate_is_refused():
    with pytest.raises(DataError, match='nothing to evaluate'):
        eval_iterator(small_dataset(test=0), 5)


def test_the_benchmark_batch_is_always_the_same_one():
    iterator = synthetic_data(4, (3, 16, 12), num_classes=7, num_examples=21)
    batches = list(iterator)
    assert len(batches) == len(iterator) == 5
    assert all(batch is batches[0] for batch in batches)
    images, labels, pad = contents(batches[0])
    assert images.shape == (4, 3, 16, 12)
    assert images.std() > 0.5
    assert set(labels) <= set(range(7))
    assert pad == 0
    iterator.reset()
    assert len(list(iterator)) == 5
    assert_same([contents(batches[0])], [contents(synthetic_data(4, (3, 16, 12), 7, 21).next())])


def test_test_io_logs_as_mxnet_does(caplog):
    iterator = train_iterator(small_dataset(), 8, seed=0)
    with caplog.at_level(logging.INFO):
        speed = test_io(iterator, frequent=2)
    assert speed > 0
    assert [record.getMessage().split('\t')[0] for record in caplog.records] == [
        f'Epoch[0] Batch [{batch}]' for batch in (2, 4, 6)
    ]
    assert all(record.getMessage().endswith('samples/sec') for record in caplog.records)


def test_data_is_never_what_limits():
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (5000, 3, 32, 32), np.uint8), np.zeros(5000, np.int32)
    dataset = Dataset('cifar10', images, labels, images, labels, 10)
    assert measure_throughput(dataset, CIFAR_AUGMENTATION, batches=300) > 20000
    assert measure_throughput(dataset, Augmentation(), batches=300) > 20000


@pytest.mark.parametrize('num_parts', [2, 3, 7])
def test_workers_evaluate_every_image_once_between_them(num_parts):
    images, labels = np.zeros((5, 3, 4, 4), np.uint8), np.arange(5, dtype=np.int32)
    seen = []
    for part in range(num_parts):
        for batch in EvalIterator(images, labels, 2, Preprocessor((3, 4, 4)), part, num_parts):
            seen += batch.label[0].asnumpy()[: 2 - batch.pad].tolist()
    assert sorted(seen) == [0, 1, 2, 3, 4]
