"""Sane bounds for the attributes of operators.

MXNet takes sizes from a symbol at their word: a ``num_outputs`` of two billion hangs it, a kernel of 0 divides by it, a ``num_group`` of 0 kills the
process. The bounds are far beyond any network and well inside what MXNet survives; they were found by mutating real symbols (``tests/fuzz_files.py``).
"""
import re

from .errors import GraphError

# name: (least, greatest) of every number in the attribute's value.
BOUNDS = {
    'num_filter': (1, 1 << 20), 'num_hidden': (1, 1 << 24), 'num_group': (1, 1 << 20), 'num_outputs': (1, 1 << 12), 'num_args': (1, 1 << 12),
    'kernel': (1, 1 << 12), 'stride': (1, 1 << 12), 'dilate': (1, 1 << 12), 'pad': (0, 1 << 12), 'adj': (0, 1 << 12),
    'nsize': (1, 1 << 12), 'scale': (1, 1 << 8), 'sections': (0, 1 << 12), 'num_layers': (1, 64), 'state_size': (1, 1 << 16),
    'pooled_size': (1, 1 << 12), 'block_size': (1, 1 << 8), 'input_dim': (1, 1 << 28), 'output_dim': (1, 1 << 20), 'repeats': (0, 1 << 16),
    'reps': (0, 1 << 16), 'depth': (0, 1 << 20), 'repeat': (1, 1 << 16),
}
_NUMBER = re.compile(r'[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?')
MAX_VALUE = 1 << 16
DENSE = '0'


def check_attributes(operator, attrs, inputs):
    """Raise GraphError if an attribute (dict str → str) of a node with so many ``inputs`` is out of all reason."""
    for key, value in attrs.items():
        if len(value) > MAX_VALUE:
            raise GraphError(f'the value of {key} is {len(value)} characters long')
        if key in BOUNDS:
            _check_numbers(key, value, *BOUNDS[key])
    if attrs.get('__storage_type__', DENSE) != DENSE:
        raise GraphError('only dense variables are read')
    if operator == '_split_v2' and not attrs.get('indices', '').strip('()[] ') and attrs.get('sections', '0') == '0':
        raise GraphError('it splits nothing: neither sections nor indices')
    if attrs.get('num_args', str(inputs)) != str(inputs):
        raise GraphError(f'num_args is {attrs["num_args"]} but the node has {inputs} inputs')


def _check_numbers(key, value, least, greatest):
    for digits in _NUMBER.findall(value):
        if len(digits) > 30 or not least <= float(digits) <= greatest:
            raise GraphError(f'{key}={value[:40]} is outside {least} … {greatest}')
