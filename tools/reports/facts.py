"""What is known about a run: its log, its metrics, and its last checkpoint stripped and proved."""

import argparse
import logging
import os
import tempfile
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from formats.checkpoint_files import Epoch, load_checkpoint, named_checkpoint, prefix_of, save_model
from formats.log_file import read_run_line
from formats.metrics_file import read_metrics
from graphs.comparison import default_tolerance, noise
from graphs.graph import data_shape_of
from graphs.predictor import Network
from graphs.proof import prove
from graphs.strip import strip, switched_off
from runtime.errors import DataError, UserError
from symbols import parse_image_shape
from tools.benchmarks import inference
from tools.benchmarks.report import TableRow

PROOF_IMAGES = 8
# Enough for a median that a busy machine hardly changes; a small network takes a few seconds.
ROUNDS, STEPS = 9, 5


class Facts(NamedTuple):
    """Everything that the page says of a run.

    ``records`` are the epochs of ``PREFIX-metrics.jsonl``; ``run`` the first line of the log (command, arguments,
    versions), {} without a log; ``structure`` the report of ``graphs.strip.strip``; ``proof`` the result of
    ``graphs.proof.prove`` as a dict; ``timings`` rows of ``tools/benchmark.py inference``, [] where nothing was timed.
    """

    prefix: str
    epoch: Epoch
    image_shape: Tuple[int, ...]
    records: List[Dict[str, Any]]
    run: Dict[str, Any]
    structure: Dict[str, Any]
    proof: Dict[str, Any]
    timings: List[TableRow]


def gather(name: str, image_shape: Optional[str] = None, time: bool = False) -> Facts:
    """The Facts of the run whose checkpoint ``name`` means. ``time`` measures inference in every runtime that is
    installed. Raises UserError for a run without metrics or checkpoint.
    """
    records = read_metrics(f'{prefix_of(name)}-metrics.jsonl', needs=('epoch', 'train'))
    checkpoint = named_checkpoint(name)
    prefix, epoch = checkpoint
    before = Network(*load_checkpoint(*checkpoint))
    shape = parse_image_shape(image_shape) if image_shape else data_shape_of(before.symbol)
    if not shape:
        raise UserError(f'{prefix}-symbol.json does not say which images it takes: give --image-shape')
    shapes = {'data': (1, *shape)}
    exact = before._replace(arg_params=switched_off(before.arg_params, 0.0))
    stripped = strip(*before, shapes)
    proof = prove(exact, Network(*stripped[:3]), noise(PROOF_IMAGES, shapes), default_tolerance(before.arg_params))
    timings = _timed(prefix, epoch, shape, stripped) if time else []
    records = [record for record in records if record['epoch'] < checkpoint.whole_epochs] or records
    return Facts(prefix, epoch, shape, records, _run_line(prefix), stripped.report, proof.as_dict(), timings)


def _run_line(prefix):
    """The last 'Run: {...}' line of the log; {} where there is no log, or none of ours."""
    try:
        return read_run_line(f'{prefix}.log')
    except DataError as error:
        logging.warning('%s; the report leaves out how the run was made', error)
        return {}


def _timed(prefix, epoch, shape, stripped):
    """Rows for the full network and the stripped one, λ and batch normalisation folded in both, taking turns."""
    with tempfile.TemporaryDirectory() as folder:
        smaller = os.path.join(folder, 'stripped')
        save_model(smaller, 0, *stripped[:3])
        wanted = argparse.Namespace(
            models=[f'{prefix}:{epoch}', f'{smaller}:0'],
            image_shape=','.join(map(str, shape)),
            runtimes=list(inference.RUNTIMES),
            batch_sizes=[1, 32],
            rounds=ROUNDS,
            steps=STEPS,
            clock='wall',
            plot=None,
        )
        return inference.measure(wanted)
