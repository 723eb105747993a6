"""Where the images of a set lie: in folders, or in ImageNet's tar files, which stay as they are; each image is a
stretch of bytes of some file.
"""

import os
import posixpath
import tarfile
from typing import NamedTuple

import tqdm

from runtime.errors import DataError

ENDINGS = ('.jpeg', '.jpg', '.png')


class Image(NamedTuple):
    """An image: its ``name``, ``class/file`` or, without classes, ``file``; ``size`` bytes at ``offset`` of the file
    ``path``, -1 for all of it.
    """

    name: str
    path: str
    offset: int = 0
    size: int = -1

    @property
    def class_name(self):
        return posixpath.dirname(self.name)

    def read(self):
        """The bytes of the image. Raises OSError."""
        with open(self.path, 'rb') as source:
            source.seek(self.offset)
            return source.read(self.size)


def find_images(source):
    """Every Image of ``source``, sorted by class and file, either all in classes or none.

    ``source`` is a folder of images or of one folder a class, or a tar file of images, of such folders, or of one tar
    file a class. Raises DataError where it is anything else, mixed, or damaged.
    """
    if os.path.isdir(source):
        images = list(_images_in_folder(source))
    elif os.path.isfile(source):
        images = list(_images_in_tar(source))
    else:
        raise DataError(f'{source}: there is no such folder or tar file')
    if not images:
        raise DataError(f'{source} holds no images ({", ".join(ENDINGS)}), nor folders or tar files of them')
    images.sort(key=lambda image: (image.class_name, image.name))
    if not images[0].class_name and images[-1].class_name:
        raise DataError(
            f'{source} holds images both in classes ({images[-1].name}) and without ({images[0].name}): move either '
            'elsewhere'
        )
    twice = next((one for one, other in zip(images, images[1:]) if one.name == other.name), None)
    if twice:
        raise DataError(f'{source} holds {twice.name} twice')
    unfit = next((image for image in images if not image.name.isprintable()), None)
    if unfit:
        raise DataError(f'{source} holds a file whose name {unfit.name!r} fits into no list: rename it')
    return images


def _images_in_folder(root):
    for entry in _listed(root):
        if entry.is_dir() and not entry.name.startswith('.'):
            images = [
                Image(f'{entry.name}/{file.name}', file.path)
                for file in _listed(entry.path)
                if _is_image(file.name) and file.is_file()
            ]
            if not images:
                raise DataError(
                    f'{entry.path} holds no images ({", ".join(ENDINGS)}); each folder in {root} must be a class'
                )
            yield from images
        elif _is_image(entry.name) and entry.is_file():
            yield Image(entry.name, entry.path)


def _listed(folder):
    return tqdm.tqdm(os.scandir(folder), desc=folder, unit='file', leave=False, delay=2, disable=None)


def _images_in_tar(path):
    with open(path, 'rb') as archive:
        for member, begin in tqdm.tqdm(_members(archive, path), desc=path, unit='file', leave=False, disable=None):
            name = member.name.rsplit('/', 1)[-1]
            if name.lower().endswith('.tar'):
                yield from _images_in_class(archive, path, name[: -len('.tar')], begin, member.size)
            elif _is_image(name):
                folder = posixpath.basename(posixpath.dirname(member.name))
                yield Image(f'{folder}/{name}' if folder not in ('', '.') else name, path, begin, member.size)


def _images_in_class(archive, path, class_name, begin, size):
    found = False
    for member, place in _members(archive, f'{path}, {class_name}.tar', begin, size):
        name = member.name.rsplit('/', 1)[-1]
        if _is_image(name):
            found = True
            yield Image(f'{class_name}/{name}', path, place, member.size)
    if not found:
        raise DataError(f'{path}, {class_name}.tar: holds no images ({", ".join(ENDINGS)})')


def _members(archive, label, begin=0, size=None):
    """The files of the tar file that is the stretch of ``archive`` from ``begin`` on, each with the place of its bytes
    in ``archive``.

    Python's tarfile takes a damaged header for the end and says nothing, so the mark of the end is looked for. Raises
    DataError that begins with ``label``.
    """
    end = os.fstat(archive.fileno()).st_size if size is None else begin + size
    try:
        archive.seek(begin)
        # Other uses of ``archive`` between two members are no matter: tarfile seeks before it reads.
        with tarfile.open(fileobj=archive, mode='r:') as members:
            for member in iter(members.next, None):
                members.members.clear()  # tarfile keeps them all, and nobody asks for them again
                if member.offset_data + member.size > end:
                    raise DataError(f'{label}: {member.name} is cut off; fetch the file again')
                if member.isreg() and not member.issparse():
                    yield member, member.offset_data
            mark_at = members.offset
    except tarfile.ReadError as error:
        raise DataError(f'{label}: not a whole tar file without compression ({error})') from None
    archive.seek(mark_at)
    mark = archive.read(min(tarfile.BLOCKSIZE, end - mark_at))
    if len(mark) < tarfile.BLOCKSIZE or any(mark):
        raise DataError(f'{label}: damaged or cut off at byte {mark_at}; fetch the file again')


def _is_image(name):
    return name.lower().endswith(ENDINGS) and not name.startswith('.')
