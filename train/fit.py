"""The one training loop. From top to bottom: what a run needs, where it starts, an epoch, what is said and kept after
it.
"""

import json
import logging
import math
import os
import shlex
import sys
import time

import numpy as np

from formats.checkpoint_files import symbol_path
from graphs.alive import AliveCounter
from graphs.complexity import complexity
from graphs.lambdas import lambda_layout
from graphs.proof import Network
from graphs.stripped_files import stripped_paths
from runtime.errors import CheckpointError, TrainingError, UserError
from runtime.threads import ThreadChooser

from .build import all_versions, cumulative_shrinkage, make_engine, make_optimizer, network
from .checkpoint import Checkpoints, State
from .conclusion import Course, conclusion, strip_run, stripped_prefix
from .contribution import contributions
from .distributed.group import ALONE
from .finetune import weights_of
from .interruption import Interruption
from .log import Metrics, Progress, open_log
from .metrics import lambda_statistics
from .rebuilds import Rebuilds
from .resizing import ResizableEngine
from .resuming import check_same_run
from .selection import Selection
from .watch import Watch


def fit(args, train_data, val_data, image_shape, num_classes, top_k=0, group=ALONE):
    """Train by the parsed command line ``args`` (see ``train.arguments``) on two iterators; ``top_k`` above 1 also
    reports top-k accuracy.

    Of the workers of a ``group`` each comes here with its share of the data, and the first one keeps what the run
    writes. Returns 0, or 128 + the signal's number where one stopped the run. Raises UserError for what a user can
    mend.
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
    run = Run(args, train_data, val_data, network(args, image_shape, num_classes), top_k, group)
    run.start()
    log.write_file()
    with Interruption() as interruption:
        for epoch in range(run.epoch, args.num_epochs):
            if run.train_epoch(epoch, interruption):
                run.finish_epoch(epoch)
            if run.is_stopped_by(interruption):
                logging.info(
                    'Stopped by signal %d after %d epochs and %d batches%s',
                    interruption.signal,
                    run.epoch,
                    run.batch,
                    '; --resume goes on from here' if args.model_prefix else '',
                )
                return 128 + interruption.signal
    run.conclude()
    return 0


class Run:
    """A training run: its engine, its data, and how far it has come (``epoch`` whole epochs and ``batch`` batches)."""

    def __init__(self, args, train_data, val_data, symbol, top_k, group):
        self._args, self._symbol, self._top_k, self._group = args, symbol, top_k, group
        self._one_image = one_image = {'data': (1,) + tuple(train_data.provide_data[0].shape[1:])}
        self._engine = ResizableEngine(
            symbol,
            one_image,
            lambda smaller: make_engine(args, smaller, train_data, group),
            lambda smaller: make_optimizer(args, smaller, len(train_data), group),
        )
        self._train_data, self._val_data = (
            self._engine.prepare_iterator(train_data),
            self._engine.prepare_iterator(val_data),
        )
        self._tally = self._engine.tally(top_k)
        self._threads = ThreadChooser(args.threads, self._engine.set_threads)
        prefix = args.model_prefix if group.rank == 0 else None
        self._metrics = Metrics(prefix)
        self._checkpoints = Checkpoints(prefix, args.keep) if prefix else None
        self._full, self._alive = complexity(symbol, one_image), AliveCounter(symbol, one_image)
        self._selection = Selection(args, symbol, one_image)
        self._rebuilds = Rebuilds(self._engine, symbol, one_image)
        self._watch = Watch(symbol, symbol.infer_shape(**one_image)[1][0][1])
        self.epoch, self.batch, self._best = 0, 0, None
        self._first_record, self._last_record, self._began = None, None, time.time()

    def start(self):
        """Initialise, load the weights to start from, or resume."""
        args = self._args
        self._engine.seed(args.seed)
        if args.resume or args.load_epoch is not None:
            self._resume()
        elif args.finetune:
            self._engine.start(*self._broadcast_from_rank0(self._finetuned_weights))
        else:
            self._engine.start()
        self._apply_selection()
        optimizer = make_optimizer(args, self._symbol, len(self._train_data), self._group)
        if self._checkpoints:
            self._refuse_to_overwrite()
            self._checkpoints.clean()
        self._metrics.forget_from(self.epoch)
        self._log_gamma_budget(cumulative_shrinkage(args, optimizer, len(self._train_data), self._group))

    def train_epoch(self, epoch, interruption):
        """Train to the end of ``epoch`` and return True; or, when ``interruption`` has a signal before that, save and
        return False.
        """
        args, self._started, self._done_before = self._args, time.time(), self._tally.count
        self._train_data.set_epoch(epoch, self.batch)
        self._engine.note_importance(self._selection.wants_importance(epoch))
        with Progress(epoch, len(self._train_data), self.batch, args.batch_size, args.disp_batches) as progress:
            for batch in self._train_data:
                if self._selection.is_fading:
                    self._engine.set_bounds(self._selection.bounds((self.batch + 1) / len(self._train_data)))
                self._tally.add(
                    self._engine.step(batch, _seed_of(args.seed, epoch, self.batch, self._group.rank)),
                    self._engine.labels(batch),
                )
                self.batch += 1
                self._group.heartbeat()
                self._threads.look()
                if self._tally.has_nonfinite_loss or self.batch % args.disp_batches == 0:
                    self._require_finite(epoch, self._engine.lambdas())
                progress.batch_done(self._tally)
                if self.batch < len(self._train_data) and self._may_stop() and self.is_stopped_by(interruption):
                    self._save()
                    return False
        self._engine.end_epoch()
        arg_params, aux_params = self._engine.parameters()
        everything = {name: array.asnumpy() for name, array in {**arg_params, **aux_params}.items()}
        self._require_finite(epoch, {**self._engine.lambdas(), **everything})  # λ first: they are the first to be named
        self.epoch, self.batch = epoch + 1, 0
        return True

    def is_stopped_by(self, interruption):
        """Whether a signal has come to any worker; all of them hear of it here."""
        interruption.signal = max(self._group.exchange(interruption.signal or 0))
        return bool(interruption.signal)

    def finish_epoch(self, epoch):
        """Evaluate, say what there is to say, and save."""
        self._tally.sums = self._group.total(self._tally.sums)
        seconds = time.time() - self._started
        trained = self._tally.averages()
        for name, value in trained.items():
            logging.info('Epoch[%d] Train-%s=%f', epoch, name, value)
        logging.info('Epoch[%d] Time cost=%.3f', epoch, seconds)
        has_shrunk = self._selection.end_epoch(epoch, self._engine.lambdas(), lambda: self._contributions(epoch))
        validated, count = self._evaluate()
        for name, value in validated.items():
            logging.info('Epoch[%d] Validation-%s=%f', epoch, name, value)
        logging.info('Epoch[%d] Validation on %d images', epoch, count)
        record = {
            'epoch': epoch,
            'seconds': seconds,
            'samples_per_second': (self._tally.count - self._done_before) / seconds,
            'train': trained,
            'validation': validated,
            'validation_images': count,
        }
        record.update(self._structure(epoch))
        self._metrics.add(record)
        self._rebuilds.measured(epoch, record['samples_per_second'])
        self._first_record, self._last_record = self._first_record or record, record
        self._selection.report(epoch, validated['accuracy'])
        self._watch.look(epoch, validated['accuracy'], self._engine.lambdas(), record.get('alive'))
        if has_shrunk and self._args.num_epochs > self.epoch:
            self._best = None  # the best epoch is the best at the final size
        if self._best is None or validated['accuracy'] > self._best[0]:
            self._best = [float(validated['accuracy']), self.epoch]
        self._tally.clear()
        self._save()
        if has_shrunk and self._args.shrink and self.epoch < self._args.num_epochs:
            self._rebuilds.rebuild(self.epoch, self._selection.frozen)
        self._apply_selection()

    def _apply_selection(self):
        """Hand the bounds on λ and γ to the engine."""
        if not self._selection.freezes and self._args.gamma_weight == 'none':
            return
        self._engine.set_bounds(self._selection.bounds(self.batch / len(self._train_data)))
        weights = self._selection.gamma_weights() if self._args.gamma_weight != 'none' else None
        self._engine.set_gamma(self._selection.gamma, weights)

    def _contributions(self, epoch):
        self._train_data.set_epoch(epoch)
        return contributions(
            self._engine,
            self._symbol,
            self._selection.frozen,
            self._train_data,
            len(self._train_data),
            lambda: self._engine.tally(self._top_k),
        )

    def _log_gamma_budget(self, pulls):
        """Log when γ alone would have shrunk λ from 1 to 0. Before that, only structures that the loss also pushes down
        can be removed.
        """
        if pulls and pulls[-1] < 1:
            logging.info(
                'Gamma alone shrinks λ by %.2f (< 1): only structures that the loss also pushes down can be removed',
                pulls[-1],
            )
        elif pulls:
            logging.info(
                'Gamma alone shrinks λ from 1 to 0 in epoch %d',
                next(epoch for epoch, pull in enumerate(pulls) if pull >= 1),
            )

    def conclude(self):
        """Write the stripped network where there was a budget; say what the run comes to, and what to try where nothing
        was selected.
        """
        if self._selection.has_budget and self._checkpoints:
            network = Network(self._symbol, *self._engine.parameters())
            strip_run(self._args.model_prefix, network, self._one_image)
        if self._last_record:
            course = Course(self._first_record, self._last_record, self._best, self._selection.accuracy_before)
            lines = conclusion(self._args, course, time.time() - self._began)
            for line in lines:
                logging.info('%s', line)
            if self._group.rank == 0 and self._args.quiet:
                print(*lines, sep='\n', file=sys.stderr)
        self._advise()

    def _advise(self):
        """At the end of a run that was to select a structure and kept all of it, say what to try."""
        statistics = lambda_statistics(self._symbol, self._engine.lambdas())
        if statistics and all(kind['alive'] == kind['total'] for kind in statistics.values()):
            if self._args.lambda_rule == 'subgradient':
                logging.info('Sub-gradients leave no λ exactly 0: strip with tools/strip_params.py --threshold')
                return
            smallest = min(kind['min'] for kind in statistics.values())
            logging.warning(
                'Every λ is alive, the smallest is %.3g: nothing can be stripped. Try a larger --gamma than %g (3 '
                'times is a good step), or '
                'more epochs at the first learning rate, since a step takes η γ from λ',
                smallest,
                self._args.gamma,
            )

    def _evaluate(self):
        tally = self._engine.tally(self._top_k)
        self._val_data.reset()
        for batch in self._val_data:
            probabilities = self._engine.predict(batch)
            tally.add(probabilities, self._engine.labels(batch)[: len(probabilities)])
            self._group.heartbeat()
        tally.sums = self._group.total(tally.sums)
        return tally.averages(), tally.count

    def _structure(self, epoch):
        """λ and the structure alive, logged and as a dict."""
        lambdas = self._engine.lambdas()
        if not lambdas:
            return {}
        statistics = lambda_statistics(self._symbol, lambdas)
        for kind, found in statistics.items():
            stages = ', '.join(f'stage{stage} {alive}/{total}' for stage, (alive, total) in found['stages'].items())
            logging.info(
                'Epoch[%d] Lambda %s alive=%d/%d (%s) min=%.4g median=%.4g max=%.4g',
                epoch,
                kind,
                found['alive'],
                found['total'],
                stages,
                found['min'],
                found['median'],
                found['max'],
            )
        alive, full = self._alive(lambdas), self._full
        logging.info(
            'Epoch[%d] Structure alive params=%d (%.2f%%) macs=%d (%.2f%%)',
            epoch,
            alive.params,
            100 * alive.params / full.params,
            alive.macs,
            100 * alive.macs / full.macs,
        )
        values = {
            vector.name: {'stages': vector.stages, 'values': _rounded(lambdas[vector.name])}
            for vector in lambda_layout(self._symbol)
        }
        return {
            'lambda': statistics,
            'lambda_values': values,
            'alive': {'params': alive.params, 'macs': alive.macs},
            'full': {'params': full.params, 'macs': full.macs},
        }

    def _may_stop(self):
        """Whether all workers are at the same batch and can agree: asynchronous ones meet only now and then."""
        return self._group.is_synchronous or self.batch % self._args.disp_batches == 0

    def _save(self):
        if not self._args.model_prefix:
            return
        arg_params, aux_params = self._engine.parameters()
        state = State(
            self.epoch,
            self.batch,
            arg_params,
            aux_params,
            self._engine.optimizer_state(),
            self._arguments(),
            self._best,
            self._group.total(self._tally.sums),
            self._selection.state() if self._selection.freezes else None,
        )
        if self._checkpoints:
            self._checkpoints.save(self._symbol, state, all_versions(self._args))

    def _resume(self):
        state = self._broadcast_from_rank0(self._load)
        self._engine.start(state.arg_params, state.aux_params, state.optimizer_state)
        if state.selection:
            self._selection.load(state.selection)
        if self._args.shrink:
            self._rebuilds.rebuild(state.epoch, self._selection.frozen)
        self.epoch, self.batch, self._best = state.epoch, state.batch, state.best
        if self._group.rank == 0:  # the others' images are in these sums too
            self._tally.sums = state.tally
        logging.info('Resumed after %d epochs and %d batches', state.epoch, state.batch)
        if self._group.compression:
            logging.warning(
                'What --gc-type %s had kept back of the gradients for the next step is lost', self._args.gc_type
            )

    def _load(self):
        if not self._checkpoints:
            raise UserError('--resume and --load-epoch need --model-prefix, the run to go on with')
        state = self._checkpoints.load(self._args.load_epoch)
        check_same_run(state.arguments, self._arguments(), self._args.model_prefix)
        if self._checkpoints.are_of_another(self._symbol):
            raise CheckpointError(
                f'{symbol_path(self._args.model_prefix)} is not the network that --network {self._args.network} is '
                'now; start anew from '
                'its weights with --finetune'
            )
        return state

    def _broadcast_from_rank0(self, read):
        """What ``read()`` returns on rank 0, which alone needs the files, for every worker."""
        return self._group.exchange(read() if self._group.rank == 0 else None)[0]

    def _arguments(self):
        """The arguments as they come back from JSON, and the number of workers."""
        return {**json.loads(json.dumps(vars(self._args), default=str)), 'num_workers': self._group.size}

    def _finetuned_weights(self):
        shapes = {desc.name: desc.shape for desc in self._train_data.provide_data + self._train_data.provide_label}
        return weights_of(self._args.finetune, self._symbol, shapes, self._args.lambda_init)

    def _refuse_to_overwrite(self):
        fresh = not (self._args.resume or self._args.load_epoch is not None)
        if fresh and self._checkpoints.would_be_lost(self._symbol):
            raise CheckpointError(
                f'{symbol_path(self._args.model_prefix)} and its checkpoints exist already; go on with --resume, or '
                'take another '
                '--model-prefix'
            )
        kept = [path for path in stripped_paths(stripped_prefix(self._args.model_prefix)) if os.path.exists(path)]
        if fresh and self._selection.has_budget and kept:
            raise CheckpointError(
                f'{kept[0]} exists already, and a run with a budget writes it: remove it, or take another '
                '--model-prefix'
            )

    def _require_finite(self, epoch, arrays):
        """Stop, and say what and when, unless the loss and ``arrays`` are finite. The loss alone would not do: ReLU
        hides a NaN.
        """
        loss = self._tally.averages()['cross-entropy']
        bad = [] if math.isfinite(loss) else [f'the loss is {loss}']
        bad += [f'{name} is not finite' for name, values in arrays.items() if not np.isfinite(values).all()]
        if bad:
            raise TrainingError(
                f'epoch {epoch}, batch {self.batch}: {", ".join(bad[:3])}; earlier checkpoints are untouched. Lower '
                '--lr, or raise '
                '--warmup-epochs'
            )


def _seed_of(*numbers):
    return int(np.random.SeedSequence(numbers).generate_state(1)[0] % 2**31)


def _rounded(values):
    return [float(f'{value:.6g}') for value in np.ravel(values)]
