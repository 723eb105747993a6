"""The output of a run: log lines that parsers of MXNet logs know, a file with one JSON object for each epoch, and a
progress bar on a terminal.
"""

import json
import logging
import logging.handlers
import os
import platform
import sys
import time
from typing import Any, Dict, Optional

import numpy as np
import tqdm

from formats.metrics_file import MAX_BYTES
from runtime import mx
from runtime.errors import UserError
from runtime.files import naming, write_text
from runtime.reading import parsed_json, read_bytes

from .metrics import Tally

MXNET_FORMAT = '%(asctime)-15s Node[{rank}] %(message)s'


def open_log(prefix: Optional[str] = None, rank: int = 0, quiet: bool = False) -> 'LogFile':
    """Send log lines to stderr, without tearing a progress bar, and, with a ``prefix``, to ``PREFIX.log`` as well: see
    LogFile, which is returned.

    ``rank`` is the number of this worker, which every line names. If ``quiet``, only warnings go to stderr.
    """
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    log = LogFile(prefix)
    screen = _AboveProgressBar()
    if quiet:
        screen.setLevel(logging.WARNING)
    for handler in (screen, log):
        handler.setFormatter(logging.Formatter(MXNET_FORMAT.format(rank=rank)))
        root.addHandler(handler)
    root.setLevel(logging.INFO)
    return log


class LogFile(logging.handlers.MemoryHandler):
    """``PREFIX.log``, whose lines are kept in memory until ``write_file``, so that a run that is refused writes no
    file. Without a prefix, nothing is written.
    """

    def __init__(self, prefix: Optional[str]) -> None:
        super().__init__(capacity=1, flushOnClose=False)
        self._prefix = prefix

    def write_file(self) -> None:
        """Write the lines so far, and from now on each at once. Raises OSError."""
        target: logging.Handler = logging.NullHandler()
        if self._prefix:
            os.makedirs(os.path.dirname(os.path.abspath(self._prefix)), exist_ok=True)
            target = _StrictFileHandler(self._prefix + '.log', encoding='utf-8')
        target.setFormatter(self.formatter)
        self.setTarget(target)
        self.flush()


class _StrictFileHandler(logging.FileHandler):
    """A file of log lines that raises OSError where a line cannot be written."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Raise the error that is being handled, with the name of the file."""
        with naming(self.baseFilename):
            raise  # noqa: PLE0704  (called from an except clause; logging would print a traceback and go on)


class _AboveProgressBar(logging.Handler):
    """Writes log lines to stderr above a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line of ``record``."""
        tqdm.tqdm.write(self.format(record), file=sys.stderr)


def versions() -> Dict[str, Any]:
    """What a result may depend on apart from the code: a dict of versions and the number of threads."""
    return {
        'python': platform.python_version(),
        'mxnet': mx.__version__,
        'numpy': np.__version__,
        'machine': platform.machine(),
        'threads': os.environ.get('OMP_NUM_THREADS'),
    }


class Metrics:
    """``PREFIX-metrics.jsonl``: a line for each epoch. Without a prefix, nothing is written."""

    def __init__(self, prefix: Optional[str]) -> None:
        self._path = f'{prefix}-metrics.jsonl' if prefix else None

    def forget_from(self, epoch: int) -> None:
        """Drop the lines of ``epoch`` and later, which a resumed run will write again.

        Lines that cannot be read are left out too. Then the old file is kept under a name that ends in ``.damaged``.
        """
        if not self._path:
            return
        kept, is_damaged = [], False
        if epoch and os.path.exists(self._path):
            text = read_bytes(self._path, MAX_BYTES).decode('utf-8-sig', errors='replace')
            for line in text.splitlines(keepends=True):
                record = _record_of(line)
                is_damaged |= record is None
                if record is not None and record['epoch'] < epoch:
                    kept.append(json.dumps(record) + '\n')
        if is_damaged:
            with naming(self._path):
                os.replace(self._path, f'{self._path}.damaged')
            logging.warning(
                '%s has lines that cannot be read; %d epochs of it were kept, and the old file is now %s.damaged',
                self._path,
                len(kept),
                self._path,
            )
        write_text(self._path, ''.join(kept))

    def add(self, record: Dict[str, Any]) -> None:
        """Append the line of an epoch. Raises OSError."""
        if self._path:
            with naming(self._path), open(self._path, 'a', encoding='utf-8') as out:
                out.write(json.dumps(record) + '\n')


def _record_of(line):
    """The record of an epoch in a line of a metrics file, or None where there is none."""
    try:
        record = parsed_json(line, 'a line of metrics')
        return record if line.endswith('\n') and isinstance(record['epoch'], int) else None
    except (UserError, TypeError, KeyError):
        return None


class Progress:
    """The lines of MXNet's ``Speedometer`` every ``every`` batches of an epoch; on a terminal, a bar in between.

    The bar shows the loss so far, ``alive`` (what the structure came to at the end of the epoch before), and how long
    training takes to the end of the last of ``epochs``, as fast as it was in this one.
    """

    def __init__(
        self, epoch: int, batches: int, first: int, batch_size: int, every: int, epochs: int = 0, alive: str = ''
    ) -> None:
        self._epoch, self._batch_size, self._every = epoch, batch_size, every
        self._first, self._last, self._alive = first, batches * max(1, epochs - epoch), alive
        self._entered = time.time()
        self._done = self._reported = first
        self._began = self._since = time.time()
        self._middle = first + (batches - first) // 2
        self._bar = tqdm.tqdm(
            total=batches,
            initial=first,
            desc=f'epoch {epoch}',
            unit='batch',
            bar_format='{l_bar}{bar}| {n_fmt}/{total_fmt}{postfix}',
            leave=False,
            disable=not sys.stderr.isatty(),
        )

    def __enter__(self) -> 'Progress':
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.close()

    def settled_speed(self) -> float:
        """Images/s since the middle of the epoch: the time of compiling, and of filling caches, is not in it."""
        return (self._done - self._middle) * self._batch_size / max(time.time() - self._began, 1e-9)

    def _state(self, tally: Tally) -> str:
        """'loss 0.123, 45 of 48 structures, 93 % of the MACs, 1:02:03 left'."""
        seconds = (time.time() - self._entered) / (self._done - self._first) * (self._last - self._done)
        loss = f'loss {tally.averages()["cross-entropy"]:.3f}'
        return ', '.join(filter(None, [loss, self._alive, f'{tqdm.tqdm.format_interval(seconds)} left']))

    def batch_done(self, tally: Tally) -> None:
        """Count a batch, and log the speed and the averages of ``tally`` every ``every`` batches."""
        self._done += 1
        if self._bar.update():  # at most ten times a second; the loss may have to be fetched from a card
            self._bar.set_postfix_str(self._state(tally))
        if self._done == self._middle:
            self._began = time.time()
        if self._done % self._every:
            return
        elapsed = max(time.time() - self._since, 1e-9)
        speed = (self._done - self._reported) * self._batch_size / elapsed
        figures = ''.join(f'\t{name}={value:f}' for name, value in tally.averages().items())
        logging.info(
            'Epoch[%d] Batch [%d-%d]\tSpeed: %.2f samples/sec%s',
            self._epoch,
            self._reported,
            self._done,
            speed,
            figures,
        )
        self._reported, self._since = self._done, time.time()
