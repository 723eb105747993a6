"""The whole state of a training run, on disk.

After epoch 7 a run has ``PREFIX-symbol.json``, ``PREFIX-0007.params`` (MXNet's own formats), ``PREFIX-0007.states``
(the optimizer's arrays, in the same format as ``.params``; nothing is pickled) and ``PREFIX-0007.json``, a manifest
that is written last: a checkpoint without a manifest, or whose files do not have the sums in it, is not used. A run
that was stopped 40 batches later has the same files under the name ``PREFIX-stopped-0007-40``. A checkpoint is never
overwritten: each has a name of its own, and the old ones are removed when the new one is complete.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from formats.checkpoint_files import LABEL, STOPPED, known_epochs, progress, symbol_path, unfinished_path
from formats.manifest import check_sum, read_manifest, sealed, sums
from formats.params_file import load_arrays, load_params, require_finite, save_arrays, save_params
from formats.symbol_file import save_symbol, symbol_from_json
from formats.symbol_json import MAX_BYTES
from graphs.preprocessing import without_preprocessing
from runtime import mx
from runtime.errors import CheckpointError, GraphError
from runtime.files import naming, sha256, write_text
from runtime.reading import read_text

from .state_json import flatten, unflatten

Arrays = Dict[str, 'mx.nd.NDArray']


class State(NamedTuple):
    """The state of a run after ``epoch`` whole epochs and ``batch`` batches of the next one."""

    epoch: int
    batch: int
    arg_params: Arrays
    aux_params: Arrays
    optimizer_state: Tuple[int, Optional[Dict[str, Any]]]  # number of updates, dict from parameter name to state
    arguments: Dict[str, Any]  # the command line
    best: Optional[List[Any]]  # [validation accuracy, epoch] so far
    tally: Dict[str, float]  # the sums behind the training accuracy of the epoch that was stopped
    selection: Optional[Dict[str, Any]] = None  # of ``Selection.state``
    data: Optional[Dict[str, Any]] = None  # the fingerprint of the training images
    threads: Optional[int] = None  # on the CPU, in the last step


class Checkpoints:
    """The checkpoints of one run, under one prefix.

    Parameters
    ----------
    prefix : path and beginning of the file names.
    keep : how many of the last to keep, besides the best.
    """

    def __init__(self, prefix: str, keep: int = 2) -> None:
        self._prefix, self._keep = prefix, keep
        self._folder, self._name = os.path.split(os.path.abspath(prefix))

    def save(self, symbol: mx.sym.Symbol, state: State, versions: Dict[str, Any]) -> None:
        """Write ``state`` and then remove the checkpoints that need not be kept any more. Raises CheckpointError,
        before anything is written, where a parameter is not finite; OSError.
        """
        with self._unfinished(_label(state)):
            self._write(symbol, state, versions)
        self._prune(state)

    def _write(self, symbol: mx.sym.Symbol, state: State, versions: Dict[str, Any]) -> None:
        label = _label(state)
        params, states = self._path(label, 'params'), self._path(label, 'states')
        require_finite(state.arg_params, params)
        require_finite(state.aux_params, params)
        num_update, by_name = state.optimizer_state
        arrays: Arrays = {}
        tree = {name: flatten(value, name, arrays) for name, value in (by_name or {}).items()}
        save_symbol(symbol_path(self._prefix), symbol)
        save_params(params, state.arg_params, state.aux_params)
        save_arrays(states, arrays)
        manifest = {
            'epoch': state.epoch,
            'batch': state.batch,
            'num_update': num_update,
            'best': state.best,
            'tally': state.tally,
            'files': {
                os.path.basename(path): {'sha256': sha256(path), 'bytes': os.path.getsize(path)}
                for path in (params, states)
            },
            'arguments': state.arguments,
            'versions': versions,
            'optimizer_state': tree,
            'selection': state.selection,
            'data': state.data,
            'threads': state.threads,
        }
        write_text(self._path(label, 'json'), json.dumps(sealed(manifest), indent=1, sort_keys=True) + '\n')

    def load(self, epoch: Optional[int] = None) -> State:
        """The State after ``epoch`` epochs, or of the last undamaged checkpoint.

        Raises CheckpointError naming the file when there is none, or the one asked for is damaged.
        """
        if epoch is not None:
            try:
                return self._read(f'{epoch:04d}')
            except CheckpointError as error:
                raise CheckpointError(
                    f'{error}; use --resume to go on from the last undamaged checkpoint, or --finetune PREFIX:EPOCH to '
                    'take only the weights of one'
                ) from None
        problems = []
        for found in sorted(self._labels(), key=progress, reverse=True):
            try:
                state = self._read(found)
            except CheckpointError as error:
                problems.append(str(error))
                continue
            for problem in problems:
                logging.warning('%s; using %s instead', problem, self._path(found, 'json'))
            return state
        raise CheckpointError('; '.join(problems) or self._nothing_to_resume())

    def load_plain(self, epoch: int) -> Optional[Tuple[Arrays, Arrays]]:
        """(arg_params, aux_params) of ``PREFIX-000N.params`` where it has no manifest, as files of other scripts; else
        None. Raises CheckpointError where the file is damaged.
        """
        label = f'{epoch:04d}'
        if os.path.exists(self._path(label, 'json')) or not os.path.exists(self._path(label, 'params')):
            return None
        return load_params(self._path(label, 'params'))

    def forget_after(self, epoch: int) -> List[str]:
        """Remove the checkpoints after ``epoch`` whole epochs, the last one first; returns their labels."""
        later = sorted((label for label in self._labels() if progress(label) > (epoch, 0)), key=progress)
        for label in reversed(later):
            self._remove(label)
        return later

    def would_be_lost(self, symbol: mx.sym.Symbol) -> bool:
        """Whether a new run of ``symbol`` would overwrite anything: a checkpoint, parameters from another script, or
        the graph that they belong to.
        """
        parameters = re.compile(rf'{re.escape(self._name)}-\d{{4,}}\.(params|states)')
        return bool(self._labels()) or any(map(parameters.fullmatch, self._listing())) or self.are_of_another(symbol)

    def are_of_another(self, symbol: mx.sym.Symbol) -> bool:
        """Whether ``PREFIX-symbol.json`` exists and is another network than ``symbol``."""
        path = symbol_path(self._prefix)
        if not os.path.exists(path):
            return False
        try:
            text, now = read_text(path, MAX_BYTES, GraphError), without_preprocessing(symbol.tojson())
            if without_preprocessing(text) == now:
                return False
            # Another version of MXNet writes the same graph as another text.
            return without_preprocessing(symbol_from_json(text, path).tojson()) != now
        except GraphError:
            return True

    def clean(self) -> None:
        """Remove the files of a killed process: scratch files, and those of a checkpoint that it had not finished."""
        stripped = 'stripped-(symbol|structure|0000)'
        ours = re.compile(
            rf'\.{re.escape(self._name)}-({LABEL}|symbol|metrics|{stripped})\.(?P<ending>json|jsonl|params|states)'
            r'\.\w+\.(?P=ending)'
        )
        for name in filter(ours.fullmatch, self._listing()):
            os.remove(os.path.join(self._folder, name))
        marker = re.compile(rf'\.{re.escape(self._name)}-({LABEL})\.unfinished')
        for match in filter(None, map(marker.fullmatch, self._listing())):
            self._tidy(match.group(1))

    @contextlib.contextmanager
    def _unfinished(self, label: str) -> Iterator[None]:
        """While the files of ``label`` are written or removed, a marker file says that they are ours and not complete:
        without it, they would look like parameters of another script. Files without a manifest are removed at the end.
        """
        with naming(self._path(label, 'params')):
            os.makedirs(self._folder, exist_ok=True)
            open(self._marker(label), 'w').close()
        try:
            yield
        finally:
            self._tidy(label)

    def _tidy(self, label: str) -> None:
        if not os.path.exists(self._path(label, 'json')):
            for ending in ('states', 'params'):
                _remove_if_there(self._path(label, ending))
        _remove_if_there(self._marker(label))

    def _marker(self, label: str) -> str:
        return unfinished_path(os.path.join(self._folder, self._name), label)

    def _nothing_to_resume(self) -> str:
        plain = known_epochs(self._prefix)
        if plain:
            return (
                f'{self._prefix}: no checkpoint to resume from, but {self._path(f"{plain[-1]:04d}", "params")} of '
                f'another script; --load-epoch {plain[-1]} starts from its weights, and --finetune '
                f'{self._prefix}:{plain[-1]} from them under another --model-prefix'
            )
        return (
            f'{self._prefix}: no checkpoint to resume from; leave --resume out to start a run, or give the weights to '
            'start from by --finetune PREFIX:EPOCH'
        )

    def _read(self, label):
        path = self._path(label, 'json')
        manifest = read_manifest(path)
        try:
            for ending in ('params', 'states'):
                check_sum(self._path(label, ending), sums(manifest)[f'.{ending}'])
            arg_params, aux_params = load_params(self._path(label, 'params'))
            arrays = load_arrays(self._path(label, 'states'))
            states = {name: unflatten(tree, arrays) for name, tree in manifest['optimizer_state'].items()}
            return State(
                manifest['epoch'],
                manifest['batch'],
                arg_params,
                aux_params,
                (manifest['num_update'], states),
                manifest['arguments'],
                manifest['best'],
                manifest['tally'],
                manifest.get('selection'),
                manifest.get('data'),
                manifest.get('threads'),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f'{path}: lacks what a checkpoint has ({type(error).__name__}: {error})') from None

    def _prune(self, state):
        """Keep the last checkpoints and the best; one of a stopped run only until the next of any kind."""
        stopped = [label for label in self._labels() if label.startswith(STOPPED)]
        epochs = sorted(set(self._labels()) - set(stopped), key=int)
        best = state.best and f'{state.best[1]:04d}'
        for label in stopped + epochs[: -self._keep]:
            if label not in (_label(state), best):
                self._remove(label)

    def _remove(self, label):
        with self._unfinished(label):
            _remove_if_there(self._path(label, 'json'))  # without it, the other files are removed too

    def _labels(self):
        pattern = re.compile(rf'{re.escape(self._name)}-({LABEL})\.json')
        return [match.group(1) for match in map(pattern.fullmatch, self._listing()) if match]

    def _listing(self):
        return os.listdir(self._folder) if os.path.isdir(self._folder) else []

    def _path(self, label, ending):
        return f'{self._prefix}-{label}.{ending}'


def _remove_if_there(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)


def _label(state):
    return f'{STOPPED}-{state.epoch:04d}-{state.batch}' if state.batch else f'{state.epoch:04d}'
