"""PyTorch's ``.pth`` files, both forms, without PyTorch: the zip archive of today and the sequence of pickles from
before 1.6.

The pickle says which tensor is where in which storage; it is read as data (``torch_pickle``), and every number in it is
checked against the bytes there are. (``torch.load`` with ``weights_only=True`` executes nothing either, but takes the
size of a storage from the pickle and reads past its end.)
"""

import io
import math
import struct
import zipfile
from typing import BinaryIO, Dict, NamedTuple, Type, Union

import numpy as np

from runtime.errors import CheckpointError
from runtime.reading import open_regular, size_of

from .array_format import MAX_NDIM
from .torch_pickle import Call, Name, Stored, read_pickle

ZIP_MAGIC = b'PK\x03\x04'
# The records that end an archive: the plain one, and the 64-bit one with its locator.
ZIP_END, ZIP64_END = 22, 56 + 20
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
MAX_PICKLE = 32 << 20
# Some 100 bytes a member. Python's zipfile would read a directory of any length, entry by entry.
MAX_DIRECTORY = 4 << 20
# Tied weights share a storage, and bfloat16 doubles.
MAX_SHARING = 8
# The sides of a tensor without elements may still multiply to this.
MAX_EMPTY = 1 << 20
DTYPES = {
    'Float': np.float32,
    'Double': np.float64,
    'Half': np.float16,
    'Long': np.int64,
    'Int': np.int32,
    'Short': np.int16,
    'Char': np.int8,
    'Byte': np.uint8,
    'Bool': np.bool_,
    'BFloat16': np.uint16,
}
BUILDERS = {Name('torch._utils._rebuild_tensor'), Name('torch._utils._rebuild_tensor_v2')}
PARAMETER = Name('torch._utils._rebuild_parameter')
# What training scripts call the state dict inside their checkpoints.
STATE_KEYS = ('state_dict', 'model_state_dict', 'model', 'net')
DATA_PARALLEL = 'module.'


class _Storage(NamedTuple):
    """Numbers in a row, of which tensors are parts: a key of DTYPES, the name in the file, and how many there are."""

    kind: str
    key: str
    numel: int


def load_torch_state(path: str) -> Dict[str, np.ndarray]:
    """Read a state dict: a dict name → np.ndarray (bfloat16 becomes float32), in the file's order.

    The state dict may be a part of a checkpoint, under ``state_dict`` and the like. A leading ``module.`` is removed
    from names.
    Raises CheckpointError for a file that is damaged, holds anything but tensors where the tensors should be, or is no
    state dict.
    """
    with open_regular(path, error=CheckpointError) as source:
        size = size_of(source)
        form: Union[Type[_ZipFile], Type[_LegacyFile]] = _ZipFile if source.read(4) == ZIP_MAGIC else _LegacyFile
        source.seek(0)
        contents = form(source, path, size)
    tensors = {}
    for name, value in _state_dict(contents.root, path).items():
        short = name[len(DATA_PARALLEL) :] if name.startswith(DATA_PARALLEL) else name
        if short in tensors:
            raise CheckpointError(f'{path}: the name {short!r} occurs twice')
        tensors[short] = _tensor(value, contents.storages, path, name)
    if sum(array.nbytes for array in tensors.values()) > MAX_SHARING * size:
        raise CheckpointError(f'{path}: its tensors overlap, and together are many times as large as the file')
    return tensors


def _state_dict(root, path):
    candidates = [root]
    if isinstance(root, dict):
        candidates += [root[key] for key in STATE_KEYS if key in root]
    for candidate in candidates:
        if (
            isinstance(candidate, dict)
            and candidate
            and all(isinstance(key, str) and _is_tensor(value) for key, value in candidate.items())
        ):
            return candidate
    raise CheckpointError(f'{path}: holds no state dict of plain tensors; save model.state_dict() alone')


