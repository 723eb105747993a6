"""The published numbers, read from published.yaml; no code holds them."""

import os
import re
from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple

import yaml

from runtime.errors import DataError
from runtime.reading import MB, read_text

PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'published.yaml')


class Value(NamedTuple):
    """A published number as it is printed ('24.56', '0,4,6,3'), and its grade: 'A', 'B', 'M' or '?'."""

    text: str
    grade: str

    @property
    def number(self) -> float:
        """The number that is printed. Raises ValueError for several, of ``blocks``."""
        return float(self.text)

    @property
    def digits(self) -> int:
        """How many digits are printed after the point."""
        return len(self.text.partition('.')[2])


class Row(NamedTuple):
    """A row of a table: the model, its published ``values`` by column, and what is needed to compute or measure ours.

    ``network`` are arguments of ``symbols.get_symbol`` (empty for a network that we do not have); ``keep`` is the
    structure, a text of 1 and 0 for each block ('000 1111 111111 111'), 'all', or None where it was not published;
    ``recipe`` is the path of the training run, or None.
    """

    table: str
    model: str
    values: Dict[str, Value]
    network: Dict[str, Any]
    keep: Optional[str]
    recipe: Optional[str]

    @property
    def name(self) -> str:
        """The name of the row on command lines, such as 'imagenet-resnet/sss-resnet-41'."""
        return f'{self.table}/{re.sub("[^a-z0-9]+", "-", self.model.lower()).strip("-")}'


class Table(NamedTuple):
    """A table: its name, title, note (text for readers, or ''), the names of its columns and its rows."""

    name: str
    title: str
    note: str
    columns: Tuple[str, ...]
    rows: Tuple[Row, ...]


def read_tables(path: str = PATH) -> Dict[str, Table]:
    """All published tables, dict from name to Table. Raises DataError where a cell is not a number and a grade."""
    found = yaml.safe_load(read_text(path, MB))
    return {name: _table(name, content) for name, content in found.items()}


def find_row(tables: Mapping[str, Table], name: str) -> Row:
    """The Row of this name. The name of a cell, row and column ('imagenet-resnet/sss-resnet-41/top1'), is taken too.
    Raises DataError, which lists the rows that can be run.
    """
    rows = {row.name: row for table in tables.values() for row in table.rows}
    wanted = '/'.join(name.split('/')[:2])
    if wanted not in rows:
        raise DataError(
            f'no row {name!r}; those that can be run: {", ".join(row.name for row in rows.values() if row.recipe)}'
        )
    return rows[wanted]


def _table(name, content):
    shared = content.get('network', {})
    rows = [
        Row(
            name,
            row['model'],
            {column: _value(row[column], row['model']) for column in content['columns'] if column in row},
            {**shared, **row.get('network', {})} if content.get('network') else {},
            row.get('keep'),
            row.get('recipe'),
        )
        for row in content['rows']
    ]
    return Table(name, content['title'], content.get('note', ''), tuple(content['columns']), tuple(rows))


def _value(text, model):
    match = re.fullmatch(r'([\d.,]+) \[([ABM?])\]', text)
    if not match:
        raise DataError(f'published.yaml, {model}: {text!r} is not a number and its grade, such as 24.56 [B]')
    return Value(*match.groups())
