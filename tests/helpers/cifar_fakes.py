"""A CIFAR of a few random images in every official layout, with sums of its own."""

import hashlib
import io
import json
import struct
import tarfile

import numpy as np

from train.data.cifar import CIFAR10

RECORDS = 6


def fake_cifar(like=CIFAR10, seed=0):
    """(Cifar, {file name: bytes} of the binary version, the same of the Python version)"""
    rng = np.random.default_rng(seed)
    binary, python, parts = {}, {}, []
    for part in like.parts:
        records = rng.integers(0, 256, (RECORDS, like.label_bytes + 3072), np.uint8)
        records[:, : like.label_bytes] = rng.integers(0, 10, (RECORDS, like.label_bytes))
        binary[part.name + '.bin'] = records.tobytes()
        python[part.name] = python2_pickle(
            records[:, like.label_bytes :], records[:, like.label_bytes - 1].tolist(), like.labels_key
        )
        parts.append(
            part._replace(
                records=RECORDS,
                sha1=hashlib.sha1(binary[part.name + '.bin']).hexdigest(),
                md5=hashlib.md5(python[part.name]).hexdigest(),
            )
        )
    split = len(like.train)
    return like._replace(train=tuple(parts[:split]), test=tuple(parts[split:])), binary, python


def expected_arrays(cifar, binary):
    """What reading any layout must give, record by record."""
    result = []
    for parts in (cifar.train, cifar.test):
        images, labels = [], []
        for part in parts:
            data = binary[part.name + '.bin']
            size = cifar.label_bytes + 3072
            for begin in range(0, len(data), size):
                labels.append(data[begin + cifar.label_bytes - 1])
                images.append(
                    np.frombuffer(data[begin + cifar.label_bytes : begin + size], np.uint8).reshape(3, 32, 32)
                )
        result += [np.stack(images), np.array(labels)]
    return result


def python2_pickle(pixels, labels, labels_key, fortran_order=False):
    """A batch as Python 2's cPickle wrote it (protocol 2, byte strings), which Python 3 has no way to write."""

    def string(text):
        return b'U' + bytes([len(text)]) + text

    def integer(value):
        return b'J' + struct.pack('<i', value)

    array = (
        b'cnumpy.core.multiarray\n_reconstruct\n'
        + b'(cnumpy\nndarray\n'
        + b'('
        + integer(0)
        + b't'
        + string(b'b')
        + b'tR'
        + b'('
        + integer(1)
        + b'('
        + b''.join(map(integer, pixels.shape))
        + b't'
        + b'cnumpy\ndtype\n'
        + b'('
        + string(b'u1')
        + integer(0)
        + integer(1)
        + b'tR'
        + b'('
        + integer(3)
        + string(b'|')
        + b'NNN'
        + integer(-1)
        + integer(-1)
        + integer(0)
        + b'tb'
        + (b'\x88' if fortran_order else b'\x89')
        + b'T'
        + struct.pack('<i', pixels.size)
        + pixels.tobytes('F' if fortran_order else 'C')
        + b'tb'
    )
    names = b']' + b'(' + b''.join(string(b'image_%d.png' % number) for number in range(len(labels))) + b'e'
    return (
        b'\x80\x02}('
        + string(b'batch_label')
        + string(b'a batch')
        + string(labels_key)
        + b']('
        + b''.join(map(integer, labels))
        + b'e'
        + string(b'data')
        + array
        + string(b'filenames')
        + names
        + b'u.'
    )


def write_folder(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def archive_bytes(folder_name, files):
    """A .tar.gz with ``files`` in a folder, and a stranger among them."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode='w:gz') as archive:
        for name, data in {'readme.html': b'<html>', **files}.items():
            member = tarfile.TarInfo(f'{folder_name}/{name}')
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return whole.getvalue()


def npm_package_bytes(cifar, binary):
    """The PNG form of CIFAR-10: one image a row of 1024 RGB pixels, labels as JSON."""
    from PIL import Image

    files, labels = {}, {'train': [], 'test': []}
    for split, parts in (('train', cifar.train), ('test', cifar.test)):
        for part in parts:
            records = np.frombuffer(binary[part.name + '.bin'], np.uint8).reshape(RECORDS, 3073)
            picture = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(records[:, 1:].reshape(RECORDS, 3, 1024).transpose(0, 2, 1))).save(
                picture, 'PNG'
            )
            files[part.name + '.png'] = picture.getvalue()
            labels[split] += records[:, 0].tolist()
    files.update({f'{split}_lables.json': json.dumps(values).encode() for split, values in labels.items()})
    return archive_bytes('package', files)
