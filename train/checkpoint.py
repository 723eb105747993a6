"""The whole state of a training run, on disk: there completely, or not there.

After epoch 7 a run has ``PREFIX-symbol.json``, ``PREFIX-0007.params`` (MXNet's own formats), ``PREFIX-0007.states`` (the optimizer's arrays, in the
same format as ``.params``; nothing is pickled) and ``PREFIX-0007.json``, a manifest that is written last: what has no manifest, or does not match the sums
in it, does not exist. A run that was stopped in the middle of an epoch has the same files under the name ``PREFIX-stopped``.
"""
import contextlib
import glob
import json
import os
import re
from collections import namedtuple

from runtime import mx
from runtime.checkpoint_files import symbol_path
from runtime.errors import CheckpointError
from runtime.files import sha256, write_text
from runtime.params_file import load_arrays, load_params, require_finite, save_arrays, save_params
from runtime.symbol_file import save_symbol

STOPPED = 'stopped'

State = namedtuple('State', 'epoch batch arg_params aux_params optimizer_state arguments best tally')
State.__doc__ = """A run after ``epoch`` whole epochs and ``batch`` batches more.

``optimizer_state`` is (number of updates, dict from key to state), ``arguments`` the command line as a dict, ``best`` [validation accuracy, epoch] so far,
``tally`` the sums behind the training accuracy of the epoch that was stopped.
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

    def save(self, symbol, state, versions):
        """Write ``state`` and then remove what it makes superfluous. Raises CheckpointError when a parameter is not finite, before anything is written."""
        label = _label(state)
        params, states = self._path(label, 'params'), self._path(label, 'states')
        require_finite(state.arg_params, params)
        require_finite(state.aux_params, params)
        num_update, by_key = state.optimizer_state
        arrays = {}
        tree = {_key_name(key): _flatten(value, _key_name(key), arrays) for key, value in by_key.items()}
        save_symbol(symbol_path(self._prefix), symbol)
        save_params(params, state.arg_params, state.aux_params)
        save_arrays(states, arrays)
        manifest = {'epoch': state.epoch, 'batch': state.batch, 'num_update': num_update, 'best': state.best, 'tally': state.tally,
                    'files': {os.path.basename(path): {'sha256': sha256(path), 'bytes': os.path.getsize(path)} for path in (params, states)},
                    'arguments': state.arguments, 'versions': versions, 'optimizer_state': tree}
        write_text(self._path(label, 'json'), json.dumps(manifest, indent=1, sort_keys=True) + '\n')
        self._prune(state)

    def load(self, label=None):
        """The State under ``label`` (an epoch, or STOPPED), or the furthest one that is whole.

        Raises CheckpointError naming the file when there is none, or the one asked for is damaged.
        """
        if label is not None:
            return self._read(label if label == STOPPED else f'{int(label):04d}')
        problems = []
        for found in self._furthest_first():
            try:
                return self._read(found)
            except CheckpointError as error:
                problems.append(str(error))
        raise CheckpointError('; '.join(problems) or f'{self._prefix}: no checkpoint to resume from; leave --resume out to start a run')

    def exists(self):
        """Whether there is anything to resume."""
        return bool(self._furthest_first())

    def clean(self):
        """Remove scratch files that a killed process left."""
        folder, name = os.path.split(os.path.abspath(self._prefix))
        for path in glob.glob(os.path.join(glob.escape(folder), '.' + glob.escape(name) + '[-.]*')):
            os.remove(path)

    def _read(self, label):
        path = self._path(label, 'json')
        manifest = _read_manifest(path)
        for name, facts in manifest['files'].items():
            _check_sum(os.path.join(os.path.dirname(path), name), facts)
        arg_params, aux_params = load_params(self._path(label, 'params'))
        arrays = load_arrays(self._path(label, 'states'))
        states = {_key(name): _unflatten(tree, arrays) for name, tree in manifest['optimizer_state'].items()}
        return State(manifest['epoch'], manifest['batch'], arg_params, aux_params, (manifest['num_update'], states), manifest['arguments'],
                     manifest['best'], manifest['tally'])

    def _prune(self, state):
        """Keep the last checkpoints and the best; one of a stopped run only until its epoch is over."""
        if state.batch == 0:
            self._remove(STOPPED)
        epochs = [int(label) for label in self._labels() if label != STOPPED]
        best = state.best[1] if state.best else None
        for epoch in sorted(epochs)[:-self._keep]:
            if epoch != best:
                self._remove(f'{epoch:04d}')

    def _remove(self, label):
        for ending in ('json', 'states', 'params'):  # the manifest first: without it the rest is nothing
            with contextlib.suppress(FileNotFoundError):
                os.remove(self._path(label, ending))

    def _furthest_first(self):
        def progress(label):
            try:
                manifest = _read_manifest(self._path(label, 'json'))
                return manifest['epoch'], manifest['batch']
            except CheckpointError:
                return (-1, 0) if label == STOPPED else (int(label), 0)

        return sorted(self._labels(), key=progress, reverse=True)

    def _labels(self):
        pattern = re.compile(re.escape(os.path.basename(self._prefix)) + rf'-(\d{{4,}}|{STOPPED})\.json')
        names = os.listdir(os.path.dirname(self._prefix) or '.') if os.path.isdir(os.path.dirname(self._prefix) or '.') else []
        return [match.group(1) for match in map(pattern.fullmatch, names) if match]

    def _path(self, label, ending):
        return f'{self._prefix}-{label}.{ending}'


def _label(state):
    return STOPPED if state.batch else f'{state.epoch:04d}'


def _read_manifest(path):
    try:
        with open(path, encoding='utf-8') as source:
            manifest = json.load(source)
        return {name: manifest[name] for name in ('epoch', 'batch', 'num_update', 'best', 'tally', 'files', 'arguments', 'optimizer_state')}
    except FileNotFoundError:
        raise CheckpointError(f'{path}: no such checkpoint') from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f'{path}: not a manifest of this trainer ({error!r}); remove it, or resume from an earlier epoch with --load-epoch') from None


def _check_sum(path, facts):
    if not os.path.exists(path):
        raise CheckpointError(f'{path}: no such file, but its manifest names it; resume from another epoch with --load-epoch')
    found = sha256(path)
    if found != facts['sha256']:
        raise CheckpointError(f'{path}: damaged, its sha256 is {found}, its manifest says {facts["sha256"]}; resume from another epoch with --load-epoch')


def _key_name(key):
    """An update's key, an int or a name, as text that tells which it was."""
    return f'index:{key}' if isinstance(key, int) else f'name:{key}'


def _key(name):
    kind, key = name.split(':', 1)
    return int(key) if kind == 'index' else key


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
    (kind, content), = tree.items()
    if kind == 'array':
        return arrays[content]
    parts = [_unflatten(part, arrays) for part in content]
    return tuple(parts) if kind == 'tuple' else parts
