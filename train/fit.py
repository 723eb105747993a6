"""The training loop. From top to bottom: a run, its start, an epoch, what is saved after it."""

from __future__ import annotations

import argparse
import json
import logging
import math
import shlex
import sys
import time
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from graphs.for_training import synchronised_layers
from graphs.predictor import Network
from graphs.preprocessing import Preprocessing, with_preprocessing
from runtime import mx
from runtime.errors import TrainingError
from runtime.threads import ThreadChooser

from .build import all_versions, cumulative_shrinkage, make_engine, make_optimizer, network
from .checkpoint import State
from .conclusion import Course, conclusion
from .distributed.group import ALONE, Alone
from .engines.interface import Batches
from .interruption import Interruption
from .lock import locked
from .log import Progress, open_log
from .report import StructureReport, advise, alive_in_words, log_averages, log_gamma_budget
from .resizing import ResizableEngine
from .run_files import RunFiles
from .selection_steps import SelectionSteps
from .watch import Watch


def fit(
    args: argparse.Namespace,
    train_data: Batches,
    val_data: Batches,
    image_shape: Tuple[int, ...],
    num_classes: int,
    top_k: int = 0,
    group: Alone = ALONE,
    preprocessing: Optional[Preprocessing] = None,
    notes: Sequence[str] = (),
) -> int:
    """Train by the parsed command line ``args`` (see ``train.arguments``) on two iterators; ``top_k`` above 1 also
    reports top-k accuracy. ``preprocessing`` is written into the symbol of the run; the log begins with ``notes``.

    Each worker of a ``group`` calls this with its share of the data; only the first one writes files. Returns 0, or
    128 + the signal's number where one stopped the run. Raises UserError for what a user can correct.
    """
    log = open_log(args.model_prefix if group.rank == 0 else None, group.rank, args.quiet)
    logging.info(
        'Run: %s',
        json.dumps(
            {'command': shlex.join(sys.argv), 'arguments': vars(args), 'versions': all_versions(args)},
            default=str,
            sort_keys=True,
        ),
    )
    for note in notes:
        logging.info('%s', note)
    symbol = with_preprocessing(network(args, image_shape, num_classes), preprocessing, image_shape)
    synchronised = synchronised_layers(symbol)
    if synchronised:
        logging.info(
            'Batch normalisation over devices (%d layers): each device normalises its own images', synchronised
        )
    with locked(args.model_prefix if group.rank == 0 else None):
        run = Run(args, train_data, val_data, symbol, top_k, group)
        run.start()
        log.write_file()
        return run.train()


