"""What is wrong with a set of record files is found and named; what cannot be made into one is refused, and nothing is
written.
"""

import gzip
import io
import json
import os
import tarfile

import pytest
from helpers.image_fakes import (
    WNIDS,
    class_folders,
    devkit_files,
    odd_images,
    tar_of,
    tar_of_tars,
    validation_images,
    write_files,
)
from helpers.record_sets import make, manifest_of
from helpers.tiny_runs import open_bytes, refused

from formats.record_file import RecordFile, RecordWriter
from runtime.cli import run
from tools import make_record
from tools.records.manifest import sums


@pytest.fixture(scope='module')
def images():
    return class_folders()


@pytest.fixture
def train(images, tmp_path):
    return write_files(tmp_path / 'train', images)


@pytest.fixture
def prefix(tmp_path):
    return str(tmp_path / 'out' / 'set')


@pytest.fixture(scope='module')
def kit():
    """The class numbers of six validation images, the kit's files, and the wnid of each number."""
    numbers = [490, 1, 1000, 361, 1, 77]
    return (numbers, *devkit_files(numbers))


@pytest.fixture
def finished(train, prefix):
    make(train, prefix)
    return prefix


def faults_of(prefix, capfd):
    """What --verify logs, and its last line."""
    capfd.readouterr()
    with pytest.raises(SystemExit) as end:
        run(make_record.main, ['--verify', prefix, '--jobs', '1'])
    assert end.value.code == 2
    *lines, last = capfd.readouterr().err.splitlines()
    return [line.split('Node[0] ', 1)[1] for line in lines if 'Speed' not in line], last


def rewrite(prefix, change):
    """Write the records of a set again, each as ``change(key, label, image)`` has it, and bring the sums of the
    manifest up to date.
    """
    with RecordFile(f'{prefix}.rec', f'{prefix}.idx') as file:
        records = [file.read(position) for position in range(len(file))]
    with RecordWriter(f'{prefix}.rec', f'{prefix}.idx') as out:
        for record in records:
            out.write(record.key, *change(record.key, record.label[0], record.image))
    manifest = {**manifest_of(prefix), 'files': sums(prefix)}
    with open(f'{prefix}.json', 'w', encoding='utf-8') as out:
        json.dump(manifest, out)


def test_verify_finds_nothing_in_a_whole_set(finished, capfd):
    assert make_record.main(['--verify', finished]) == 0
    assert capfd.readouterr().out == f'{finished}: all records are there and whole\n'


def test_verify_names_a_changed_byte(finished, capfd):
    with RecordFile(f'{finished}.rec', f'{finished}.idx') as file, open(f'{finished}.rec', 'r+b') as out:
        offset = int(open_bytes(f'{finished}.idx').split()[5])
        out.seek(offset)
        out.write(b'?')
        key = int(file.keys[2])
    lines, last = faults_of(finished, capfd)
    name = open_bytes(f'{finished}.lst').decode().splitlines()[2].split('\t')[2]
    wnid = name.split('/')[0]
    assert lines == [
        f'{finished}.rec: is not what was written, its SHA-256 sum has changed',
        f'{finished}.rec: record {key} at byte {offset} begins with 3f23d7ce in place of the magic number 0a23d7ce '
        f'({name})',
        f'{finished}.rec: class {wnid} has 3 readable records, 4 were written',
    ]
    assert last == f'error: {finished}: 3 faults, which the log names; make the set again'


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (
            lambda key, label, image: (label, image[: len(image) // 2]) if key == 5 else (label, image),
            ['record 5 cannot be decoded: ', 'class'],
        ),
        (
            lambda key, label, image: (label, odd_images()['png']) if key == 5 else (label, image),
            ['a RGB PNG is no JPEG in RGB or grey', 'class'],
        ),
        (
            lambda key, label, image: ([label, 1], image) if key == 5 else (label, image),
            ['record 5 has 2 labels in place of one', 'class'],
        ),
        (
            lambda key, label, image: ((label + 1) % 3, image) if key == 5 else (label, image),
            ['record 5 has label', 'class', 'class'],
        ),
    ],
)
def test_verify_looks_into_the_records(finished, capfd, change, words):
    rewrite(finished, change)
    lines, _ = faults_of(finished, capfd)
    assert len(lines) == len(words)
    assert all(word in line for line, word in zip(lines, words))


def test_verify_compares_list_index_and_manifest(finished, capfd):
    for ending, words in (('lst', 'does not list the records that'), ('idx', 'lists 11 records, 12 were written')):
        kept = open_bytes(f'{finished}.{ending}')
        with open(f'{finished}.{ending}', 'wb') as out:
            out.write(b''.join(kept.splitlines(True)[:-1]))
        lines, _ = faults_of(finished, capfd)
        assert (
            f'{finished}.{ending}: has {os.path.getsize(f"{finished}.{ending}")} bytes, {len(kept)} were written'
            == lines[0]
        )
        assert any(words in line for line in lines)
        with open(f'{finished}.{ending}', 'wb') as out:
            out.write(kept)
    os.remove(f'{finished}.idx')
    assert faults_of(finished, capfd)[0] == [f'{finished}.idx: there is no such file']


