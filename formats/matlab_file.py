"""MATLAB files of version 5, checked before SciPy reads them: how far they unpack, and how large the arrays in them
claim to be.

The file is a header of 128 bytes and elements: ``type (u32), length (u32), contents``. An element of type 15 is another
element, packed by zlib. An array (type 14) is made of elements too: flags, dimensions, name, and its contents. SciPy
makes arrays of objects by the dimensions alone, before it reads what is in them.
"""

import io
import math
import struct
import zlib
from typing import Any, Dict

from runtime.errors import DataError
from runtime.reading import MB

HEADER = 128
LITTLE_ENDIAN = b'IM'
ARRAY, PACKED = 14, 15
# Classes of arrays: cells, structures, text, numbers.
CELL, STRUCT, TEXT = 1, 2, 4
FORMS = (CELL, STRUCT, TEXT, *range(6, 16))
COMPLEX = 8
# Types of elements that hold numbers, and text.
NUMBERS = (*range(1, 8), 9, 12, 13)
TEXTS = (1, 2, 4, 16, 17, 18)
# ImageNet's table of classes has 2 MB unpacked.
MAX_UNPACKED = 8 * MB
MAX_DEPTH = 16


def read_matlab(data: bytes, path: str) -> Dict[str, Any]:
    """The variables of a MATLAB file, of which ``data`` are the bytes and ``path`` what errors call it. Raises
    DataError.
    """
    from scipy.io import loadmat

    try:
        return loadmat(io.BytesIO(_unpacked(data)), squeeze_me=True)
    except Exception as error:  # SciPy answers damage with nearly every exception there is.
        raise DataError(f'{path} cannot be read ({type(error).__name__}: {str(error)[:200]})') from None


def _unpacked(data):
    """The same file without packed elements, no array in it larger than its contents. Raises ValueError."""
    if data[HEADER - 2 : HEADER] != LITTLE_ENDIAN:
        raise ValueError('not a MATLAB file of version 5')
    parts, total = [data[:HEADER]], 0
    for kind, begin, length in _elements(data, HEADER, len(data), alignment=1):
        if kind == PACKED:
            # One byte more than is allowed tells that there is too much.
            element = zlib.decompressobj().decompress(data[begin : begin + length], MAX_UNPACKED - total + 1)
        else:
            element = data[begin - 8 : begin + length]
        total += len(element)
        if total > MAX_UNPACKED:
            raise ValueError(f'it has more than {MAX_UNPACKED:,} bytes unpacked')
        for inner, at, size in _elements(element, 0, len(element)):
            if inner != ARRAY:
                raise ValueError(f'it has an element of type {inner} where an array must be')
            _check_array(element, at, at + size, 0)
        parts.append(element)
    return b''.join(parts)


def _elements(data, place, end, alignment=8):
    """The elements of ``data[place:end]``, as (type, where the contents begin, their length)."""
    while place < end:
        if place + 8 > end:
            raise ValueError('it is cut off')
        kind, length = struct.unpack_from('<II', data, place)
        begin = place + 8
        place = begin + length + -length % alignment
        if kind >> 16:  # up to four bytes, beside their length
            kind, length, begin, place = kind & 0xFFFF, kind >> 16, begin - 4, begin
        if begin + length > end:
            raise ValueError('it is cut off')
        yield kind, begin, length


def _check_array(data, begin, end, depth):
    """Raise ValueError where an array has more entries than its contents ``data[begin:end]`` can be."""
    if depth > MAX_DEPTH:
        raise ValueError('it is nested too deeply')
    form, is_complex, entries, name_length, fields, arrays, values = None, False, 0, 0, 1, 0, 0
    for position, (kind, at, length) in enumerate(_elements(data, begin, end)):
        if position == 0:
            form, is_complex = (data[at], bool(data[at + 1] & COMPLEX)) if length > 1 else (None, False)
        elif position == 1:
            sides = struct.unpack_from(f'<{min(length // 4, 32)}i', data, at)
            entries = math.prod(sides)
        elif form == STRUCT and position == 3:
            name_length = struct.unpack_from('<i', data, at)[0]
        elif form == STRUCT and position == 4:
            fields = length // max(name_length, 1)
        elif form in (CELL, STRUCT) and position > 2:
            if kind != ARRAY:
                raise ValueError(f'it has an element of type {kind} where an array must be')
            arrays += 1
            _check_array(data, at, at + length, depth + 1)
        elif position > 2:
            # SciPy looks the type up in a table, behind the end of which it dies.
            if kind not in (TEXTS if form == TEXT else NUMBERS):
                raise ValueError(f'it has an element of type {kind} where values must be')
            values += 1
    if end > begin and form not in FORMS:
        raise ValueError(f'it has an array of class {form}, which is not read')
    if form in FORMS and form not in (CELL, STRUCT) and values != 1 + is_complex:
        raise ValueError('it has an array without values')
    if entries > end - begin or form in (CELL, STRUCT) and entries * fields > max(arrays, 1):
        raise ValueError('it has an array that claims to be larger than its contents')
