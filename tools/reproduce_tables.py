"""Print the paper's tables and draw its figures: each published number with its grade, beside it ours and its source.

Examples:
    python tools/reproduce_tables.py all                                  # every table, figures into results/figures
    python tools/reproduce_tables.py imagenet-resnet --json
    python tools/reproduce_tables.py --run cifar10/sss-resnet-20          # make the run behind a row
    python tools/reproduce_tables.py --update README.md docs/tables.md    # write the tables of these pages anew
"""

import argparse
import functools
import json
import os
from typing import Callable, Dict, List, Mapping, Optional, Sequence

from runtime.cli import Parser, run
from runtime.errors import DataError
from runtime.files import write_text
from runtime.reading import MB, read_text
from tools import sweep
from tools.tables.budget_figure import budget_course
from tools.tables.budgets import budgets_markdown
from tools.tables.figures import all_figures
from tools.tables.from_scratch import from_scratch_markdown
from tools.tables.gammas import gammas_json, gammas_markdown
from tools.tables.measurements import measurements
from tools.tables.options import options_markdown
from tools.tables.pages import refreshed
from tools.tables.plotting import save
from tools.tables.published import Table, find_row, read_tables
from tools.tables.render import LEGEND, longest_runs_markdown, published_json, published_markdown, runs_markdown
from tools.tables.results import FOLDER, Result, read_results