def _is_tensor(value):
    return isinstance(value, Call) and isinstance(value.function, Name) and value.function in BUILDERS | {PARAMETER}


def _tensor(call, storages, path, name):
    """The array that PyTorch's ``_rebuild_tensor`` call describes: a view of its storage, never larger."""
    try:
        if call.function == PARAMETER:
            call = call.arguments[0]
        stored, offset, size, stride = call.arguments[:4]
        storage = _storage(stored)
        integers = [offset, *size, *stride]
    except (TypeError, ValueError, IndexError, AttributeError):
        raise CheckpointError(f'{path}: {name!r} is no plain tensor') from None
    if not all(type(number) is int and number >= 0 for number in integers) or not len(size) == len(stride) <= MAX_NDIM:
        raise CheckpointError(f'{path}: {name!r} has no sensible shape')
    # No more elements than its storage has: a tensor repeated by a stride of 0 would grow on its first use.
    room = storage.numel if 0 not in size else MAX_EMPTY
    if math.prod(max(side, 1) for side in size) > room or _end(offset, size, stride) > storage.numel:
        raise CheckpointError(f'{path}: {name!r} does not lie within its storage')
    data = storages[storage.key][offset:]
    steps = [step * data.itemsize if side > 1 else 0 for side, step in zip(size, stride)]
    values = (
        np.lib.stride_tricks.as_strided(data, size, steps, writeable=False)
        if 0 not in size
        else np.empty(size, data.dtype)
    )
    if storage.kind == 'BFloat16':
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values


def _storage(stored):
    """The storage that a persistent reference means, as (kind, key, number of elements)."""
    if not isinstance(stored, Stored):
        raise ValueError('no storage')
    tag, kind, key, _, numel, *view = stored.reference
    module, _, name = kind.dotted.rpartition('.')
    name = name[: -len('Storage')]
    sound = (
        tag == 'storage'
        and module == 'torch'
        and name in DTYPES
        and isinstance(key, str)
        and type(numel) is int
        and numel >= 0
    )
    # Files of before PyTorch 0.4 have a sixth part, for a view of another storage.
    if not sound or view not in ([], [None]):
        raise ValueError('no storage')
    return _Storage(name, key, numel)


def _end(offset, size, stride):
    """Where in its storage a tensor ends: one behind its last element."""
    if 0 in size:
        return 0
    return 1 + offset + sum((side - 1) * step for side, step in zip(size, stride))


def _storages_of(root, path):
    """All storages that a pickle refers to, key → _Storage; found without recursion, since a pickle may nest to any
    depth.
    """
    found, pending, seen = {}, [root], set()
    while pending:
        value = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Stored):
            try:
                storage = _storage(value)
            except (TypeError, ValueError, AttributeError):
                raise CheckpointError(f'{path}: refers to a storage of a kind that is not read') from None
            if found.setdefault(storage.key, storage) != storage:
                raise CheckpointError(f'{path}: storage {storage.key!r} has two types or sizes')
        elif isinstance(value, dict):
            pending.extend(value.values())
        elif isinstance(value, (tuple, list)):
            pending.extend(value)
    return found