def test_a_finished_set_is_not_overwritten_unless_forced(train, finished, tmp_path, capfd):
    line = refused(capfd, tmp_path, train, finished, script=make_record)
    assert f'{finished}.json is already there' in line
    os.remove(f'{finished}.json')  # as other tools leave it
    assert f'{finished}.lst is already there' in refused(capfd, tmp_path, train, finished, script=make_record)
    before = open_bytes(f'{finished}.rec')
    make(train, finished, '--force')
    assert open_bytes(f'{finished}.rec') == before


def broken_tar(kind, images):
    whole = tar_of_tars(images)
    if kind == 'cut in a class':
        return whole[: len(whole) * 2 // 3]
    if kind == 'cut between classes':
        return whole[: tarfile.open(fileobj=io.BytesIO(whole)).getmember(f'{WNIDS[2]}.tar').offset]
    if kind == 'compressed':
        return gzip.compress(whole)
    place = whole.index(f'{WNIDS[1]}_2.JPEG'.encode())  # the header of an image: tarfile would take it for the end
    return whole[:place] + b'\xff' * 100 + whole[place + 100 :]


@pytest.mark.parametrize(
    ('kind', 'words'),
    [
        ('cut in a class', 'is cut off; fetch the file again'),
        ('cut between classes', 'damaged or cut off at byte'),
        ('compressed', 'without compression'),
        ('damaged header', f'{WNIDS[1]}.tar: damaged or cut off at byte'),
    ],
)
def test_a_broken_tar_file_is_refused(images, prefix, tmp_path, capfd, kind, words):
    (tmp_path / 'train.tar').write_bytes(broken_tar(kind, images))
    assert words in refused(capfd, tmp_path, tmp_path / 'train.tar', prefix, script=make_record)


@pytest.mark.parametrize(
    ('files', 'words'),
    [
        ({}, 'there is no such folder or tar file'),
        ({'readme.txt': b''}, 'holds no images (.jpeg, .jpg, .png, .bmp, .webp)'),
        ({'a.JPEG': b'x'}, 'the images are in no class folders: give --devkit'),
        ({'a.JPEG': b'x', 'n1/b.JPEG': b'x'}, 'both in classes (n1/b.JPEG) and without (a.JPEG)'),
        ({'n1/b.JPEG': b'x', 'n2/readme.txt': b''}, 'n2 holds no images (.jpeg, .jpg, .png, .bmp, .webp); each'),
        ({'n1/b\tc.JPEG': b'x'}, "'n1/b\\tc.JPEG' cannot be written into a list"),
    ],
)
def test_a_source_that_is_no_image_set_is_refused(prefix, tmp_path, capfd, files, words):
    assert words in refused(capfd, tmp_path, write_files(tmp_path / 'source', files), prefix, script=make_record)


def test_a_development_kit_that_does_not_fit_is_refused(kit, images, prefix, tmp_path, capfd):
    _, files, _ = kit
    meta, truth = files
    val, folders = write_files(tmp_path / 'val', validation_images(7)), write_files(tmp_path / 'folders', images)
    for source, change, words in (
        (val, {}, 'ILSVRC2012_val_00000007.JPEG is not named like a validation image'),
        (folders, {}, ' is none of the 1000 classes of'),
        (val, {truth: None}, 'ILSVRC2012_validation_ground_truth.txt is not in it'),
        (val, {truth: b'1\n0\n'}, 'ILSVRC2012_validation_ground_truth.txt is not numbers from 1 to 1000'),
        (val, {truth: b'1\n1001\n'}, 'ILSVRC2012_validation_ground_truth.txt is not numbers from 1 to 1000'),
        (val, {meta: files[meta][:5000]}, 'meta.mat cannot be read'),
        (val, {meta: b''}, 'meta.mat cannot be read'),
    ):
        changed = {name: data for name, data in {**files, **change}.items() if data is not None}
        path = tmp_path / 'kit.tar.gz'
        path.write_bytes(tar_of(changed, 'w:gz'))
        line = refused(capfd, tmp_path, source, prefix, '--devkit', path, script=make_record)
        assert words in line
    path.write_bytes(path.read_bytes()[:-30])
    assert 'not the development kit, or damaged' in refused(
        capfd, tmp_path, val, prefix, '--devkit', path, script=make_record
    )


@pytest.mark.parametrize(
    ('args', 'words'),
    [
        (['a'], 'give SOURCE and PREFIX, or --verify PREFIX'),
        (['a', 'b', '--verify', 'c'], 'give SOURCE and PREFIX, or --verify PREFIX'),
        (['a', 'b', '--resize', '0'], '--resize must be from 1'),
        (['a', 'b', '--quality', '101'], '--quality must be from 1 to 100'),
        (['a', 'b', '--jobs', '0'], '--jobs must be'),
        (['a', 'b', '--max-bad', 'nan'], '--max-bad must be from 0 to 1'),
        (['a', 'b', '--devkit', 'c', '--classes', 'd'], '--devkit has its own classes'),
        (['--verify', 'nowhere/a'], 'nowhere/a.json: no such file; the set was never finished'),
    ],
)
def test_what_cannot_be_done_is_refused(tmp_path, capfd, args, words):
    assert words in refused(capfd, tmp_path, *args, script=make_record)
