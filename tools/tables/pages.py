"""Generated passages in a Markdown file: the text between ``<!-- table: NAME -->`` and ``<!-- /table -->`` is written
by ``tools/reproduce_tables.py``.
"""

import re
from typing import Callable, Mapping

from runtime.errors import DataError

PASSAGE = re.compile(r'(<!-- table: (\S+) -->\n)(.*?)(<!-- /table -->)', re.DOTALL)


def refreshed(text: str, make: Mapping[str, Callable[[], str]]) -> str:
    """``text`` with every generated passage written again; ``make`` is a dict from NAME to a function that gives its
    Markdown.

    Raises DataError for an unknown NAME, and for a passage without an end.
    """

    def passage(match):
        begin, name, _, end = match.groups()
        if name not in make:
            raise DataError(f'<!-- table: {name} -->: unknown table; known are {", ".join(make)}')
        return f'{begin}\n{make[name]()}\n\n{end}'

    _require_ends(text)
    return PASSAGE.sub(passage, text)


def _require_ends(text):
    marks = re.findall(r'<!-- (table: \S+|/table) -->', text)
    for position, mark in enumerate(marks):
        if mark != '/table' and marks[position + 1 : position + 2] != ['/table']:
            raise DataError(f'<!-- {mark} --> has no <!-- /table --> after it')