class _ZipFile:
    """The form since PyTorch 1.6: ``data.pkl`` and one uncompressed member for each storage."""

    def __init__(self, source: BinaryIO, path: str, size: int) -> None:
        if _directory_size(source, size) > MAX_DIRECTORY:
            raise CheckpointError(f'{path}: cut off, or its directory is longer than any that PyTorch writes')
        try:
            with zipfile.ZipFile(source) as archive:
                self._read(archive, path, size)
        # zipfile raises nearly every kind of exception for a damaged file.
        except (
            zipfile.BadZipFile,
            ValueError,
            KeyError,
            IndexError,
            EOFError,
            OSError,
            RuntimeError,
            struct.error,
            OverflowError,
        ) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f'{path}: a damaged zip archive ({str(error)[:100]})') from None

    def _read(self, archive, path, size):
        members = {info.filename: info for info in archive.infolist()}
        if len(members) != len(archive.infolist()):
            raise CheckpointError(f'{path}: the archive holds two members of the same name')
        packed = any(
            info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size
            for info in members.values()
        )
        if packed or sum(info.file_size for info in members.values()) > size:
            raise CheckpointError(
                f'{path}: the archive is compressed or claims more than the file holds, which PyTorch never writes'
            )
        pickles = [name for name in members if name == 'data.pkl' or name.endswith('/data.pkl')]
        if len(pickles) != 1 or members[pickles[0]].file_size > MAX_PICKLE:
            raise CheckpointError(f'{path}: the archive holds no data.pkl, so it is no PyTorch file')
        folder = pickles[0][: -len('data.pkl')]
        if folder + 'constants.pkl' in members:
            raise CheckpointError(f'{path}: this is a TorchScript program, not a state dict')
        if folder + 'byteorder' in members and archive.read(folder + 'byteorder') != b'little':
            raise CheckpointError(f'{path}: written on a big-endian machine')
        self.root = read_pickle(io.BytesIO(archive.read(pickles[0])), path, members[pickles[0]].file_size)
        self.storages = {}
        for key, storage in _storages_of(self.root, path).items():
            info = members.get(f'{folder}data/{key}')
            dtype = np.dtype(DTYPES[storage.kind])
            if info is None or info.file_size != storage.numel * dtype.itemsize:
                raise CheckpointError(f'{path}: storage {key!r} is missing or not as long as the pickle claims')
            self.storages[key] = np.frombuffer(archive.read(info), dtype)


def _directory_size(source, size):
    """How long an archive's directory claims to be, by the record at the file's very end; infinite where there is none,
    as PyTorch leaves no comment there.
    """
    source.seek(max(size - ZIP64_END - ZIP_END, 0))
    tail = source.read()
    source.seek(0)
    if tail[-ZIP_END:][:4] != b'PK\5\6':
        return math.inf
    claims = struct.unpack('<I', tail[-10:-6])
    if tail[-ZIP_END - 20 :][:4] == b'PK\6\7' and tail[:4] == b'PK\6\6':
        # Files of more than 4 GB, and all that PyTorch writes, say it again in 64 bits, and that is what counts.
        claims = struct.unpack('<Q', tail[40:48])
    return claims[0]


class _LegacyFile:
    """The form before PyTorch 1.6: five pickles (magic, protocol, system, contents, keys), then each storage's length
    and bytes.
    """

    def __init__(self, source: BinaryIO, path: str, size: int) -> None:
        if read_pickle(source, path, size) != LEGACY_MAGIC or read_pickle(source, path, size) != LEGACY_PROTOCOL:
            raise CheckpointError(f'{path}: this is no PyTorch file')
        system = read_pickle(source, path, size)
        if not isinstance(system, dict) or system.get('little_endian') is not True:
            raise CheckpointError(f'{path}: written on a big-endian machine')
        self.root = read_pickle(source, path, size)
        keys = read_pickle(source, path, size)
        known = _storages_of(self.root, path)
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or sorted(keys) != sorted(known):
            raise CheckpointError(f'{path}: the list of storages is not the one that the tensors refer to')
        self.storages = {key: _legacy_storage(source, known[key], path, size) for key in keys}
        if source.tell() != size:
            raise CheckpointError(f'{path}: {size - source.tell()} bytes are left over after the last storage')


def _legacy_storage(source, storage, path, size):
    dtype = np.dtype(DTYPES[storage.kind])
    length = source.read(8)
    if (
        len(length) != 8
        or struct.unpack('<q', length)[0] != storage.numel
        or storage.numel * dtype.itemsize > size - source.tell()
    ):
        raise CheckpointError(f'{path}: storage {storage.key!r} is cut off or not as long as the pickle claims')
    return np.fromfile(source, dtype, storage.numel)
