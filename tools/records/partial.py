"""An unfinished record file, which grows by parts and can be continued after a kill: ``PREFIX.partial.rec``, and
``PREFIX.partial.jsonl`` that lists what is in it.

A part counts once its line is in the list, and the line is written after the records have reached the disk. Records
behind the last listed part are cut off.
"""

import fcntl
import json
import os
import time
from typing import Any, BinaryIO, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple

from formats.json_shape import ANY, misfit
from runtime.errors import UserError
from runtime.files import naming
from runtime.reading import MB, open_regular, parsed_json

SECONDS_BETWEEN_SYNCS = 2
MAX_LIST = 512 * MB
PART = {'sizes': [int], 'odd': {ANY: str}}


class Part(NamedTuple):
    """A stretch of images: the size in bytes of each one's record, 0 where it was left out; and why images were encoded
    again or left out, by their position in the stretch.
    """

    sizes: List[int]
    odd: Dict[int, str]

    @property
    def left_out(self) -> int:
        """How many images have no record."""
        return self.sizes.count(0)


def numbered(parts: Iterable[Part]) -> Iterator[Tuple[int, Part]]:
    """Yield each of ``parts`` with the number of its first image."""
    begin = 0
    for part in parts:
        yield begin, part
        begin += len(part.sizes)


class Partial:
    """A context that holds the partial files of ``prefix``, begun for ``task`` (a dict of plain values), and continues
    those of the same task.

    ``parts`` are the finished ones. Raises UserError where another process is writing them, and where they are damaged
    or of another task; with ``force`` they are removed instead.
    """

    parts: List[Part]

    def __init__(self, prefix: str, task: Dict[str, Any], force: bool = False) -> None:
        self._final_path = f'{prefix}.rec'
        self._rec_path, self._list_path = partial_paths(prefix)
        os.makedirs(os.path.dirname(os.path.abspath(prefix)), exist_ok=True)
        self._rec: Optional[BinaryIO] = None  # None where all records have their final name
        for path in filter(os.path.exists, (self._rec_path, self._list_path)):
            open_regular(path).close()  # a pipe would wait for another process
        self._list = open(self._list_path, 'a+b')  # noqa: SIM115  (closed by the context that this object is)
        try:
            self._lock()
            self._resume(task, force)
        except BaseException:
            with naming(self._list_path):
                self._list.close()
            raise
        self._unlisted: List[Part] = []
        self._synced = time.monotonic()

    def __enter__(self) -> 'Partial':
        return self

    def __exit__(self, *_: object) -> None:
        with naming(self._rec_path):  # on a full disk, closing fails too
            try:
                self.sync()
            finally:
                self._list.close()
                if self._rec:
                    self._rec.close()

    def add(self, part: Part, records: bytes) -> None:
        """Append the bytes ``records`` that ``part`` describes. Raises OSError."""
        assert self._rec is not None
        with naming(self._rec_path):
            self._rec.write(records)
        self.parts.append(part)
        self._unlisted.append(part)
        if time.monotonic() - self._synced > SECONDS_BETWEEN_SYNCS:
            self.sync()

    def sync(self) -> None:
        """Write everything to the disk. Raises OSError."""
        unlisted, self._unlisted = self._unlisted, []  # first of all: an interrupt must not list a part twice
        if unlisted:
            assert self._rec is not None
            with naming(self._rec_path):
                self._rec.flush()
                os.fsync(self._rec.fileno())
            self._write_lines(part._asdict() for part in unlisted)
        self._synced = time.monotonic()

    def name_records(self) -> None:
        """Give the records their final name, unless they have it already. Raises OSError."""
        self.sync()
        if self._rec:
            os.replace(self._rec_path, self._final_path)

    def forget(self) -> None:
        """Remove the list: the set is finished."""
        os.remove(self._list_path)

    def _lock(self):
        try:
            fcntl.lockf(self._list, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f'{self._list_path}: another process is writing this set') from None

    def _resume(self, task, force):
        begun, self.parts, length = self._read_list()
        size = sum(sum(part.sizes) for part in self.parts)
        is_named = size > 0 and not os.path.exists(self._rec_path) and _size(self._final_path) == size
        trouble = None
        if begun is not None and begun != task:
            changed = ', '.join(name for name in task if begun.get(name) != task[name])
            trouble = f'was begun with other values of {changed}: repeat those'
        elif size > _size(self._rec_path) and not is_named:
            trouble = f'does not fit {self._rec_path}: bring that back'
        if trouble and not force:
            raise UserError(f'{self._list_path} {trouble}, or start again with --force')
        self._list.truncate(length)
        if trouble or begun is None:
            self.parts, size, is_named = [], 0, False
            self._list.truncate(0)
            self._write_lines([task])
        if not is_named:
            self._rec = open(self._rec_path, 'ab')  # noqa: SIM115  (as above)
            self._rec.truncate(size)

    def _read_list(self):
        """The task and the parts that the list holds, up to the last whole line, and where that ends. A task of {}
        stands for damage.
        """
        self._list.seek(0)
        text = self._list.read(MAX_LIST)
        length = text.rfind(b'\n') + 1
        try:
            lines = text[:length].decode('utf-8').splitlines()
            begun, *parts = [parsed_json(line, self._list_path) for line in lines] or [None]
            if misfit(parts, [PART]) or begun is not None and misfit(begun, {}):
                return {}, [], 0
            return (
                begun,
                [Part(part['sizes'], {int(position): why for position, why in part['odd'].items()}) for part in parts],
                length,
            )
        except ValueError:
            return {}, [], 0

    def _write_lines(self, values):
        with naming(self._list_path):
            self._list.write(b''.join(json.dumps(value).encode() + b'\n' for value in values))
            self._list.flush()
            os.fsync(self._list.fileno())


def partial_paths(prefix: str) -> Tuple[str, str]:
    """The names of the records and of the list."""
    return f'{prefix}.partial.rec', f'{prefix}.partial.jsonl'


def _size(path):
    return os.path.getsize(path) if os.path.exists(path) else 0
