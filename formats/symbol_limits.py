"""Bounds for the attributes of operators.

MXNet does not check the sizes in a symbol: a ``num_outputs`` of two billion hangs it, it divides by a kernel of 0, a
``num_group`` of 0 kills the process. The bounds are far beyond any network and well inside what MXNet survives; they
were found by mutating real symbols (``tests/fuzz_files.py``).
"""

import math
import re
from typing import Mapping

from runtime.errors import GraphError

_SIDE = (1, 1 << 12)
_SIDE_OR_NONE = (0, 1 << 12)
# attribute: (least, greatest) of every number in its value.
BOUNDS = {
    'num_filter': (1, 1 << 20),
    'num_hidden': (1, 1 << 24),
    'num_group': (1, 1 << 20),
    'num_groups': (1, 1 << 20),
    'num_deformable_group': (1, 1 << 12),
    'num_outputs': (1, 1 << 12),
    'num_args': (1, 1 << 12),
    'sections': (0, 1 << 12),
    'num_layers': (1, 64),
    'state_size': (1, 1 << 16),
    'kernel': _SIDE,
    'stride': _SIDE,
    'dilate': _SIDE,
    'pad': _SIDE_OR_NONE,
    'adj': _SIDE_OR_NONE,
    'pad_width': _SIDE_OR_NONE,
    'output_size': _SIDE_OR_NONE,
    'pooled_size': _SIDE,
    'nsize': _SIDE,
    'block_size': (1, 1 << 8),
    'scale': (1, 1 << 8),
    'kernel_size': _SIDE,
    'max_displacement': _SIDE_OR_NONE,
    'stride1': _SIDE,
    'stride2': _SIDE,
    'pad_size': _SIDE_OR_NONE,
    'input_dim': (1, 1 << 28),
    'output_dim': (1, 1 << 20),
    'depth': (0, 1 << 20),
    'ndev': (1, 1 << 12),
    'repeats': (0, 1 << 16),
    'repeat': (1, 1 << 16),
    'reps': (0, 1 << 16),
}
# Attributes that are the shape of an array, which is made when the network is bound.
SHAPES = ('__shape__',)
# What an input says of the images that it takes: "channels,height,width".
IMAGE_SHAPE = '__image_shape__'
# Of one image, 3×1024×2048 being 6 million: what strip and evaluation need memory for is a few dozen times this.
MAX_IMAGE = 1 << 23
SHAPE_OF_CONSTANT = ('_zeros', '_ones', '_full')
MAX_ELEMENTS = 1 << 28
MAX_CHARACTERS = 1 << 16
MAX_DIGITS = 30
DENSE = '0'
# UpSampling does not count the weight of bilinear sampling among its num_args, and MXNet copies the attributes of the
# operator to that weight.
_MORE_INPUTS = ('UpSampling', 'null')
_NUMBER = re.compile(r'[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?')
_SIDES = re.compile(r'[0-9]{1,5}(?:, ?[0-9]{1,5}){0,3}')


def check_attributes(operator: str, attrs: Mapping[str, str], inputs: int) -> None:
    """Raise GraphError if an attribute of a node with so many ``inputs`` is outside the bounds, or one with which MXNet
    reads outside its memory or ends the process.
    """
    for key, value in attrs.items():
        if len(value) > MAX_CHARACTERS:
            raise GraphError(f'the value of {key} is {len(value)} characters long')
        if key in BOUNDS:
            _check_numbers(key, value)
        if key in SHAPES or key == 'shape' and operator in SHAPE_OF_CONSTANT:
            _check_shape(key, value)
        if key == IMAGE_SHAPE:
            _check_image_shape(value)
    if attrs.get('__storage_type__', DENSE) != DENSE:
        raise GraphError('only dense variables are read')
    if operator == '_split_v2' and not _numbers(attrs.get('indices', '')) and attrs.get('sections', '0') == '0':
        raise GraphError('it has neither sections nor indices')
    if attrs.get('use_sequence_length', 'False') not in ('False', 'false', '0'):
        raise GraphError(
            'use_sequence_length is not supported: MXNet reads outside its memory where a length does not fit the axis'
        )
    if attrs.get('use_length') == 'None':
        raise GraphError('use_length is neither True nor False, which aborts MXNet')
    if operator not in _MORE_INPUTS and attrs.get('num_args', str(inputs)) != str(inputs):
        raise GraphError(f'num_args is {attrs["num_args"][:MAX_DIGITS]} but the node has {inputs} inputs')


def _check_numbers(key, value):
    least, greatest = BOUNDS[key]
    if not all(least <= number <= greatest for number in _numbers(value)):
        raise GraphError(f'{key}={value[:MAX_DIGITS]} is outside {least} … {greatest}')


def _check_shape(key, value):
    # Sides of 0 and -1 are still unknown.
    if math.prod(max(abs(number), 1) for number in _numbers(value)) > MAX_ELEMENTS:
        raise GraphError(f'{key}={value[:MAX_DIGITS]} is larger than {MAX_ELEMENTS} elements')


def _check_image_shape(value):
    if not _SIDES.fullmatch(value):
        raise GraphError(f'{IMAGE_SHAPE}={value[:MAX_DIGITS]} is no channels,height,width')
    values = math.prod(map(int, value.split(',')))
    if not 0 < values <= MAX_IMAGE:
        raise GraphError(f'{IMAGE_SHAPE}={value} is an image of {values:,} values; from 1 to {MAX_IMAGE:,} are read')


def _numbers(value):
    """The numbers in an attribute's text; one that cannot be read or has more than MAX_DIGITS digits is infinite."""
    return [_number(digits) for digits in _NUMBER.findall(value)]


def _number(digits):
    try:
        return float(digits) if len(digits) <= MAX_DIGITS else math.inf
    except ValueError:
        return math.inf
