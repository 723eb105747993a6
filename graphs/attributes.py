"""The attributes of a node as MXNet reads them: defaults, spellings and conventions, in one place for every exporter.

A symbol only writes down what its author set; what is left out has the defaults of MXNet's operator, and some of those surprise (``fix_gamma`` is on,
``eps`` is 1e-3, padded zeros count in an average).
"""
import re
import struct
from typing import NamedTuple

from runtime.errors import GraphError

_INTEGER = re.compile(r'-?\d+')
FLAGS = {'True': True, 'true': True, '1': True, 'False': False, 'false': False, '0': False}


class Window(NamedTuple):
    """The sliding window of a convolution or pooling: (height, width) each. ``pad`` is put on both sides."""

    kernel: tuple
    stride: tuple
    pad: tuple
    dilate: tuple


def describe(node):
    """How an error calls a node: its operator and name."""
    return f'{node.op} {node.name!r}'


def require(condition, node, reason):
    """Raise GraphError, which names the node, unless ``condition`` holds."""
    if not condition:
        raise GraphError(f'{describe(node)}: {reason}')


def unknown_operator(node, what, known):
    """The GraphError for an operator that ``what`` (a converter) has no entry for."""
    return GraphError(f'{describe(node)}: {what} does not know this operator; it knows {", ".join(sorted(known))}')


def flag(node, name, default=False):
    """A Boolean attribute, in any of MXNet's spellings."""
    text = node.attrs.get(name)
    if text is None:
        return default
    require(text in FLAGS, node, f'{name}={text} is neither True nor False')
    return FLAGS[text]


def number(node, name, default=None):
    """A number, or ``default`` where it is not set or None."""
    value = node.value(name, default)
    require(value is None or isinstance(value, (int, float)), node, f'{name}={value} is no number')
    return value


def single(node, name, default=None):
    """A number that MXNet holds in single precision even where the network computes in double."""
    value = number(node, name, default)
    return value if value is None else struct.unpack('f', struct.pack('f', value))[0]


def text(node, name, default=None):
    """A text, or ``default`` where it is not set or None."""
    value = node.attrs.get(name, 'None')
    return default if value == 'None' else value


def integers(node, name, default=()):
    """A tuple of integers, also of those that Python 2 wrote ('(3L, 3L)'); ``default`` where it is not set or empty."""
    return tuple(int(digits) for digits in _INTEGER.findall(node.attrs.get(name, ''))) or default


def window(node):
    """The Window of a two-dimensional convolution or pooling. GraphError for other dimensions and for channels-last layouts."""
    kernel = integers(node, 'kernel')
    require(len(kernel) == 2, node, f'kernel={node.attrs.get("kernel")}: only windows over height and width are converted')
    require(text(node, 'layout', 'NCHW') == 'NCHW', node, f'layout={node.attrs.get("layout")}: only NCHW is converted')
    return Window(kernel, integers(node, 'stride', (1, 1)), integers(node, 'pad', (0, 0)), integers(node, 'dilate', (1, 1)))


def pooled_length(length, kernel, stride, pad, convention):
    """How many windows a pooling has along an axis: 'valid' rounds down and 'full' rounds up, even where the last window then sees nothing but padding."""
    steps = length + 2 * pad - kernel
    return (-(-steps // stride) if convention == 'full' else steps // stride) + 1


def window_counts(length, kernel, stride, pad, convention, count_include_pad):
    """For each window along an axis, the number of positions that an average divides by; 1 where there is none."""
    starts = [index * stride - pad for index in range(pooled_length(length, kernel, stride, pad, convention))]
    if count_include_pad:
        return [max(min(start + kernel, length + pad) - start, 1) for start in starts]
    return [max(min(start + kernel, length) - max(start, 0), 1) for start in starts]


def pooling_convention(node):
    """'valid' or 'full'; GraphError for 'same', which MXNet itself has for one dimension only."""
    convention = text(node, 'pooling_convention', 'valid')
    require(convention in ('valid', 'full'), node, f'pooling_convention={convention} is not converted')
    return convention


def batch_norm_axis(node):
    """The axis of the channels. GraphError for a node whose mean and variance are outputs too."""
    require(not flag(node, 'output_mean_var'), node, 'output_mean_var is not converted')
    return number(node, 'axis', 1)


def batch_norm_eps(node):
    """What is added to the variance. Only the default is held in single precision."""
    return number(node, 'eps', single(node, 'no such attribute', 1e-3))


def reshaped(shape, codes, node):
    """The shape that Reshape gives an array of ``shape``, from MXNet's codes: 0 keeps a side, -1 takes what is left, -2 keeps all the rest, -3 joins the
    next two sides, -4 splits the next one into the two numbers that follow."""
    sides, codes, result = list(shape), list(codes), []
    while codes:
        code = codes.pop(0)
        if code == -2:
            result += sides
            sides = []
        elif code == -3:
            result.append(sides.pop(0) * sides.pop(0))
        elif code == -4:
            side, parts = sides.pop(0), [codes.pop(0), codes.pop(0)]
            result += [part if part != -1 else side // parts[1 - place] for place, part in enumerate(parts)]
        else:
            kept = sides.pop(0) if sides else None
            require(code != 0 or kept is not None, node, f'shape={node.attrs.get("shape")} keeps more sides than {tuple(shape)} has')
            result.append(kept if code == 0 else code)
    return result
