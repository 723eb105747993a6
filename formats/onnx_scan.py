"""A check of an ONNX file before protobuf parses it: how much of it is tensors, and how much would be parsed field by
field.

Protobuf's pure Python form takes seconds for each megabyte of tiny fields, of which a hostile file can hold gigabytes.
In the file of a real network, all but a few hundred kilobytes is the raw data of its tensors, which is copied in one
piece.
"""

from runtime.errors import CheckpointError

# Everything but raw tensor data. ResNet-152 has 0.2 MB.
MAX_STRUCTURE = 2 << 20
MAX_FIELDS = 200_000
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
FIXED = {FIXED64: 8, FIXED32: 4}
# Message → the fields that lead on to tensors, and to which message: model.graph, graph.node, graph.initializer,
# node.attribute, attribute.t.
PATHS = {'model': {7: 'graph'}, 'graph': {1: 'node', 5: 'tensor'}, 'node': {5: 'attribute'}, 'attribute': {5: 'tensor'}}
# tensor.float_data (packed), raw_data and double_data (packed).
RAW_FIELDS = (4, 9, 10)


def check_structure(data: bytes, path: str) -> None:
    """Raise CheckpointError if the bytes of an ONNX file are no protobuf message, or hold more structure than any
    network has (MAX_STRUCTURE bytes beside the tensors, MAX_FIELDS fields). ``path`` is what errors call the file.
    """
    structure = len(data)
    pending = [('model', 0, len(data))]
    fields = 0
    while pending and fields <= MAX_FIELDS:
        message, start, end = pending.pop()
        try:
            for field, first, last in _fields(data, start, end):
                fields += 1
                if fields > MAX_FIELDS:
                    break
                if message == 'tensor' and field in RAW_FIELDS:
                    structure -= last - first
                elif field in PATHS.get(message, ()):
                    pending.append((PATHS[message][field], first, last))
        except (IndexError, ValueError):
            raise CheckpointError(f'{path}: no valid ONNX file (cut off or damaged inside a {message})') from None
    if structure > MAX_STRUCTURE or fields > MAX_FIELDS:
        raise CheckpointError(
            f'{path}: {structure} bytes beside its tensors, or {fields} fields, are more than any network has'
        )


def _fields(data, place, end):
    """The fields of the message in ``data[place:end]``, as (number, start, end of the value)."""
    while place < end:
        key, start = _varint(data, place)
        kind = key & 7
        if kind == VARINT:
            _, place = _varint(data, start)
        elif kind == BYTES:
            length, start = _varint(data, start)
            place = start + length
        elif kind in FIXED:
            place = start + FIXED[kind]
        else:
            raise ValueError('no such kind of field')
        if place > end:
            raise ValueError('it ends outside its message')
        yield key >> 3, start, place


def _varint(data, place):
    value = shift = 0
    while shift < 70:
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
    raise ValueError('a number of more than 64 bits')
