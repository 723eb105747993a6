"""Batches of image files: a function of seed, epoch and number alone, and of a damaged file only where it lies; folders
give what record files give.
"""

import logging
import os

import numpy as np
import pytest
from helpers.image_batches import COUNT, SHAPE, assert_same, contents, epoch_of
from helpers.jpegs import jpeg, offsets, overwrite, save_folders, save_records

from formats.record_file import RecordFile
from runtime.errors import DataError
from train.data.image_augment import CentreView
from train.data.image_sources import FolderSource, RecordSource
from train.data.iterators import NO_CLASS


def damaged_copy(rec, folder, spoil):
    """A copy of a record file in which ``spoil`` was called with the path of the .rec and where its records begin."""
    source = RecordFile(rec, rec[:-4] + '.idx')
    copy = save_records(folder / 'damaged', [source.read(position).image for position in range(len(source))])
    spoil(copy, offsets(copy))
    return copy


def spoil_image(*numbers):
    """Overwrite the image of these records with zeros, the framing left whole."""

    def spoil(path, begins):
        for number in numbers:
            overwrite(path, begins[number] + 32, bytes(200))

    return spoil


def test_a_batch_is_a_function_of_seed_epoch_and_number(images, open_images, rec):
    train = images.train
    first = epoch_of(train)
    assert len(first) == len(train) == 3
    assert all(batch[0].dtype == np.float32 and batch[0].shape == (8, *SHAPE) and batch[2] == 0 for batch in first)
    seen = sum((batch[3] for batch in first), [])
    assert len(set(seen)) == 24
    train.reset()
    second = epoch_of(train)
    assert not any((one[0] == other[0]).all() for one, other in zip(first, second))
    train.set_epoch(0)
    assert_same(epoch_of(train), first)
    train.set_epoch(1, first_batch=2)
    assert_same(epoch_of(train), second[2:])
    assert_same(epoch_of(open_images('--data-train', rec, '--data-val', rec).train), first)


def test_images_carry_their_labels(images):
    for batch in epoch_of(images.train) + epoch_of(images.validation):
        count = 8 - batch[2]
        assert batch[1][:count].tolist() == [position % 3 for position in batch[3]]


