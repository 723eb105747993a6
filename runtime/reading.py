"""The one way to read a file that somebody else may have written or damaged.

A file must be a regular one: a pipe or a device would never end. It has no more bytes than its reader expects. Text is
strict UTF-8, and JSON nests no deeper than ``MAX_DEPTH``. Every error names the file.
"""

import json
import os
import stat
from typing import Any, BinaryIO, Iterator, List, Optional, Type

from .errors import DataError, UserError

KB, MB = 1 << 10, 1 << 20
MAX_DEPTH = 64
# A 64-bit number has 20 digits. Python takes minutes for one of a million digits.
MAX_DIGITS = 100


def open_regular(
    path: str, most: Optional[int] = None, error: Type[UserError] = DataError, missing: str = ''
) -> BinaryIO:
    """Open the regular file ``path`` to read bytes.

    Raises ``error`` where the file does not exist (the message ends in ``missing``, which says what to do), is no
    regular file, or has more than ``most`` bytes; OSError where it cannot be opened, for example without permission.
    """
    try:
        _require_regular(os.stat(path), path, most, error)
        source = open(path, 'rb', opener=_open_without_waiting)  # noqa: SIM115  (returned open)
    except (FileNotFoundError, NotADirectoryError):
        raise error(f'{path}: no such file{"; " if missing else ""}{missing}') from None
    except ValueError as reason:
        if isinstance(reason, UserError):
            raise
        raise error(f'{path!r} is not a valid name of a file ({reason})') from None
    try:
        # The file may have been replaced between the check and the opening.
        _require_regular(os.fstat(source.fileno()), path, most, error)
    except UserError:
        source.close()
        raise
    return source


def size_of(source: BinaryIO) -> int:
    """The size in bytes of an open file."""
    return os.fstat(source.fileno()).st_size


def read_bytes(path: str, most: int, error: Type[UserError] = DataError, missing: str = '') -> bytes:
    """The contents of a regular file of at most ``most`` bytes. Raises as ``open_regular``."""
    with open_regular(path, most, error, missing) as source:
        return source.read(size_of(source))


def read_text(path: str, most: int, error: Type[UserError] = DataError, missing: str = '') -> str:
    r"""The text of a regular UTF-8 file of at most ``most`` bytes, with '\n' at the ends of lines and without a byte
    order mark.

    Raises as ``open_regular``, and ``error`` where the file is not UTF-8 or holds a zero character.
    """
    data = read_bytes(path, most, error, missing)
    try:
        text = data.decode('utf-8-sig')
    except UnicodeDecodeError as reason:
        raise error(f'{path}: not a text file (byte {reason.start} is not UTF-8)') from None
    if '\0' in text:
        raise error(f'{path}: not a text file (byte {data.index(0)} is zero)')
    return text.replace('\r\n', '\n').replace('\r', '\n')


def read_json(path: str, most: int, error: Type[UserError] = DataError, missing: str = '') -> Any:
    """The value that a JSON file of at most ``most`` bytes holds. Raises as ``read_text`` and ``parsed_json``."""
    return parsed_json(read_text(path, most, error, missing), path, error)


def read_json_lines(path: str, most: int, error: Type[UserError] = DataError, missing: str = '') -> List[Any]:
    """The values of a file of at most ``most`` bytes with one JSON value a line. Raises as ``read_json``."""
    lines = read_text(path, most, error, missing).splitlines()
    return [parsed_json(line, f'{path}: line {number}', error) for number, line in enumerate(lines, 1)]


def parsed_json(text: str, name: str, error: Type[UserError] = DataError) -> Any:
    """The value of JSON ``text``; ``name`` is what errors call it.

    Raises ``error`` where it is not JSON, nests deeper than MAX_DEPTH, or holds an integer of more than MAX_DIGITS
    digits or text that is no Unicode.
    """
    try:
        value = json.loads(text, parse_int=_int)
        if '\\ud' in text or '\\uD' in text:
            json.dumps(value, ensure_ascii=False).encode('utf-8')  # a lone surrogate can be neither printed nor written
    except RecursionError:
        raise error(f'{name}: nested too deeply') from None
    except ValueError as reason:
        if isinstance(reason, UserError):
            raise
        raise error(f'{name}: not JSON ({reason})') from None
    _require_shallow(value, name, error)
    return value


def _open_without_waiting(path, flags):
    # Opening a pipe otherwise waits for somebody who writes to it.
    return os.open(path, flags | os.O_NONBLOCK)


def _require_regular(status, path, most, error):
    if stat.S_ISDIR(status.st_mode):
        raise error(f'{path}: a folder, not a regular file')
    if not stat.S_ISREG(status.st_mode):
        raise error(f'{path}: not a regular file')
    if most is not None and status.st_size > most:
        raise error(f'{path}: {status.st_size:,} bytes; no file of its kind has more than {most:,}')


def _int(digits):
    if len(digits) > MAX_DIGITS:
        raise ValueError(f'a number of {len(digits)} digits')
    return int(digits)


def _require_shallow(value, name, error):
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [part for container in level for part in _containers(container)]
        if not level:
            return
    raise error(f'{name}: nested too deeply')


def _containers(value) -> Iterator[Any]:
    if isinstance(value, (dict, list)):
        parts = value.values() if isinstance(value, dict) else value
        yield from (part for part in parts if isinstance(part, (dict, list)))
