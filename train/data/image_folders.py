"""Images in folders, one folder for each class: which files are images, and how many are not."""

import logging
import os
from collections import Counter
from typing import Any, Dict, Iterator, List, NamedTuple

import tqdm

# The kinds of files that both OpenCV (training) and Pillow (tools/make_record.py) read.
ENDINGS = ('.jpeg', '.jpg', '.png', '.bmp', '.webp')
NO_CLASS = ''  # the key of images that lie in no class folder
SUBFOLDER, OUTSIDE, SPECIAL = 'folder inside a class', 'image outside of the class folders', 'special file'


class Listing(NamedTuple):
    """``images`` maps each class to the sorted names of its files, ``NO_CLASS`` to those beside the class folders.
    ``left_out`` counts what is no image, by its ending or kind.
    """

    images: Dict[str, List[str]]
    left_out: Counter


def list_images(folder: str) -> Listing:
    """The images of ``folder``, directly in it or in one folder for each class. Names that begin with a dot are
    skipped: file managers and editors make such files. Raises OSError.
    """
    images: Dict[str, List[str]] = {NO_CLASS: []}
    left_out: Counter = Counter()
    for entry in _visible(folder):
        if entry.is_dir():
            images[entry.name] = []
        else:
            _sort_in(entry, images[NO_CLASS], left_out)
    for name, found in images.items():
        for entry in _visible(os.path.join(folder, name)) if name else ():
            if entry.is_dir():
                left_out[SUBFOLDER] += 1
            else:
                _sort_in(entry, found, left_out)
        found.sort()
    return Listing(dict(sorted(images.items())), left_out)


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for an image."""
    return name.lower().endswith(ENDINGS) and not is_hidden(name)


def is_hidden(name: str) -> bool:
    """Whether a name, without folders, begins with a dot: ``._1.jpg`` of macOS, ``.ipynb_checkpoints`` of Jupyter."""
    return name.startswith('.')


def kind_of(name: str) -> str:
    """What a file that is no image counts as: its ending."""
    return os.path.splitext(name)[1].lower() or 'no ending'


def log_left_out(source: str, left_out: Counter) -> None:
    """Say how many files of ``source`` are not used, and of which kinds; nothing where there are none."""
    if left_out:
        most_first = sorted(left_out.items(), key=lambda one: (-one[1], one[0]))
        kinds = ', '.join(f'{count} × {kind}' for kind, count in most_first)
        logging.warning(
            '%s: %d files or folders are not used (%s); images are files that end in %s, one folder for each class',
            source,
            sum(left_out.values()),
            kinds,
            ', '.join(ENDINGS),
        )


def _visible(folder: str) -> 'Iterator[os.DirEntry[str]]':
    entries: Any = tqdm.tqdm(os.scandir(folder), desc=folder, unit='file', leave=False, delay=2, disable=None)
    return (entry for entry in entries if not is_hidden(entry.name))


def _sort_in(entry: 'os.DirEntry[str]', images: List[str], left_out: Counter) -> None:
    if not is_image(entry.name):
        left_out[kind_of(entry.name)] += 1
    # A link to nothing counts as an image: reading it fails by name. Pipes and devices would never end.
    elif entry.is_file() or entry.is_symlink() and not os.path.exists(entry.path):
        images.append(entry.name)
    else:
        left_out[SPECIAL] += 1
