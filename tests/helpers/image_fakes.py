"""ImageNets of a few small images: as folders, as tar files, with a development kit, and with the odd images that the
real one has.
"""

import io
import tarfile

import numpy as np
from PIL import Image
from scipy.io import savemat

WNIDS = ('n01440764', 'n01443537', 'n02105855')
ORIENTATION = 0x0112  # the EXIF tag


def picture(height, width, seed=0):
    """A soft random image, uint8 (height, width, 3) in RGB; noise would make JPEGs of several times the size of
    photographs.
    """
    noise = np.random.RandomState(seed).randint(0, 256, (height // 16 + 2, width // 16 + 2, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(noise).resize((width, height), Image.BICUBIC))


def encoded(pixels, image_format='JPEG', mode='RGB', orientation=None, **options):
    """The bytes of an image file of ``pixels`` (H, W, 3)."""
    out = io.BytesIO()
    if orientation:
        options['exif'] = Image.Exif()
        options['exif'][ORIENTATION] = orientation
    Image.fromarray(pixels).convert(mode).save(out, image_format, **options)
    return out.getvalue()


def odd_images(height=40, width=56):
    """The bytes of one image of each odd kind, by kind; the last two cannot be decoded."""
    pixels = picture(height, width, seed=99)
    plain = encoded(pixels, quality=95)
    return {
        'grey': encoded(pixels, mode='L', quality=95),
        'cmyk': encoded(pixels, mode='CMYK', quality=98),
        'png': encoded(pixels, 'PNG'),
        'truncated': plain[: len(plain) // 2],
        'text': b'<html>404</html>',
    }


def class_folders(per_class=4, classes=WNIDS, seed=0):
    """A training set, {'wnid/wnid_5.JPEG': bytes}, of RGB JPEGs of 32 … 64 pixels."""
    shapes = np.random.RandomState(seed).randint(32, 65, (len(classes), per_class, 2))
    return {
        f'{name}/{name}_{number}.JPEG': encoded(
            picture(*map(int, shapes[label, number]), seed=1000 * label + number), quality=90
        )
        for label, name in enumerate(classes)
        for number in range(per_class)
    }


def validation_images(count, seed=5):
    """A validation set without folders, {'ILSVRC2012_val_00000001.JPEG': bytes}."""
    return {
        f'ILSVRC2012_val_{number:08d}.JPEG': encoded(picture(36, 48, seed + number), quality=90)
        for number in range(1, count + 1)
    }


def write_files(folder, files):
    """Write {relative path: bytes} below ``folder`` (a pathlib.Path), which is returned as str."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return str(folder)


def tar_of(files, mode='w'):
    """The bytes of a tar file of {name: bytes}."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def tar_of_tars(files):
    """``files`` in class folders the way ILSVRC2012_img_train.tar has them: a tar file of one tar file a class."""
    inner = {}
    for name, data in files.items():
        folder, file = name.split('/')
        inner.setdefault(f'{folder}.tar', {})[file] = data
    return tar_of({name: tar_of(members) for name, members in inner.items()})


def devkit_files(numbers, seed=3):
    """The files of ILSVRC2012_devkit_t12 for validation images of the kit's class ``numbers`` (1 … 1000), and the wnid
    of each class number.

    The numbers follow no alphabet; 30 ancestors with higher numbers stand among the classes.
    """
    random = np.random.RandomState(seed)
    wnids = {
        number + 1: f'n{wnid:08d}' for number, wnid in enumerate(random.permutation(np.arange(1440764, 1440764 + 1030)))
    }
    fields = [
        (name, object)
        for name in (
            'ILSVRC2012_ID',
            'WNID',
            'words',
            'gloss',
            'num_children',
            'children',
            'wordnet_height',
            'num_train_images',
        )
    ]
    synsets = np.empty((len(wnids), 1), fields)
    for row, number in enumerate(random.permutation(sorted(wnids))):
        children = np.zeros((1, 0), np.uint8) if number <= 1000 else np.array([[1, 2]], np.uint16)
        synsets[row, 0] = (
            np.array([[number]], np.uint16),
            wnids[number],
            f'word {number}',
            'gloss',
            np.array([[children.size]], np.uint8),
            children,
            np.array([[0]], np.uint8),
            np.array([[1300]], np.uint16),
        )
    meta = io.BytesIO()
    savemat(meta, {'synsets': synsets})
    truth = ''.join(f'{number}\n' for number in numbers).encode()
    files = {
        'ILSVRC2012_devkit_t12/data/meta.mat': meta.getvalue(),
        'ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt': truth,
    }
    return files, wnids
