"""MXNet's ``-symbol.json`` files: checked in Python before C++ sees them, written atomically."""

from __future__ import annotations

from runtime import mx
from runtime.errors import GraphError
from runtime.files import write_text
from runtime.reading import read_text

from .symbol_json import MAX_BYTES, checked_json
from .symbol_operators import first_line


def load_symbol(path: str) -> mx.sym.Symbol:
    """Read a symbol. Raises GraphError, naming the file and the reason, for a missing, damaged or hostile one."""
    return symbol_from_json(read_text(path, MAX_BYTES, GraphError), path)


def symbol_from_json(text: str, path: str) -> mx.sym.Symbol:
    """The symbol that the JSON ``text`` describes; ``path`` is what errors call it. Raises GraphError."""
    checked = check_symbol_json(text, path)
    try:
        return mx.sym.load_json(checked)
    except mx.MXNetError as error:
        raise GraphError(f'{path}: MXNet cannot read it: {first_line(error)}') from None


def check_symbol_json(text: str, path: str) -> str:
    """Check the JSON ``text`` of a symbol and return it as it may safely be given to MXNet. Raises GraphError naming
    ``path`` and the reason.
    """
    try:
        return checked_json(text)
    except GraphError as error:
        raise GraphError(f'{path}: {error}') from None


def save_symbol(path: str, symbol: mx.sym.Symbol) -> None:
    """Write a symbol atomically, as ``symbol.save`` would."""
    write_text(path, symbol.tojson())
