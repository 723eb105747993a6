"""The report of a measurement: a Markdown table for readers, a JSON object for programs, and with both the command, the
machine and the versions.
"""

import datetime
import importlib.metadata
import json
import os
import platform
import shlex
from typing import Any, Dict, List, Optional, Sequence

from runtime import mx, usable_cores
from runtime.files import write_text

from .alternating import Measured

PACKAGES = ('mxnet', 'mxnet-cu112', 'numpy', 'onnxruntime', 'torch')
# From the heading of a column to a text, a number, or a list, which only the JSON file holds.
TableRow = Dict[str, Any]


def environment() -> Dict[str, Any]:
    """When, where and with which versions it was measured; 'load' is the load of the machine at the end."""
    return {
        'date': datetime.date.today().isoformat(),
        'cpu': _cpu(),
        'cores': usable_cores(),
        'omp_num_threads': os.environ['OMP_NUM_THREADS'],
        'gpus': mx.context.num_gpus(),
        'load': round(os.getloadavg()[0], 1),
        'python': platform.python_version(),
        'versions': _versions(),
    }


def report(title: str, argv: Sequence[str], rows: List[TableRow], json_path: Optional[str] = None) -> None:
    """Print ``rows``, which have the same keys, as a table under ``title``, and write them to ``json_path`` with
    everything needed to repeat them.
    """
    command = f'python tools/benchmark.py {" ".join(map(shlex.quote, argv))}'
    found = {'title': title, 'command': command, 'environment': environment(), 'rows': rows}
    print(as_markdown(found))
    if json_path:
        write_text(json_path, json.dumps(found, indent=1) + '\n')


def as_markdown(found: Dict[str, Any]) -> str:
    """The text that ``report`` prints, from the object that it writes."""
    return f'{found["title"]}\n\n{markdown(found["rows"])}\n\n`{found["command"]}`: {describe(found["environment"])}'


def describe(found: Dict[str, Any]) -> str:
    """An ``environment`` in one line."""
    versions = ', '.join(f'{name} {version}' for name, version in found['versions'].items())
    machine = f'{found["cores"]} cores of {found["cpu"]} ({found["omp_num_threads"]} threads, load {found["load"]})'
    return f'{found["date"]}, {machine}, Python {found["python"]}, {versions}'


def markdown(rows: List[TableRow]) -> str:
    """A Markdown table of ``rows``, numbers to three digits; columns of lists are left to the JSON file."""
    names = [name for name, value in rows[0].items() if not isinstance(value, list)]
    lines = [names, [':--' if isinstance(rows[0][name], str) else '--:' for name in names]]
    lines += [[_cell(row[name]) for name in names] for row in rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def milliseconds(measured: Measured) -> TableRow:
    """The columns that every table has: the median time of a step, all of them, and the memory."""
    return {
        'ms': 1e3 * measured.median,
        'peak MiB': round(measured.peak_bytes / 2**20),
        'all ms': [round(1e3 * second, 3) for second in measured.seconds],
    }


def _cell(value):
    if isinstance(value, float):
        return f'{value:.3f}' if value < 10 else f'{value:.1f}' if value < 1000 else f'{value:.0f}'
    return '–' if value is None else str(value)


def _cpu():
    try:
        with open('/proc/cpuinfo') as lines:
            return next(line.split(':', 1)[1].strip() for line in lines if line.startswith('model name'))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _versions():
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
