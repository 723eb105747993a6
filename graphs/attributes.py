"""The attributes of a node, read as MXNet reads them: one parser for the whole project.

A symbol holds attributes as texts, in the spelling of whoever wrote it. MXNet takes ``True``, ``true`` and ``1`` for a
flag; ``(3, 3)``, ``[3,3]``, ``3`` and Python 2's ``(3L, 3L)`` for integers; ``None`` for an attribute that is not set.
What is left out has the default of MXNet's operator, and some defaults surprise: ``fix_gamma`` is on, ``eps`` is 1e-3,
padded zeros count in an average.
"""

import re
import struct
from typing import Any, Collection, List, NamedTuple, Optional, Sequence, Tuple

from runtime.errors import GraphError

from .graph import Node

FLAGS = {'true': True, '1': True, 'false': False, '0': False}
_INTEGER = re.compile(r'[-+]?\d+')
_INTEGERS = re.compile(r'\s*(-?\d+|[(\[]\s*(-?\d+L?(\s*,\s*-?\d+L?)*\s*,?)?\s*[)\]])\s*')


class Window(NamedTuple):
    """The sliding window of a convolution or pooling: (height, width) each. ``pad`` is put on both sides."""

    kernel: Tuple[int, ...]
    stride: Tuple[int, ...]
    pad: Tuple[int, ...]
    dilate: Tuple[int, ...]


def describe(node: Node) -> str:
    """How an error calls a node: its operator and name."""
    return f'{node.op} {node.name!r}'


def require(condition: object, node: Node, reason: str) -> None:
    """Raise GraphError, which names the node, unless ``condition`` holds."""
    if not condition:
        raise GraphError(f'{describe(node)}: {reason}')


def unknown_operator(node: Node, what: str, known: Collection[str]) -> GraphError:
    """The GraphError for an operator that ``what`` (a converter) has no entry for."""
    return GraphError(f'{describe(node)}: {what} does not know this operator; it knows {", ".join(sorted(known))}')


def text(node: Node, name: str, default: Any = None) -> Any:
    """A text, or ``default`` where it is not set or None."""
    value = node.attrs.get(name, 'None')
    return default if value == 'None' else value


def flag(node: Node, name: str, default: bool = False) -> bool:
    """A Boolean, or ``default`` where it is not set or None.

    Raises GraphError for a text that MXNet does not take for one.
    """
    value = text(node, name)
    if value is None:
        return default
    require(value.lower() in FLAGS, node, f'{name}={value} is neither True nor False')
    return FLAGS[value.lower()]


def number(node: Node, name: str, default: Any = None) -> Any:
    """An int or float, or ``default`` where it is not set or None. Raises GraphError for a text that is no number."""
    value = text(node, name)
    if value is None:
        return default
    value = value.strip()
    if _INTEGER.fullmatch(value):
        return int(value)
    try:
        return float(value)
    except ValueError:
        raise GraphError(f'{describe(node)}: {name}={value} is no number') from None


def single(node: Node, name: str, default: Optional[float] = None) -> Any:
    """A number that MXNet holds in single precision even where the network computes in double."""
    value = number(node, name, default)
    return value if value is None else _rounded(value)


def integers(node: Node, name: str, default: Tuple[int, ...] = ()) -> Tuple[int, ...]:
    """A tuple of integers, or ``default`` where it is not set, None or empty.

    Raises GraphError for a text that MXNet does not take for one.
    """
    value = text(node, name)
    if value is None:
        return default
    require(_INTEGERS.fullmatch(value), node, f'{name}={value} is no tuple of integers')
    return tuple(int(digits) for digits in _INTEGER.findall(value)) or default


def _rounded(value):
    """The number in single precision."""
    return struct.unpack('f', struct.pack('f', value))[0]


def channels_last(node: Node) -> bool:
    """Whether the layout of a convolution or pooling has the channels on the last axis."""
    return text(node, 'layout', '').endswith('C')


def window(node: Node) -> Window:
    """The Window of a two-dimensional convolution or pooling.

    Raises GraphError for other dimensions and for channels-last layouts.
    """
    kernel = integers(node, 'kernel')
    spelled = node.attrs.get('kernel')
    require(len(kernel) == 2, node, f'kernel={spelled}: only windows over height and width are converted')
    require(text(node, 'layout', 'NCHW') == 'NCHW', node, f'layout={node.attrs.get("layout")}: only NCHW is converted')
    stride, dilate = integers(node, 'stride', (1, 1)), integers(node, 'dilate', (1, 1))
    return Window(kernel, stride, integers(node, 'pad', (0, 0)), dilate)


def pooled_length(length: int, kernel: int, stride: int, pad: int, convention: str) -> int:
    """How many windows a pooling has along an axis.

    'valid' rounds down. 'full' rounds up, even where the last window then sees nothing but padding.
    """
    steps = length + 2 * pad - kernel
    return (-(-steps // stride) if convention == 'full' else steps // stride) + 1


def window_counts(
    length: int, kernel: int, stride: int, pad: int, convention: str, count_include_pad: bool
) -> List[int]:
    """For each window along an axis, the number of positions that an average divides by; 1 where there is none."""
    starts = [index * stride - pad for index in range(pooled_length(length, kernel, stride, pad, convention))]
    if count_include_pad:
        return [max(min(start + kernel, length + pad) - start, 1) for start in starts]
    return [max(min(start + kernel, length) - max(start, 0), 1) for start in starts]


def pooling_convention(node: Node) -> str:
    """'valid' or 'full'; GraphError for 'same', which MXNet itself has for one dimension only."""
    convention = text(node, 'pooling_convention', 'valid')
    require(convention in ('valid', 'full'), node, f'pooling_convention={convention} is not converted')
    return convention


def batch_norm_axis(node: Node) -> int:
    """The axis of the channels. GraphError for a node whose mean and variance are outputs too."""
    require(not flag(node, 'output_mean_var'), node, 'output_mean_var is not converted')
    return number(node, 'axis', 1)


def batch_norm_eps(node: Node) -> float:
    """What is added to the variance. Only the default is held in single precision."""
    return number(node, 'eps', _rounded(1e-3))


def reshaped(shape: Sequence[int], codes: Sequence[int], node: Node) -> List[int]:
    """The shape that Reshape gives an array of ``shape``, from MXNet's codes.

    0 keeps a side, -1 takes what is left, -2 keeps all the rest, -3 joins the next two sides, -4 splits the next one
    into the two numbers that follow.
    """
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
            too_many = code == 0 and kept is None
            require(not too_many, node, f'shape={node.attrs.get("shape")} keeps more sides than {tuple(shape)} has')
            result.append(kept if code == 0 and kept is not None else code)
    return result