class Run:
    """A training run: its engine, its data, and how far it has come (``epoch`` whole epochs and ``batch`` batches)."""

    def __init__(
        self,
        args: argparse.Namespace,
        train_data: Batches,
        val_data: Batches,
        symbol: mx.sym.Symbol,
        top_k: int,
        group: Alone,
    ) -> None:
        self._args, self._symbol, self._top_k, self._group = args, symbol, top_k, group
        self._one_image = one_image = {'data': (1,) + tuple(train_data.provide_data[0].shape[1:])}
        self._engine = ResizableEngine(
            symbol,
            one_image,
            lambda smaller: make_engine(args, smaller, train_data, group),
            lambda smaller: make_optimizer(args, smaller, len(train_data), group),
        )
        self._train_data = self._engine.prepare_iterator(train_data)
        self._val_data = self._engine.prepare_iterator(val_data)
        self._tally = self._engine.tally(top_k)
        self._threads = ThreadChooser(args.threads, self._engine.set_threads)
        self._files = RunFiles(args, symbol, train_data, group)
        self._report = StructureReport(symbol, one_image)
        self._selection = SelectionSteps(
            args, symbol, one_image, self._engine, self._train_data, lambda: self._engine.tally(top_k)
        )
        self._watch = Watch(symbol, symbol.infer_shape(**one_image)[1][0][1])
        self.epoch, self.batch = 0, 0
        self._best: Optional[List[Any]] = None  # [validation accuracy, epoch]
        self._records: List[Dict[str, Any]] = []  # of the epochs trained now
        self._began = time.time()

    def start(self) -> None:
        """Initialise, load the weights to start from, or resume."""
        args = self._args
        self._engine.seed(args.seed)
        if args.resume or args.load_epoch is not None:
            self._resume(self._files.load())
        elif args.finetune:
            self._engine.start(*self._files.load_weights())
        else:
            self._engine.start()
        self._selection.apply(self.batch)
        self._files.begin(self.epoch, self._selection.has_budget)
        optimizer = make_optimizer(args, self._symbol, len(self._train_data), self._group)
        log_gamma_budget(cumulative_shrinkage(args, optimizer, len(self._train_data), self._group))

    def train(self) -> int:
        """Train to the last epoch, and conclude. Returns 0, or 128 + the signal's number where one stopped the run."""
        with Interruption() as interruption:
            for epoch in range(self.epoch, self._args.num_epochs):
                if self.train_epoch(epoch, interruption):
                    self.finish_epoch(epoch)
                if self.is_stopped_by(interruption):
                    logging.info(
                        'Stopped by signal %d after %d epochs and %d batches%s',
                        interruption.signal,
                        self.epoch,
                        self.batch,
                        '; --resume goes on from here' if self._args.model_prefix else '',
                    )
                    return 128 + (interruption.signal or 0)
        self.conclude()
        return 0

    def train_epoch(self, epoch: int, interruption: Interruption) -> bool:
        """Train to the end of ``epoch`` and return True; or, when ``interruption`` has a signal before that, save and
        return False.
        """
        self._started, self._done_before = time.time(), self._tally.count
        self._train_data.set_epoch(epoch, self.batch)
        self._selection.begin_epoch(epoch)
        with self._progress(epoch) as progress:
            for batch in self._train_data:
                self._train_batch(epoch, batch)
                progress.batch_done(self._tally)
                if self.batch < len(self._train_data) and self._may_stop() and self.is_stopped_by(interruption):
                    self._save()
                    return False
            self._engine.settle()
            self._settled_speed = progress.settled_speed()
        self._engine.end_epoch()
        arg_params, aux_params = self._engine.parameters()
        everything = {name: array.asnumpy() for name, array in {**arg_params, **aux_params}.items()}
        self._require_finite(epoch, {**self._engine.lambdas(), **everything})  # λ first: they are the first to be named
        self.epoch, self.batch = epoch + 1, 0
        return True

    def _progress(self, epoch: int) -> Progress:
        """The progress of ``epoch``, which tells what the epoch before has left."""
        args, alive = self._args, alive_in_words(self._records[-1]) if self._records else ''
        return Progress(
            epoch, len(self._train_data), self.batch, args.batch_size, args.disp_batches, args.num_epochs, alive
        )

    def is_stopped_by(self, interruption: Interruption) -> bool:
        """Whether a signal has come to any worker; every worker is told."""
        interruption.signal = max(self._group.exchange(interruption.signal or 0))
        return bool(interruption.signal)

    def finish_epoch(self, epoch: int) -> None:
        """Evaluate, log, save, and prepare the next epoch."""
        self._tally.sums = self._group.total(self._tally.sums)
        seconds, trained = time.time() - self._started, self._tally.averages()
        log_averages(epoch, 'Train', trained)
        logging.info('Epoch[%d] Time cost=%.3f', epoch, seconds)
        has_shrunk = self._selection.end_epoch(epoch)
        validated, count = self._evaluate()
        log_averages(epoch, 'Validation', validated)
        logging.info('Epoch[%d] Validation on %d images', epoch, count)
        record = {
            'epoch': epoch,
            'seconds': seconds,
            'samples_per_second': (self._tally.count - self._done_before) / seconds,
            'train': trained,
            'validation': validated,
            'validation_images': count,
            **self._report.at_end_of(epoch, self._engine.lambdas()),
        }
        self._files.metrics.add(record)
        self._records.append(record)
        accuracy = float(validated['accuracy'])
        self._selection.report(epoch, accuracy, self._settled_speed)
        self._watch.look(epoch, accuracy, self._engine.lambdas(), record.get('alive'))
        if has_shrunk and self.epoch < self._args.num_epochs:
            self._best = None  # the best epoch is the best at the final size
        if self._best is None or accuracy > self._best[0]:
            self._best = [accuracy, self.epoch]
        self._tally.clear()
        self._save()
        self._selection.after_epoch(self.epoch)

    def conclude(self) -> None:
        """Write the stripped network where there was a budget; log the conclusion, and what to try where nothing was
        removed.
        """
        if self._selection.has_budget:
            self._files.strip(Network(self._symbol, *self._engine.parameters()), self._one_image)
        if self._records:
            course = Course(self._records[0], self._records[-1], self._best, self._selection.accuracy_before)
            lines = conclusion(self._args, course, time.time() - self._began)
            for line in lines:
                logging.info('%s', line)
            if self._group.rank == 0 and self._args.quiet:
                print(*lines, sep='\n', file=sys.stderr)
        advise(self._args, self._symbol, self._engine.lambdas())

    def _resume(self, state: State) -> None:
        self._engine.start(state.arg_params, state.aux_params, state.optimizer_state)
        self._selection.resume(state.selection, state.epoch)
        self.epoch, self.batch, self._best = state.epoch, state.batch, state.best
        if self._group.rank == 0:  # the others' images are in these sums too
            self._tally.sums = state.tally
        logging.info('Resumed after %d epochs and %d batches', state.epoch, state.batch)
        if state.threads not in (None, self._threads.threads) and not self._args.gpus:
            logging.info(
                'The checkpoint was made with %d threads, this run has %d: results may differ in their last digits; '
                '--threads %d goes on exactly',
                state.threads,
                self._threads.threads,
                state.threads,
            )
        if self._group.compression:
            logging.warning(
                'The parts of gradients that --gc-type %s had kept for the next step are lost', self._args.gc_type
            )

    def _train_batch(self, epoch: int, batch: mx.io.DataBatch) -> None:
        self._selection.before_step(self.batch)
        probabilities = self._engine.step(batch, _seed_of(self._args.seed, epoch, self.batch, self._group.rank))
        self._tally.add(probabilities, self._engine.labels(batch))
        self.batch += 1
        self._group.heartbeat()
        self._threads.look()
        if self._tally.has_nonfinite_loss or self.batch % self._args.disp_batches == 0:
            self._require_finite(epoch, self._engine.lambdas())

    def _evaluate(self) -> Tuple[Dict[str, float], int]:
        """(averages over the validation images, their number)"""
        tally = self._engine.tally(self._top_k)
        self._val_data.reset()
        for batch in self._val_data:
            probabilities = self._engine.predict(batch)
            tally.add(probabilities, self._engine.labels(batch)[: len(probabilities)])
            self._group.heartbeat()
        tally.sums = self._group.total(tally.sums)
        return tally.averages(), tally.count

    def _may_stop(self) -> bool:
        """Whether all workers can agree on whether to stop; asynchronous ones are asked every ``--disp-batches``."""
        return self._group.is_synchronous or self.batch % self._args.disp_batches == 0

    def _save(self) -> None:
        if not self._args.model_prefix:
            return
        arg_params, aux_params = self._engine.parameters()
        state = State(
            self.epoch,
            self.batch,
            arg_params,
            aux_params,
            self._engine.optimizer_state(),
            self._files.arguments(),
            self._best,
            self._group.total(self._tally.sums),
            self._selection.state(),
            self._files.data,
            self._threads.threads,
        )
        self._files.save(state)

    def _require_finite(self, epoch: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Raise TrainingError, which names the array and the batch, unless the loss and ``arrays`` are finite. The loss
        alone is not enough: ReLU hides a NaN.
        """
        loss = self._tally.averages()['cross-entropy']
        bad = [] if math.isfinite(loss) else [f'the loss is {loss}']
        bad += [f'{name} is not finite' for name, values in arrays.items() if not np.isfinite(values).all()]
        if bad:
            raise TrainingError(
                f'epoch {epoch}, batch {self.batch}: {", ".join(bad[:3])}; earlier checkpoints are untouched. Lower '
                '--lr, or raise --warmup-epochs'
            )


def _seed_of(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0] % 2**31)
