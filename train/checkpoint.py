"""The whole state of a training run, on disk: there completely, or not there.

After epoch 7 a run has ``PREFIX-symbol.json``, ``PREFIX-0007.params`` (MXNet's own formats), ``PREFIX-0007.states``
(the optimizer's arrays, in the same format as ``.params``; nothing is pickled) and ``PREFIX-0007.json``, a manifest
that is written last: what has no manifest, or does not match the sums in it, does not exist. A run that was stopped 40
batches later has the same files under the name ``PREFIX-stopped-0007-40``. A good checkpoint is never written over:
each has a name of its own, and the old ones are removed when the new one is complete.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
from collections import namedtuple

from formats.checkpoint_files import symbol_path
from formats.params_file import load_arrays, load_params, require_finite, save_arrays, save_params
from formats.symbol_file import save_symbol
from runtime import mx
from runtime.errors import CheckpointError
from runtime.files import sha256, write_text

STOPPED = 'stopped'
LABEL = rf'\d{{4,}}|{STOPPED}-\d{{4,}}-\d+'

State = namedtuple(
    'State', 'epoch batch arg_params aux_params optimizer_state arguments best tally selection', defaults=(None,)
)
State.__doc__ = """A run after ``epoch`` whole epochs and ``batch`` batches more.

``optimizer_state`` is (number of updates, dict from parameter name to state), ``arguments`` the command line as a dict,
``best`` [validation accuracy, epoch] so far, ``tally`` the sums behind the training accuracy of the epoch that was
stopped, ``selection`` the value of ``Selection.state``.
"""


class Checkpoints:
    """The checkpoints of one run, under one prefix.

    Parameters
    ----------
    prefix : path and beginning of the file names.
    keep : how many of the last to keep, besides the best.
    """

    def __init__(self, prefix, keep=2):
        self._prefix, self._keep = prefix, keep
        self._folder, self._name = os.path.split(os.path.abspath(prefix))

    def save(self, symbol, state, versions):
        """Write ``state`` and then remove what it makes superfluous. Raises CheckpointError when a parameter is not
        finite, before anything is written.
        """
        label = _label(state)
        params, states = self._path(label, 'params'), self._path(label, 'states')
        require_finite(state.arg_params, params)
        require_finite(state.aux_params, params)
        num_update, by_name = state.optimizer_state
        arrays = {}
        tree = {name: _flatten(value, name, arrays) for name, value in by_name.items()}
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
        }
        write_text(self._path(label, 'json'), json.dumps(_sealed(manifest), indent=1, sort_keys=True) + '\n')
        self._prune(state)

    def load(self, label=None):
        """The State after the epoch ``label``, or the furthest one that is whole.

        Raises CheckpointError naming the file when there is none, or the one asked for is damaged.
        """
        if label is not None:
            try:
                return self._read(f'{label:04d}')
            except CheckpointError as error:
                raise CheckpointError(
                    f'{error}; --resume in place of --load-epoch takes the furthest whole one'
                ) from None
        problems = []
        for found in sorted(self._labels(), key=_progress, reverse=True):
            try:
                state = self._read(found)
            except CheckpointError as error:
                problems.append(str(error))
                continue
            for problem in problems:
                logging.warning('%s; going back to %s', problem, self._path(found, 'json'))
            return state
        raise CheckpointError(
            '; '.join(problems) or f'{self._prefix}: no checkpoint to resume from; leave --resume out to start a run'
        )

    def would_be_lost(self, symbol):
        """Whether a new run of ``symbol`` would write over anything: a checkpoint, parameters from another script, or
        the graph that they belong to.
        """
        parameters = re.compile(rf'{re.escape(self._name)}-\d{{4,}}\.(params|states)')
        # A save of ours that was killed leaves parameters without a manifest too. Every run of ours begins with its
        # metrics file.
        is_foreign = f'{self._name}-metrics.jsonl' not in self._listing()
        return (
            bool(self._labels())
            or is_foreign
            and any(map(parameters.fullmatch, self._listing()))
            or self.are_of_another(symbol)
        )

    def are_of_another(self, symbol):
        """Whether ``PREFIX-symbol.json`` is there, and another network."""
        path = symbol_path(self._prefix)
        if not os.path.exists(path):
            return False
        with open(path, encoding='utf-8', errors='replace') as graph:
            return graph.read() != symbol.tojson()

    def clean(self):
        """Remove scratch files that a killed process left."""
        stripped = 'stripped-(symbol|structure|0000)'
        ours = re.compile(
            rf'\.{re.escape(self._name)}-({LABEL}|symbol|metrics|{stripped})\.(?P<ending>json|jsonl|params|states)'
            r'\.\w+\.(?P=ending)'
        )
        for name in filter(ours.fullmatch, self._listing()):
            os.remove(os.path.join(self._folder, name))

    def _read(self, label):
        path = self._path(label, 'json')
        manifest = _read_manifest(path)
        try:
            # By their endings: a run may have been copied or renamed, and the files that are checked must be those that
            # are loaded.
            sums = {os.path.splitext(name)[1]: facts for name, facts in manifest['files'].items()}
            for ending in ('params', 'states'):
                _check_sum(self._path(label, ending), sums[f'.{ending}'])
            arg_params, aux_params = load_params(self._path(label, 'params'))
            arrays = load_arrays(self._path(label, 'states'))
            states = {name: _unflatten(tree, arrays) for name, tree in manifest['optimizer_state'].items()}
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
        for ending in ('json', 'states', 'params'):  # the manifest first: without it the rest is nothing
            with contextlib.suppress(FileNotFoundError):
                os.remove(self._path(label, ending))

    def _labels(self):
        pattern = re.compile(rf'{re.escape(self._name)}-({LABEL})\.json')
        return [match.group(1) for match in map(pattern.fullmatch, self._listing()) if match]

    def _listing(self):
        return os.listdir(self._folder) if os.path.isdir(self._folder) else []

    def _path(self, label, ending):
        return f'{self._prefix}-{label}.{ending}'


def _label(state):
    return f'{STOPPED}-{state.epoch:04d}-{state.batch}' if state.batch else f'{state.epoch:04d}'


def _progress(label):
    """(epochs, batches) behind a label."""
    epoch, _, batch = label.replace(f'{STOPPED}-', '').partition('-')
    return int(epoch), int(batch or 0)


def _sealed(manifest):
    """``manifest`` with a sum over all the rest of it, so that a damaged one is told from a true one."""
    return dict(manifest, sha256=hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest())


def _read_manifest(path):
    try:
        with open(path, encoding='utf-8') as source:
            manifest = json.load(source)
        rest = {name: value for name, value in manifest.items() if name != 'sha256'}
        if _sealed(rest)['sha256'] != manifest.get('sha256'):
            raise ValueError('its sha256 does not fit')
        return manifest
    except FileNotFoundError:
        raise CheckpointError(f'{path}: no such checkpoint') from None
    except (ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(f'{path}: damaged, or not a manifest of this trainer ({error})') from None


def _check_sum(path, facts):
    if not os.path.exists(path):
        raise CheckpointError(f'{path}: no such file, but its manifest names it')
    found = sha256(path)
    if found != facts['sha256']:
        raise CheckpointError(f'{path}: damaged, its sha256 is {found}, its manifest says {facts["sha256"]}')


def _flatten(state, name, arrays):
    """``state`` as JSON, its arrays moved to ``arrays`` under names that begin with ``name``."""
    if isinstance(state, mx.nd.NDArray):
        arrays[name] = state
        return {'array': name}
    if isinstance(state, (list, tuple)):
        return {type(state).__name__: [_flatten(part, f'{name}/{index}', arrays) for index, part in enumerate(state)]}
    return state if state is None else float(state)


def _unflatten(tree, arrays):
    if not isinstance(tree, dict):
        return tree
    ((kind, content),) = tree.items()
    if kind == 'array':
        return arrays[content]
    parts = [_unflatten(part, arrays) for part in content]
    return tuple(parts) if kind == 'tuple' else parts
