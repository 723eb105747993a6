"""Where the images of a set are: in folders, or in ImageNet's tar files, which are not unpacked; each image is a
stretch of bytes of some file.
"""

import os
import posixpath
import tarfile
from collections import Counter
from typing import BinaryIO, Dict, Iterator, List, NamedTuple, Optional, Tuple

import tqdm

from runtime.errors import DataError, UserError
from runtime.reading import MB, open_regular
from train.data.image_folders import ENDINGS, NO_CLASS, SPECIAL, is_hidden, is_image, kind_of, list_images, log_left_out

# What a record can hold.
MAX_IMAGE_FILE = 512 * MB


class Image(NamedTuple):
    """An image: its ``name``, ``class/file`` or, without classes, ``file``; ``size`` bytes at ``offset`` of the file
    ``path``, -1 for all of it.
    """

    name: str
    path: str
    offset: int = 0
    size: int = -1

    @property
    def class_name(self) -> str:
        """The class in ``name``, '' without one."""
        return posixpath.dirname(self.name)

    def read(self) -> bytes:
        """The bytes of the image file. Raises DataError where it is missing or too large, OSError."""
        with open_regular(self.path, MAX_IMAGE_FILE if self.size < 0 else None) as source:
            source.seek(self.offset)
            return source.read(self.size)


def find_images(source: str) -> List[Image]:
    """Every Image of ``source``, sorted by class and file, either all in classes or none; the log says what is left out
    because it is no image.

    ``source`` is a folder of images or of one folder a class, or a tar file of images, of such folders, or of one tar
    file a class. Raises DataError where it is anything else, mixed, or damaged.
    """
    left_out: Counter = Counter()
    if os.path.isdir(source):
        images = _images_in_folder(source, left_out)
    elif os.path.isfile(source):
        images = list(_images_in_tar(source, left_out))
    else:
        raise DataError(f'{source}: there is no such folder or tar file')
    log_left_out(source, left_out)
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
        raise DataError(f'{source} holds a file whose name {unfit.name!r} cannot be written into a list: rename it')
    return images


def _images_in_folder(root: str, left_out: Counter) -> List[Image]:
    found, listed = list_images(root)
    left_out.update(listed)
    empty = next((name for name, files in found.items() if name != NO_CLASS and not files), None)
    if empty:
        raise DataError(
            f'{os.path.join(root, empty)} holds no images ({", ".join(ENDINGS)}); each folder in {root} must be a class'
        )
    return [
        Image(posixpath.join(name, file), os.path.join(root, name, file))
        for name, files in found.items()
        for file in files
    ]


def _images_in_tar(path: str, left_out: Counter) -> Iterator[Image]:
    with open_regular(path) as archive:
        members = _members(archive, path, left_out)
        for member in tqdm.tqdm(members, desc=path, unit='file', leave=False, disable=None):
            folder, name = posixpath.split(member.name)
            if name.lower().endswith('.tar'):
                class_name = name[: -len('.tar')]
                yield from _images_in_class(archive, path, class_name, member, left_out)
            elif is_image(name):
                yield Image(posixpath.join(posixpath.basename(folder), name), path, member.begin, member.size)
            else:
                left_out[kind_of(name)] += 1


def _images_in_class(
    archive: BinaryIO, path: str, class_name: str, outer: '_Member', left_out: Counter
) -> Iterator[Image]:
    found = False
    for member in _members(archive, f'{path}, {class_name}.tar', left_out, outer.begin, outer.size):
        name = posixpath.basename(member.name)
        if is_image(name):
            found = True
            yield Image(f'{class_name}/{name}', path, member.begin, member.size)
        else:
            left_out[kind_of(name)] += 1
    if not found:
        raise DataError(f'{path}, {class_name}.tar: holds no images ({", ".join(ENDINGS)})')


class _Member(NamedTuple):
    """A file of a tar file: its path in there, and where its bytes stand in the archive."""

    name: str
    begin: int
    size: int


