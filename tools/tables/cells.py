"""The cells of a table: beside each published number ours, computed from the published structure and measured by our
run.
"""

from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Union

from .published import Row, Value
from .results import Result, result_of
from .structures import Cost, structure_cost


class Column(NamedTuple):
    """A column: its heading, the function that gives our value (a number, of ``blocks`` a text) for the Cost of a
    structure, which of a run's errors it is, and the digits where nothing is published.
    """

    heading: str
    of_cost: Optional[Callable[[Cost], Any]] = None
    error: Optional[str] = None
    digits: int = 2


COLUMNS = {
    'top1': Column('top-1 error (%)', error='top1'),
    'top5': Column('top-5 error (%)', error='top5'),
    'params': Column('parameters (M)', lambda cost: cost.left['params_without_bn'] / 1e6, digits=3),
    'macs': Column('MACs (G)', lambda cost: cost.left['macs'] / 1e9, digits=4),
    'macs_m': Column('MACs (M)', lambda cost: cost.left['macs'] / 1e6, digits=1),
    'macs_and_bias': Column(
        'MACs and bias additions (G)', lambda cost: (cost.left['macs'] + cost.left['bias_adds']) / 1e9
    ),
    'flops': Column(
        'multiplications and additions (G)', lambda cost: 2 * (cost.left['macs'] + cost.left['bias_adds']) / 1e9
    ),
    'others_flops': Column('FLOPs (G)'),
    'params_kept': Column(
        'parameters kept (%)', lambda cost: 100 * cost.left['params_without_bn'] / cost.full['params_without_bn']
    ),
    'macs_kept': Column('MACs kept (%)', lambda cost: 100 * cost.left['macs'] / cost.full['macs']),
    'blocks': Column('blocks kept', lambda cost: ','.join(map(str, cost.blocks))),
    'scratch_e': Column('top-1 accuracy from scratch, E (%)'),
    'scratch_b': Column('top-1 accuracy from scratch, B (%)'),
}


class Cell(NamedTuple):
    """One value of ours: a number, or the text of ``blocks``; the published Value, if there is one; and the digits to
    show where there is none.
    """

    ours: Union[float, str]
    published: Optional[Value] = None
    digits: int = 2

    @property
    def agreement(self) -> Optional[str]:
        """'=' where all printed digits agree, '= cut' where they do when ours is cut, not rounded; else the difference
        as text; None where nothing is published.
        """
        if self.published is None:
            return None
        if isinstance(self.ours, str):
            return '=' if self.ours == self.published.text else 'differs'
        digits = self.published.digits
        if f'{self.ours:.{digits}f}' == self.published.text:
            return '='
        if f'{int(self.ours * 10**digits) / 10**digits:.{digits}f}' == self.published.text:
            return '= cut'
        return f'{self.ours - self.published.number:+.{digits}f}'

    def __str__(self) -> str:
        if isinstance(self.ours, str):
            number = self.ours
        elif self.published is None:
            number = f'{self.ours:.{self.digits}f}'
        else:
            number = f'{self.ours:.{self.published.digits + (self.agreement == "= cut")}f}'
        return f'{number} ({self.agreement})' if self.published else number


class Line(NamedTuple):
    """Our values of a row by column, and where they come from: 'structure' or 'run', with the run's folder in
    ``source``.
    """

    origin: str
    cells: Dict[str, Cell]
    source: str = ''


def lines_of(row: Row, columns: Sequence[str], results: Sequence[Result]) -> List[Line]:
    """The Lines of a row: one from its published structure and one from its newest run, where they exist."""
    lines = []
    if row.network and row.keep:
        lines.append(Line('structure', _from_cost(row, columns, structure_cost(row.network, row.keep))))
    result = result_of(row, results) if row.recipe else None
    if result:
        lines.append(
            Line(
                'run', {**_errors(row, columns, result), **_from_cost(row, columns, cost_of(result))}, result['folder']
            )
        )
    return lines


def cost_of(result: Result) -> Cost:
    """The Cost that a run ended with."""
    return Cost(result['full'], result['left'], tuple(result['blocks']))


def _from_cost(row, columns, cost):
    return {
        name: Cell(COLUMNS[name].of_cost(cost), row.values.get(name), COLUMNS[name].digits)
        for name in columns
        if COLUMNS[name].of_cost
    }


def _errors(row, columns, result):
    found = {name: result['error'].get(COLUMNS[name].error) for name in columns if COLUMNS[name].error}
    return {name: Cell(error, row.values.get(name)) for name, error in found.items() if error is not None}
