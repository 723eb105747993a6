"""The measurements of ``tools/benchmark.py --json results/benchmarks/NAME.json``, as passages of a Markdown file named
benchmark-NAME.
"""

import functools
import glob
import os
from typing import Callable, Dict

from runtime.errors import DataError
from runtime.reading import MB, read_json
from tools.benchmarks.report import as_markdown


def measurements(results: str) -> Dict[str, Callable[[], str]]:
    """A dict from benchmark-NAME to a function that gives the table of that file below the folder ``results``."""
    paths = sorted(glob.glob(os.path.join(glob.escape(results), 'benchmarks', '*.json')))
    return {
        f'benchmark-{os.path.splitext(os.path.basename(path))[0]}': functools.partial(_table, path) for path in paths
    }


def _table(path):
    found = read_json(path, MB)
    try:
        return as_markdown(found)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(f'{path}: not a file of tools/benchmark.py --json ({error!r}); measure it anew') from None