def _members(
    archive: BinaryIO, label: str, left_out: Counter, begin: int = 0, size: Optional[int] = None
) -> Iterator[_Member]:
    """The files of the tar file that is the stretch of ``archive`` from ``begin`` on, and the links in it. Names that
    begin with a dot are skipped; what is neither file nor link is counted in ``left_out``.

    Raises DataError that begins with ``label``.
    """
    links: Dict[str, str] = {}
    for entry in _entries(archive, label, begin, size):
        name = posixpath.normpath(entry.name)
        if entry.isdir() or any(is_hidden(part) for part in name.split('/') if part != '..'):
            continue
        if entry.islnk() or entry.issym():
            # A symbolic link is relative to its folder, a hard link to the root.
            links[name] = posixpath.normpath(
                posixpath.join(posixpath.dirname(name) if entry.issym() else '', entry.linkname)
            )
        elif entry.isreg() and not entry.issparse():
            yield _Member(name, entry.offset_data, entry.size)
        else:
            left_out[SPECIAL] += 1
    if links:
        yield from _linked(archive, label, links, begin, size)


def _linked(archive: BinaryIO, label: str, links: Dict[str, str], begin: int, size: Optional[int]) -> Iterator[_Member]:
    """The images among ``links``, path → path of the target, with the bytes of their targets, which a second reading
    finds: tar files with links are rare, and the places of a million files are not kept for them.
    """
    targets = {name: _end_of(links, name) for name in links if is_image(posixpath.basename(name))}
    wanted = set(targets.values())
    places: Dict[Optional[str], Tuple[int, int]] = {}
    for entry in _entries(archive, label, begin, size):
        name = posixpath.normpath(entry.name)
        if name in wanted and entry.isreg() and not entry.issparse():
            places[name] = entry.offset_data, entry.size
    for name, target in targets.items():
        if target not in places:
            raise DataError(f'{label}: {name} is a link to {links[name]}, which is no file in there')
        yield _Member(name, *places[target])


def _end_of(links: Dict[str, str], name: str) -> Optional[str]:
    """Where a chain of links from ``name`` ends; None where it is a circle."""
    for _ in range(len(links) + 1):
        if name not in links:
            return name
        name = links[name]
    return None


def _entries(archive: BinaryIO, label: str, begin: int, size: Optional[int]) -> Iterator[tarfile.TarInfo]:
    """The headers of the tar file that is the stretch of ``archive`` from ``begin`` on.

    Python's tarfile takes a damaged header for the end and says nothing, so the mark of the end is looked for. Raises
    DataError that begins with ``label``.
    """
    end = os.fstat(archive.fileno()).st_size if size is None else begin + size
    try:
        archive.seek(begin)
        # Other uses of ``archive`` between two members are no matter: tarfile seeks before it reads.
        with tarfile.open(fileobj=archive, mode='r:') as members:
            for member in iter(members.next, None):
                members.members.clear()  # type: ignore[attr-defined]  # tarfile would keep all of them in memory
                if member.size < 0 or member.isreg() and member.offset_data + member.size > end:
                    raise DataError(f'{label}: {member.name} is cut off; fetch the file again')
                if member.isreg() and member.size > MAX_IMAGE_FILE and is_image(member.name):
                    raise DataError(f'{label}: {member.name} has {member.size:,} bytes, which no image has')
                yield member
            mark_at = members.offset
    except UserError:
        raise
    # Numbers that are none, and a chain of headers that extend each other.
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        raise DataError(f'{label}: not a whole tar file without compression ({error})') from None
    archive.seek(mark_at)
    mark = archive.read(min(tarfile.BLOCKSIZE, end - mark_at))
    if len(mark) < tarfile.BLOCKSIZE or any(mark):
        raise DataError(f'{label}: damaged or cut off at byte {mark_at}; fetch the file again')
