"""Tables in MATLAB files of version 5: arrays of structures, as the development kit of ImageNet has one.

The file is a header of 128 bytes and elements: ``type (u32), length (u32), contents``. An element of type 15 is another
element, packed by zlib. An array (type 14) is made of elements too: flags, dimensions, name, and its contents; those of
an array of structures are the length of a field's name, the names, and one array for each field of each structure.

SciPy reads all of MATLAB's kinds, but ends the process on some damaged files. This reads the one kind that is needed.
"""

import itertools
import math
import struct
import zlib
from typing import Any, Dict, Iterator, List, Sequence, Tuple

from runtime.errors import DataError
from runtime.reading import MB

HEADER = 128
LITTLE_ENDIAN = b'IM'
ARRAY, PACKED = 14, 15
# Classes of arrays.
STRUCT, TEXT, CLASSES_OF_NUMBERS = 2, 4, range(6, 16)
NUMBERS = {1: 'b', 2: 'B', 3: 'h', 4: 'H', 5: 'i', 6: 'I', 7: 'f', 9: 'd', 12: 'q', 13: 'Q'}
ENCODINGS = {1: 'latin-1', 2: 'latin-1', 4: 'utf-16-le', 16: 'utf-8', 17: 'utf-16-le', 18: 'utf-32-le'}
# ImageNet's table of classes has 2 MB unpacked, and 15,000 arrays.
MAX_UNPACKED = 8 * MB
MAX_ARRAYS = 1 << 17

# An element: its type and its contents.
Element = Tuple[int, memoryview]


def read_table(data: bytes, path: str, name: str, fields: Sequence[str]) -> List[Dict[str, Any]]:
    """The rows of the array of structures called ``name``, each a dict from a field to its value.

    ``data`` are the bytes of the file and ``path`` is what errors call it. Only ``fields`` are read; each value must be
    one number (int or float) or one line of text (str). Raises DataError.
    """
    try:
        if data[HEADER - 2 : HEADER] != LITTLE_ENDIAN:
            raise ValueError('not a MATLAB file of version 5')
        for array in _arrays(data):
            if bytes(_first(3, _elements(array))[2]) == name.encode():
                return _rows(array, fields)
        raise ValueError(f'it has no {name}')
    except (ValueError, struct.error, zlib.error, IndexError) as error:
        raise DataError(f'{path} cannot be read: {error}') from None


def _arrays(data: bytes) -> Iterator[memoryview]:
    """The contents of the arrays of a file, unpacked."""
    total = 0
    for kind, contents in _elements(memoryview(data)[HEADER:], alignment=1):
        elements: Iterator[Element] = iter([(kind, contents)])
        if kind == PACKED:
            # One byte more than is allowed tells that there is too much.
            unpacked = zlib.decompressobj().decompress(contents, MAX_UNPACKED - total + 1)
            total += len(unpacked)
            if total > MAX_UNPACKED:
                raise ValueError(f'it has more than {MAX_UNPACKED:,} bytes unpacked')
            elements = _elements(memoryview(unpacked))
        yield from (_array(element) for element in elements)


def _elements(data: memoryview, alignment: int = 8) -> Iterator[Element]:
    place = 0
    while place < len(data):
        if place + 8 > len(data):
            raise ValueError('it is cut off')
        kind, length = struct.unpack_from('<II', data, place)
        begin = place + 8
        place = begin + length + -length % alignment
        if kind >> 16:  # up to four bytes, beside their length
            kind, length, begin, place = kind & 0xFFFF, kind >> 16, begin - 4, begin
        if begin + length > len(data) or begin + length > place:
            raise ValueError('it is cut off')
        yield kind, data[begin : begin + length]


def _first(count: int, elements: Iterator[Element]) -> List[memoryview]:
    """The contents of the next ``count`` elements."""
    found = [contents for _, contents in itertools.islice(elements, count)]
    if len(found) < count:
        raise ValueError('it is cut off')
    return found


def _array(element: Element) -> memoryview:
    kind, contents = element
    if kind != ARRAY:
        raise ValueError(f'it has an element of type {kind} where an array must be')
    return contents


def _rows(array: memoryview, fields: Sequence[str]) -> List[Dict[str, Any]]:
    elements = _elements(array)
    flags, sides, _ = _first(3, elements)
    if flags[0] != STRUCT:
        raise ValueError('it has no array of structures where one must be')
    name_length, names = _first(2, elements)
    length = struct.unpack('<i', name_length)[0]
    found = [bytes(names[place : place + length]).partition(b'\0')[0] for place in range(0, len(names), max(length, 1))]
    for field in fields:
        if field.encode() not in found:
            raise ValueError(f'it has no field {field}')
    places = {field: found.index(field.encode()) for field in fields}
    count = math.prod(struct.unpack(f'<{len(sides) // 4}i', sides))
    if not 0 <= count * len(found) <= MAX_ARRAYS:
        raise ValueError(f'it has an array of {count:,} structures of {len(found)} fields')
    arrays = [_array(element) for element in itertools.islice(elements, count * len(found))]
    if len(arrays) < count * len(found):
        raise ValueError('it has an array that claims to be larger than its contents')
    return [
        {field: _value(arrays[row * len(found) + place]) for field, place in places.items()} for row in range(count)
    ]


def _value(array: memoryview) -> Any:
    """A line of text, or a number."""
    elements = _elements(array)
    flags, _, _ = _first(3, elements)
    if flags[0] != TEXT and flags[0] not in CLASSES_OF_NUMBERS:
        raise ValueError(f'it has an array of class {flags[0]} where a number or text must be')
    kind, contents = next(elements, (0, memoryview(b'')))
    if kind not in (ENCODINGS if flags[0] == TEXT else NUMBERS):
        raise ValueError(f'it has an element of type {kind} where a number or text must be')
    if flags[0] == TEXT:
        return bytes(contents).decode(ENCODINGS[kind])
    return struct.unpack(f'<{NUMBERS[kind]}', contents)[0]
