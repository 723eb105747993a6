"""Data sets by name: digits, synthetic ones, and the options that choose them."""

import argparse

import numpy as np
import pytest

from runtime.errors import DataError
from train.data.augment import RGB_MEAN, RGB_STD
from train.data.datasets import DATASETS, add_data_args, dataset_from_args, eval_iterator, load_dataset, train_iterator

sklearn_datasets = pytest.importorskip('sklearn.datasets')


def test_digits_are_scikit_learns_split_by_class():
    dataset = load_dataset('digits')
    assert dataset.train_images.shape == (1437, 3, 32, 32)
    assert dataset.test_images.shape == (360, 3, 32, 32)
    assert dataset.train_images.dtype == dataset.test_images.dtype == np.uint8
    original = sklearn_datasets.load_digits()
    in_test = np.bincount(dataset.test_labels, minlength=10)
    np.testing.assert_array_equal(np.bincount(dataset.train_labels) + in_test, np.bincount(original.target))
    assert (abs(in_test - np.bincount(original.target) / 5) < 1).all()
    assert (dataset.num_classes, dataset.image_shape) == (10, (3, 32, 32))


def test_every_digit_is_in_the_split_once_with_its_own_label():
    dataset = load_dataset('digits', image_shape=(3, 8, 8))
    original = sklearn_datasets.load_digits()
    # At 8 x 8 nothing is scaled, and each image can be looked up.
    expected = sorted(
        (np.rint(image * 255 / 16).astype(np.uint8).tobytes(), label)
        for image, label in zip(original.images, original.target)
    )
    images, labels = (
        np.concatenate([dataset.train_images, dataset.test_images]),
        np.concatenate([dataset.train_labels, dataset.test_labels]),
    )
    assert (images == images[:, :1]).all()
    assert sorted((image[0].tobytes(), label) for image, label in zip(images, labels)) == expected


def test_digits_are_enlarged_as_opencv_does():
    cv2 = pytest.importorskip('cv2')
    small, large = load_dataset('digits', image_shape=(3, 8, 8)), load_dataset('digits')
    for number in range(0, 360, 40):
        expected = cv2.resize(small.test_images[number, 0], (32, 32), interpolation=cv2.INTER_LINEAR)
        assert abs(large.test_images[number, 0].astype(int) - expected).max() <= 2


def test_synthetic_images_are_fixed_and_take_any_shape_and_number_in_little_memory():
    first, second = (
        load_dataset('synthetic', image_shape=(1, 40, 24), num_classes=6, num_examples=10**7) for _ in range(2)
    )
    assert first.train_images.shape == (10**7, 1, 40, 24)
    np.testing.assert_array_equal(first.train_images[[5, 9999999]], second.train_images[[5, 9999999]])
    assert first.train_labels.max() == 5
    # An image has the same label wherever it comes again.
    assert first.train_labels[3] == first.train_labels[3 + 64]
    np.testing.assert_array_equal(first.train_images[[3]], first.train_images[[3 + 64]])


def test_synthetic_data_goes_through_the_ordinary_iterators():
    dataset = load_dataset('synthetic', image_shape=(3, 10, 10), num_examples=100)
    assert len(list(train_iterator(dataset, 16, seed=0))) == 6
    assert sum(16 - batch.pad for batch in eval_iterator(dataset, 16)) == 25


@pytest.mark.parametrize(
    ('arguments', 'names'),
    [
        ({'name': 'mnist'}, 'digits, cifar10, cifar100, synthetic'),
        ({'name': 'cifar10', 'image_shape': (3, 224, 224)}, '3,32,32, not 3,224,224'),
        ({'name': 'digits', 'image_shape': (1, 32, 32)}, '3,H,W'),
        ({'name': 'digits', 'image_shape': (3, 32)}, 'channels,height,width'),
        ({'name': 'digits', 'image_shape': (3, 0, 32)}, 'channels,height,width'),
        ({'name': 'digits', 'num_classes': 9}, '10 classes'),
    ],
)
def test_what_a_data_set_does_not_have_is_refused(arguments, names):
    with pytest.raises(DataError, match=names):
        load_dataset(**arguments)


def parsed(*options):
    parser = argparse.ArgumentParser()
    add_data_args(parser)
    return parser.parse_args(options)


def test_options_have_the_authors_constants_as_defaults():
    args = parsed()
    assert (args.rgb_mean, args.rgb_std, args.augment, args.data_dir) == (RGB_MEAN, RGB_STD, True, None)


def test_options_are_read():
    args = parsed(
        '--dataset',
        'synthetic',
        '--image-shape',
        '1,6,8',
        '--num-classes',
        '4',
        '--num-examples',
        '30',
        '--rgb-mean',
        '1',
        '--rgb-std',
        '2',
        '--no-augment',
    )
    assert (args.rgb_mean, args.rgb_std, args.augment) == ((1.0,), (2.0,), False)
    dataset = dataset_from_args(args)
    assert (dataset.image_shape, dataset.num_classes, len(dataset.train_images)) == ((1, 6, 8), 4, 30)


@pytest.mark.parametrize(
    'options',
    [
        ('--dataset', 'mnist'),
        ('--image-shape', '3x32x32'),
        ('--num-classes', '0'),
        ('--num-examples', '1e3'),
        ('--rgb-mean', 'a,b'),
        ('--augment', '--no-augment'),
    ],
)
def test_options_that_mean_nothing_are_refused(options, capsys):
    with pytest.raises(SystemExit) as stop:
        parsed(*options)
    assert stop.value.code == 2
    assert options[0] in capsys.readouterr().err


def test_every_data_set_can_be_chosen():
    assert [parsed('--dataset', name).dataset for name in DATASETS] == ['digits', 'cifar10', 'cifar100', 'synthetic']
