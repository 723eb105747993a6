"""What counts as an image of a set: the same in make_record.py and in --data-dir, and what is left out is said."""

import io
import tarfile

import cv2
import numpy as np
import pytest
from helpers.image_fakes import encoded, picture, write_files
from helpers.record_sets import decoded, make, manifest_of, records_of
from helpers.tiny_runs import refused
from PIL import Image

from runtime.errors import DataError
from tools import make_record
from tools.records.labels import read_classes
from train.data.image_sources import FolderSource

PLAIN = encoded(picture(40, 48), quality=90)


@pytest.fixture
def prefix(tmp_path):
    return str(tmp_path / 'out' / 'set')


def in_each_format():
    return {
        f'red fox/{name}': encoded(picture(40, 48, seed), image_format)
        for seed, (name, image_format) in enumerate(
            [('a.jpg', 'JPEG'), ('b.JPEG', 'JPEG'), ('c.png', 'PNG'), ('d.bmp', 'BMP'), ('e.webp', 'WEBP')]
        )
    }


def rubbish():
    """What file managers, editors and authors leave beside images."""
    return {
        '.ipynb_checkpoints/a-checkpoint.jpg': PLAIN,
        '._red fox': b'\0\5\26\7Mac OS X',
        'red fox/._a.jpg': b'\0\5\26\7Mac OS X',
        'red fox/notes.txt': b'x',
        'red fox/f.gif': b'GIF89a',
        'red fox/g.gif': b'GIF89a',
        'red fox/README': b'x',
    }


def test_both_tools_take_the_same_files_and_count_the_rest(prefix, tmp_path, caplog, capfd):
    folder = write_files(tmp_path / 'train', {**in_each_format(), 'red panda/a.jpg': PLAIN, **rubbish()})
    source = FolderSource(folder)
    assert source.classes == ['red fox', 'red panda']
    names = sorted(source.name(position)[len(folder) + 1 :] for position in range(len(source)))
    assert names == sorted([*in_each_format(), 'red panda/a.jpg'])
    (record,) = caplog.records
    assert f'{folder}: 4 files or folders are not used (2 × .gif, 1 × .txt, 1 × no ending);' in record.getMessage()
    make(folder, prefix)
    assert sorted(records_of(prefix)) == names
    assert '4 files or folders are not used (2 × .gif' in capfd.readouterr().err


def test_a_tar_file_has_the_same_rules(prefix, tmp_path, capfd):
    with tarfile.open(tmp_path / 'train.tar', 'w') as archive:
        archive.add(write_files(tmp_path / 'train', {**in_each_format(), **rubbish()}), 'train')
    make(tmp_path / 'train.tar', prefix)
    assert sorted(records_of(prefix)) == sorted(in_each_format())
    assert '4 files or folders are not used (2 × .gif' in capfd.readouterr().err


def test_pictures_elsewhere_are_counted(tmp_path, caplog):
    files = {'a/1.jpg': PLAIN, 'a/inner/2.jpg': PLAIN, '3.jpg': PLAIN}
    assert len(FolderSource(write_files(tmp_path, files))) == 1
    for words in ('1 × folder inside a class', '1 × image outside of the class folders'):
        assert words in caplog.text


def test_given_classes_number_the_folders(tmp_path, caplog):
    folder = write_files(tmp_path, {'b/1.jpg': PLAIN, 'c/1.jpg': PLAIN})
    source = FolderSource(folder, ['a', 'b', 'c'])
    assert [source.read(position)[1] for position in range(2)] == [1.0, 2.0]
    assert '1 of the 3 classes have no image here: a' in caplog.text
    with pytest.raises(DataError, match=r"has a folder 'c', which is none of the 2 classes \(a, b\)"):
        FolderSource(folder, ['a', 'b'])


# Class lists


def test_class_names_may_hold_spaces(prefix, tmp_path):
    source = write_files(tmp_path / 'val', {'red panda/a.jpg': PLAIN})
    (tmp_path / 'classes.txt').write_text('red fox\nred panda\n\n')
    make(source, prefix, '--classes', tmp_path / 'classes.txt')
    assert manifest_of(prefix)['classes'] == ['red fox', 'red panda']
    assert [record.label[0] for record in records_of(prefix).values()] == [1]


def test_first_words_name_the_classes_where_whole_lines_do_not(tmp_path):
    path = tmp_path / 'classes.txt'
    path.write_text('n01 tench, Tinca\nn02 goldfish\n')
    assert read_classes(str(path), ['n02']) == ['n01', 'n02']
    assert read_classes(str(path), ['n02 goldfish']) == ['n01 tench, Tinca', 'n02 goldfish']
    path.write_text('red fox\nred fox\n')
    with pytest.raises(DataError, match="lists the class 'red fox' twice"):
        read_classes(str(path), ['red fox'])


# 16 bits


@pytest.mark.parametrize('orientation', [None, 6])
def test_grey_of_16_bits_keeps_its_shades(prefix, tmp_path, orientation):
    """As OpenCV reads it, which decodes images in folders."""
    shades = (np.arange(64 * 48, dtype=np.uint32).reshape(64, 48) * 21 % 65536).astype(np.uint16)
    shades = cv2.GaussianBlur(shades, (0, 0), 3)
    out = io.BytesIO()
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.fromarray(shades).save(out, 'PNG', exif=exif)
    make(write_files(tmp_path / 'train', {'a/deep.png': out.getvalue()}), prefix, '--quality', 98)
    found = decoded(records_of(prefix)['a/deep.png'].image).astype(int)
    expected = (np.rot90(shades, -1) if orientation else shades) >> 8
    assert found.shape[:2] == expected.shape
    assert np.abs(found - expected[..., np.newaxis]).max() < 8
    assert found.std() > 10


# Links in tar files


def linked_tar(path, links):
    """A tar file of ``train/a/1.jpg``, and ``links``: (name, type, target)."""
    with tarfile.open(path, 'w') as archive:
        for name, kind, target in links[:1]:
            archive.addfile(link(name, kind, target))
        member = tarfile.TarInfo('train/a/1.jpg')
        member.size = len(PLAIN)
        archive.addfile(member, io.BytesIO(PLAIN))
        for name, kind, target in links[1:]:
            archive.addfile(link(name, kind, target))
    return path


def link(name, kind, target):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def test_linked_images_of_a_tar_file_are_images(prefix, tmp_path):
    links = [
        ('train/b/2.jpg', tarfile.LNKTYPE, 'train/a/1.jpg'),
        ('train/b/3.jpg', tarfile.SYMTYPE, '../a/1.jpg'),
        ('./train/b/4.jpg', tarfile.SYMTYPE, '3.jpg'),
    ]
    make(linked_tar(tmp_path / 'train.tar', links), prefix)
    assert {name: record.image for name, record in records_of(prefix).items()} == dict.fromkeys(
        ('a/1.jpg', 'b/2.jpg', 'b/3.jpg', 'b/4.jpg'), PLAIN
    )


@pytest.mark.parametrize(
    'links',
    [
        [('train/b/2.jpg', tarfile.LNKTYPE, 'train/c/1.jpg')],
        [('train/b/2.jpg', tarfile.SYMTYPE, '3.jpg'), ('train/b/3.jpg', tarfile.SYMTYPE, '2.jpg')],
    ],
)
def test_a_link_to_nothing_is_refused(prefix, tmp_path, capfd, links):
    line = refused(capfd, tmp_path, linked_tar(tmp_path / 'train.tar', links), prefix, script=make_record)
    assert 'train.tar: train/b/2.jpg is a link to' in line
    assert line.endswith('which is no file in there')