FIGURE = 'figure-'
CAPTIONS = {
    'imagenet': 'Published error on ImageNet against parameters and MACs',
    'cifar': 'Error on CIFAR against what is kept of the network',
    'structure': 'Residual blocks kept in each stage',
    'runs': 'Error of our runs against their MACs',
    'lambda': 'Where λ ended in our runs',
    'rules': 'APG against other rules for λ',
}
# Small runs with a budget, below the folder of the results. They are in a table and a figure of their own only.
BUDGETS, BUDGET_FIGURE = 'budgets', 'budget'
BUDGET_CAPTION = 'A run with a budget: λ, the MACs that are left, accuracy and speed over the epochs'
RUNS = {'runs': 'Our runs', 'gammas': 'What each γ took'}
Tables = Mapping[str, Table]


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Print, draw or update as the command line ``argv`` says; returns the exit code."""
    args = parser().parse_args(argv)
    tables = read_tables()
    if args.run:
        row = find_row(tables, args.run)
        if not row.recipe:
            raise DataError(f'{row.name}: no recipe is known for it')
        return sweep.main(['--recipe', row.recipe, '--no-baseline', '--out', args.results])
    if not os.path.isdir(args.results):
        raise DataError(f'--results {args.results}: no such folder; name the one that holds the runs')
    results = read_results(args.results)
    if args.update:
        for page in args.update:
            update(page, tables, results, args.figures, args.results)
        return 0
    figures = all_figures(tables, without_small(results, args.results))
    names = chosen(args.table, [*tables, *RUNS, *(FIGURE + name for name in figures)])
    for name in names:
        if name.startswith(FIGURE):
            save(figures[name[len(FIGURE) :]](), os.path.join(args.figures, name[len(FIGURE) :]))
    print(
        as_json(names, tables, results, args.figures)
        if args.json
        else as_markdown(names, tables, results, args.figures, where=args.results)
    )
    return 0


def without_small(results: List[Result], where: str) -> List[Result]:
    """The results that are not below BUDGETS in the folder ``where``."""
    small = os.path.join(os.path.normpath(where), BUDGETS, '')
    return [result for result in results if not os.path.normpath(result['folder']).startswith(small)]


def parser() -> Parser:
    """The parser of this script."""
    made = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument(
        'table',
        nargs='?',
        default='all',
        help="a table, 'runs' (everything that was run here), 'gammas' (what each γ "
        "took), a figure ('figure-imagenet'), or all",
    )
    made.add_argument('--json', action='store_true', help='print one object')
    made.add_argument('--results', default=FOLDER, help='the folder of the runs of tools/sweep.py (default: results)')
    made.add_argument(
        '--figures',
        default=os.path.join(FOLDER, 'figures'),
        help='where figures are written, as PNG and SVG (default: results/figures)',
    )
    made.add_argument(
        '--run',
        metavar='ROW',
        help='train, strip and evaluate the recipe of a row, for example imagenet-resnet/sss-resnet-41',
    )
    made.add_argument(
        '--update',
        nargs='+',
        metavar='PAGE',
        help='write again what is between <!-- table: NAME --> and <!-- /table --> in these Markdown files, and the '
        'figures that they show',
    )
    return made


def chosen(table: str, known: List[str]) -> List[str]:
    """The names of what is to be shown: all that are ``known``, or one. Raises DataError for an unknown one."""
    if table != 'all' and table not in known:
        raise DataError(f'no table {table!r}; there are all, {", ".join(known)}')
    return known if table == 'all' else [table]


def as_markdown(
    names: Sequence[str], tables: Tables, results: List[Result], folder: str, base: str = '.', where: str = FOLDER
) -> str:
    """The tables and figures ``names`` as Markdown. Figures are in ``folder``, links lead from ``base``, and runs are
    below ``where``.
    """
    make = makers(tables, results, folder, base, where)
    return '\n\n'.join([*(f'## {title_of(name, tables)}\n\n{make[name]()}' for name in names), make['legend']()])


def as_json(names: Sequence[str], tables: Tables, results: List[Result], folder: str) -> str:
    """The tables ``names`` as a JSON object; of figures, which are in ``folder``, the paths."""
    found: Dict[str, object] = {}
    for name in names:
        if name in tables:
            found[name] = published_json(tables[name], results)
        elif name == 'runs':
            found[name] = results
        elif name == 'gammas':
            found[name] = gammas_json(results)
        else:
            found[name] = [os.path.join(folder, f'{name[len(FIGURE) :]}.{ending}') for ending in ('png', 'svg')]
    return json.dumps(found, indent=1)


def makers(
    tables: Tables, results: List[Result], folder: str, base: str, where: str = FOLDER
) -> Dict[str, Callable[[], str]]:
    """A dict from the name of every generated passage to a function that gives its Markdown; its links lead from the
    folder ``base``.
    """
    budgets, results = results, without_small(results, where)
    captions = {**CAPTIONS, BUDGET_FIGURE: BUDGET_CAPTION}
    made: Dict[str, Callable[[], str]] = {
        name: functools.partial(published_markdown, table, results, base) for name, table in tables.items()
    }
    for name, caption in captions.items():
        path = os.path.relpath(os.path.join(folder, name), base)
        made[FIGURE + name] = functools.partial('![{}]({}.png)'.format, caption, path)
    return {
        **made,
        **measurements(where),
        'budgets': lambda: budgets_markdown(budgets),
        'runs': lambda: runs_markdown(results, base),
        'longest-runs': lambda: longest_runs_markdown(results, base),
        'gammas': lambda: gammas_markdown(results),
        'from-scratch': lambda: from_scratch_markdown(results),
        'options': options_markdown,
        'legend': lambda: LEGEND,
    }


def title_of(name: str, tables: Tables) -> str:
    """The heading of a table or figure."""
    if name in tables:
        return tables[name].title
    return RUNS.get(name) or CAPTIONS[name[len(FIGURE) :]]


def update(path: str, tables: Tables, results: List[Result], folder: str, where: str) -> None:
    """Write the generated passages of the Markdown file ``path`` again, and the figures that it shows into ``folder``.
    Raises DataError for an unknown passage.
    """
    before = read_text(path, 16 * MB)
    after = refreshed(before, makers(tables, results, folder, os.path.dirname(path) or '.', where))
    figures = all_figures(tables, without_small(results, where))
    demos = [result for result in results if result['recipe'].endswith('-demo.args')]
    if demos:
        figures[BUDGET_FIGURE] = lambda: budget_course(demos[-1])
    for name, draw in figures.items():
        if f'<!-- table: {FIGURE}{name} -->' in before:
            save(draw(), os.path.join(folder, name))
    write_text(path, after)
    print(f'{path}: {"unchanged" if after == before else "written"}')


if __name__ == '__main__':
    run(main)