@pytest.mark.parametrize('parts', [2, 3])
def test_workers_share_an_epoch_equally_and_see_together_what_one_would(open_images, rec, parts):
    alone = epoch_of(open_images('--data-train', rec, '--data-val', rec, batch_size=4 * parts).train)
    workers = [
        epoch_of(
            open_images('--data-train', rec, '--data-val', rec, batch_size=4, part_index=part, num_parts=parts).train
        )
        for part in range(parts)
    ]
    assert {len(batches) for batches in workers} == {len(alone)} == {COUNT // (4 * parts)}
    for number, (pixels, labels, _, index) in enumerate(alone):
        np.testing.assert_array_equal(np.concatenate([worker[number][0] for worker in workers]), pixels)
        np.testing.assert_array_equal(np.concatenate([worker[number][1] for worker in workers]), labels)
        assert sum((worker[number][3] for worker in workers), []) == index


def test_validation_shows_every_image_once(images, rec):
    batches = epoch_of(images.validation)
    assert len(batches) == len(images.validation) == 4
    view, source = CentreView(SHAPE, 37), RecordSource(rec)
    expected = np.empty((COUNT, *SHAPE), np.float32)
    for position, out in enumerate(expected):
        view(source.read(position)[0], None, out)
    np.testing.assert_array_equal(np.concatenate([pixels[: 8 - pad] for pixels, _, pad, _ in batches]), expected)
    assert [pad for _, _, pad, _ in batches] == [0, 0, 0, 2]
    assert batches[-1][1][6:].tolist() == [NO_CLASS] * 2
    assert (batches[-1][0][6:] == 0).all()
    images.validation.reset()
    assert_same(epoch_of(images.validation), batches)


def test_workers_share_the_validation_images(open_images, rec):
    shares = [
        epoch_of(
            open_images('--data-train', rec, '--data-val', rec, batch_size=4, part_index=part, num_parts=4).validation
        )
        for part in range(4)
    ]
    seen = [[position for _, _, _, index in batches for position in index] for batches in shares]
    assert [len(positions) for positions in seen] == [8, 8, 7, 7]
    assert sorted(sum(seen, [])) == list(range(COUNT))
    for batches in shares:
        for _, labels, pad, index in batches:
            assert labels[: 4 - pad].tolist() == [position % 3 for position in index]


def test_validation_in_the_middle_of_an_epoch_changes_nothing(images):
    train, expected = images.train, epoch_of(images.train)
    train.set_epoch(0)
    found = [contents(train.next())]
    epoch_of(images.validation)
    found += epoch_of(train)
    assert_same(found, expected)


def test_an_epoch_may_be_shorter_than_the_data(open_images, rec):
    train = open_images('--data-train', rec, '--data-val', rec, '--num-examples', 17).train
    epochs = []
    for epoch in range(10):
        train.set_epoch(epoch)
        epochs += epoch_of(train)
    assert len(epochs) == 20
    assert len(set(sum((batch[3] for batch in epochs), []))) == COUNT
    with pytest.raises(DataError, match='--num-examples 31: there are 30 training images'):
        open_images('--data-train', rec, '--data-val', rec, '--num-examples', 31)


# Damage


def test_another_image_takes_the_place_of_a_damaged_one(images, open_images, rec, tmp_path, caplog):
    expected = epoch_of(images.train)
    victims = expected[0][3][2], expected[2][3][5]
    copy = damaged_copy(rec, tmp_path, spoil_image(*victims))
    flags = '--data-train', copy, '--data-val', rec, '--max-bad', 0.1
    with caplog.at_level(logging.WARNING):
        found = epoch_of(open_images(*flags).train)
    for number, (batch, before) in enumerate(zip(found, expected)):
        changed = [place for place in range(8) if (batch[0][place] != before[0][place]).any()]
        assert changed == {0: [2], 2: [5]}.get(number, [])
        assert not set(victims) & set(batch[3])
        assert batch[1].tolist() == [position % 3 for position in batch[3]]
        assert batch[2] == 0
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    for victim in victims:
        assert (
            f'Epoch[0] Damaged training image {victim} left out: {copy}: record {victim} is no image that OpenCV can '
            'read' in lines
        )
    again = open_images(*flags).train
    assert_same(epoch_of(again), found)


def test_workers_agree_on_what_replaces_a_damaged_image(open_images, rec, tmp_path):
    copy = damaged_copy(rec, tmp_path, spoil_image(3, 4, 17))
    flags = '--data-train', copy, '--data-val', rec, '--max-bad', 0.2
    alone = epoch_of(open_images(*flags, batch_size=8).train)
    workers = [epoch_of(open_images(*flags, batch_size=4, part_index=part, num_parts=2).train) for part in range(2)]
    for number, batch in enumerate(alone):
        np.testing.assert_array_equal(np.concatenate([worker[number][0] for worker in workers]), batch[0])


def test_a_damaged_image_is_named_once_an_epoch(open_images, rec, tmp_path, caplog):
    copy = damaged_copy(rec, tmp_path, spoil_image(*range(0, COUNT, 3)))
    train = open_images('--data-train', copy, '--data-val', rec, '--max-bad', 0.5).train
    with caplog.at_level(logging.WARNING):
        for epoch in range(2):
            train.set_epoch(epoch)
            epoch_of(train)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == len(set(lines))
    assert {line[:8] for line in lines} == {'Epoch[0]', 'Epoch[1]'}


def test_validation_leaves_damaged_images_out(open_images, rec, tmp_path, images):
    copy = damaged_copy(rec, tmp_path, spoil_image(1, 9, 10, *range(24, 30)))
    found = epoch_of(open_images('--data-train', rec, '--data-val', copy, '--max-bad', 0.5).validation)
    assert [batch[2] for batch in found] == [1, 2, 0, 8]
    assert found[1][3] == [8, 11, 12, 13, 14, 15]
    for batch, before in zip(found, epoch_of(images.validation)):
        kept = [place for place, position in enumerate(before[3]) if position in batch[3]]
        np.testing.assert_array_equal(batch[0][: 8 - batch[2]], before[0][kept])
        assert batch[1][: 8 - batch[2]].tolist() == before[1][kept].tolist()
        assert (batch[1][8 - batch[2] :] == NO_CLASS).all()


@pytest.mark.parametrize(
    ('label', 'said'),
    [
        ([1.0, 2.0], 'its label has 2 numbers, not one'),
        (3.0, 'its label is 3, which is none of the 3 classes'),
        (-1.0, 'its label is -1'),
        (0.5, 'its label is 0.5'),
        (float('nan'), 'its label is nan'),
        (float('inf'), 'its label is inf'),
    ],
)
def test_labels_that_are_none(open_images, tmp_path, label, said):
    rec = save_records(tmp_path / 'images', [jpeg(number) for number in range(8)], [0] * 7 + [label])
    with pytest.raises(
        DataError,
        match='1 of 8 training images are damaged, which is more than --max-bad 0.001 allows; the last one: .*record '
        f'7: {said}',
    ):
        epoch_of(open_images('--data-train', rec, '--data-val', rec).train)


def test_nothing_but_damage_ends(open_images, tmp_path):
    rec = save_records(tmp_path / 'images', [bytes(100)] * 8)
    with pytest.raises(DataError, match='20 images in a row that should replace a damaged one are damaged too'):
        epoch_of(open_images('--data-train', rec, '--data-val', rec, '--max-bad', 1).train)


# Folders


def test_folders_give_the_same_as_records(open_images, rec, tmp_path):
    def labelled(*flags):
        return {
            pixels.tobytes(): label
            for batch in epoch_of(open_images(*flags).validation)
            for pixels, label in zip(*batch[:2])
        }

    for part in ('train', 'val'):
        save_folders(tmp_path / part, [jpeg(number) for number in range(COUNT)])
    source = FolderSource(str(tmp_path / 'train'))
    assert source.classes == ['ant', 'bee', 'cat']
    assert source.name(10) == f'{tmp_path}/train/bee/001.JPEG'
    assert labelled('--data-dir', tmp_path) == labelled('--data-train', rec, '--data-val', rec)


def test_files_that_are_no_images_are_passed_over(tmp_path):
    save_folders(tmp_path, [jpeg(0), jpeg(1)], ['b', 'a'])
    (tmp_path / 'a' / 'list.txt').write_text('x')
    (tmp_path / 'README').write_text('x')
    assert len(FolderSource(str(tmp_path))) == 2


def test_a_file_that_vanishes_is_damage(open_images, tmp_path):
    for part in ('train', 'val'):
        save_folders(tmp_path / part, [jpeg(number) for number in range(10)])
    data = open_images('--data-dir', tmp_path)
    (tmp_path / 'val' / 'bee' / '004.JPEG').unlink()
    with pytest.raises(DataError, match=r'bee/004\.JPEG: no such file'):
        epoch_of(data.validation)


@pytest.mark.parametrize(
    ('spoil', 'said'),
    [
        (lambda folder: os.rename(folder / 'val', folder / 'test'), 'val: no such folder'),
        (
            lambda folder: os.rename(folder / 'val' / 'ant', folder / 'val' / 'eel'),
            r"different class folders; 'ant' is in one of them only",
        ),
        (
            lambda folder: os.makedirs(folder / 'val' / 'dog'),
            r"different class folders; 'dog' is in one of them only",
        ),
    ],
)
def test_folders_that_do_not_fit(open_images, tmp_path, spoil, said):
    for part in ('train', 'val'):
        save_folders(tmp_path / part, [jpeg(number) for number in range(6)])
    spoil(tmp_path)
    with pytest.raises(DataError, match=said):
        open_images('--data-dir', tmp_path)


@pytest.mark.parametrize(
    'make',
    [
        lambda folder: None,
        lambda folder: (folder / 'ant').mkdir(),
        lambda folder: (folder / '1.JPEG').write_bytes(jpeg(0)),
    ],
)
def test_folders_without_images(tmp_path, make):
    make(tmp_path)
    with pytest.raises(DataError, match='no class folders|no images'):
        FolderSource(str(tmp_path))


def test_shapes_that_cannot_be(open_images, rec):
    with pytest.raises(DataError, match='three channels, not the 1'):
        open_images('--data-train', rec, '--data-val', rec, shape=(1, 32, 32))
    with pytest.raises(DataError, match='--resize 31: the centre of 32 x 32 pixels is larger than that'):
        open_images('--data-train', rec, '--data-val', rec, '--resize', 31)
    with pytest.raises(DataError, match='a batch size of 31 on 1 worker'):
        open_images('--data-train', rec, '--data-val', rec, batch_size=31)
