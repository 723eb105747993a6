"""The files of a run: the weights or the checkpoint that it starts from, and those that it writes."""

from __future__ import annotations

import argparse
import json
import logging
import os
from typing import Any, Callable, Dict, Optional, Tuple, TypeVar

from formats.checkpoint_files import params_path, symbol_path
from graphs.predictor import Network
from graphs.stripped_files import stripped_paths
from runtime import mx
from runtime.errors import CheckpointError, UserError

from .build import all_versions
from .checkpoint import Checkpoints, State
from .conclusion import strip_run, stripped_prefix
from .distributed.group import Alone
from .engines.interface import Batches, Params
from .finetune import fitting_weights, weights_of
from .log import Metrics
from .metrics import Tally
from .resuming import check_same_data, check_same_run

Found = TypeVar('Found')


class RunFiles:
    """What is read and written under ``--model-prefix``, by rank 0 of the ``group``. All workers must call ``load`` and
    ``load_weights``, and get the same.
    """

    def __init__(self, args: argparse.Namespace, symbol: mx.sym.Symbol, train_data: Batches, group: Alone) -> None:
        self._args, self._symbol, self._train_data, self._group = args, symbol, train_data, group
        prefix = args.model_prefix if group.rank == 0 else None
        self.data = train_data.fingerprint() if prefix else None
        self.metrics = Metrics(prefix)
        self._checkpoints = Checkpoints(prefix, args.keep) if prefix else None

    def load(self) -> State:
        """The checkpoint that ``--resume`` or ``--load-epoch`` asks for. Raises UserError where there is none, or it is
        of another run.
        """
        return self._broadcast_from_rank0(self._load)

    def load_weights(self) -> Tuple[Params, Params]:
        """(arg_params, aux_params) that ``--finetune`` asks for. Raises CheckpointError where they do not fit."""
        args = self._args
        return self._broadcast_from_rank0(
            lambda: weights_of(args.finetune, self._symbol, self._input_shapes(), args.lambda_init, args.seed)
        )

    def begin(self, epoch: int, will_strip: bool) -> None:
        """Raise CheckpointError where a run that starts at ``epoch`` would overwrite files, those of the stripped
        network too if it ``will_strip``; and remove the unfinished files of an earlier process.
        """
        if self._checkpoints:
            self._checkpoints.clean()
            self._refuse_to_overwrite(self._checkpoints, will_strip)
            if self._args.load_epoch is not None:
                self._forget_after(self._checkpoints, self._args.load_epoch)
        self.metrics.forget_from(epoch)

    def save(self, state: State) -> None:
        """Write a checkpoint, see ``Checkpoints.save``."""
        if self._checkpoints:
            self._checkpoints.save(self._symbol, state, all_versions(self._args))

    def strip(self, network: Network, one_image: Dict[str, Tuple[int, ...]]) -> None:
        """Write the stripped ``network`` beside the checkpoints, see ``conclusion.strip_run``."""
        if self._checkpoints:
            strip_run(self._args.model_prefix, network, one_image)

    def arguments(self) -> Dict[str, Any]:
        """The arguments as they come back from JSON, and the number of workers."""
        return {**json.loads(json.dumps(vars(self._args), default=str)), 'num_workers': self._group.size}

    def _load(self) -> State:
        if not self._checkpoints:
            raise UserError('--resume and --load-epoch need --model-prefix, the run to go on with')
        prefix, network, epoch = self._args.model_prefix, self._args.network, self._args.load_epoch
        plain = None if epoch is None else self._checkpoints.load_plain(epoch)
        state = self._checkpoints.load(epoch) if plain is None else self._first_state(epoch, *plain)
        check_same_run(state.arguments, self.arguments(), prefix)
        check_same_data(state.data, self.data, prefix)
        if self._checkpoints.are_of_another(self._symbol):
            raise CheckpointError(
                f'{symbol_path(prefix)} is not the network that --network {network} is now; train that one with '
                f'--network {symbol_path(prefix)}, or start a new run from its weights with --finetune and another '
                '--model-prefix'
            )
        return state

    def _first_state(self, epoch: int, arg_params: Params, aux_params: Params) -> State:
        """The State with the weights of another script after ``epoch`` epochs: their momentum is not known."""
        path = params_path(self._args.model_prefix, epoch)
        arg_params, aux_params = fitting_weights(
            self._symbol, arg_params, aux_params, self._input_shapes(), path, self._args.lambda_init
        )
        logging.info('%s has no manifest: its weights are taken, and momentum begins at 0', path)
        updates = epoch * len(self._train_data) * self._group.updates_per_step
        return State(epoch, 0, arg_params, aux_params, (updates, {}), self.arguments(), None, Tally().sums)

    def _forget_after(self, checkpoints: Checkpoints, epoch: int) -> None:
        later = checkpoints.forget_after(epoch)
        if later:
            logging.warning(
                'The run goes on from epoch %d, so its later checkpoints were removed: %s', epoch, ', '.join(later)
            )

    def _input_shapes(self) -> Dict[str, Tuple[int, ...]]:
        return {desc.name: desc.shape for desc in self._train_data.provide_data + self._train_data.provide_label}

    def _refuse_to_overwrite(self, checkpoints: Checkpoints, will_strip: bool) -> None:
        fresh = not (self._args.resume or self._args.load_epoch is not None)
        if fresh and checkpoints.would_be_lost(self._symbol):
            raise CheckpointError(
                f'{symbol_path(self._args.model_prefix)} and its checkpoints exist already; go on with --resume, or '
                'take another --model-prefix'
            )
        kept = [path for path in stripped_paths(stripped_prefix(self._args.model_prefix)) if os.path.exists(path)]
        if fresh and will_strip and kept:
            raise CheckpointError(
                f'{kept[0]} exists already, and a run with a budget writes it: remove it, or take another '
                '--model-prefix'
            )

    def _broadcast_from_rank0(self, read: Callable[[], Found]) -> Found:
        """What ``read()`` returns on rank 0, which alone needs the files."""
        found: Optional[Found] = read() if self._group.rank == 0 else None
        return self._group.exchange(found)[0]  # type: ignore[return-value]  # rank 0 has read it
