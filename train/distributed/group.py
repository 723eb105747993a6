"""The workers that train one network together, and where its optimizer runs: one process alone, MXNet's parameter servers, or Horovod.

A group has ``rank`` and ``size``, the ``store`` that ``mx.mod.Module`` sums gradients with, and what a run has to know of the others.
"""
import contextlib
import json
import os
import pickle

import numpy as np

from runtime import mx
from runtime.cli import report
from runtime.errors import MissingDependencyError, TrainingError, UserError
from runtime.parameter_server import from_numpy, to_numpy
from train.arguments import SERVER_STORES

from .messages import Circle, Ended, Hub, Watchdog, connect


@contextlib.contextmanager
def group_of(args):
    """The group of ``--kv-store``, of which this process is one. Where an error leaves the block, this process ends at once, for MXNet would wait for the
    others before it lets go."""
    if args.kv_store not in (*SERVER_STORES, 'horovod'):
        yield Alone(args.kv_store, compression_of(args))
        return
    try:
        group = Horovod(args) if args.kv_store == 'horovod' else ParameterServers(args)
        yield group
        group.part()
    except BaseException as error:
        os._exit(report(error))


def check_group(args):
    """Raise UserError for a ``--kv-store`` that cannot be."""
    if args.gc_type != 'none' and args.kv_store not in (*SERVER_STORES, 'device'):
        raise UserError(f'--gc-type {args.gc_type} needs --kv-store device, {" or ".join(SERVER_STORES)}; {args.kv_store} sums gradients as they are')
    if args.engine == 'torch' and args.kv_store not in ('local', 'device'):
        raise UserError(f'--kv-store {args.kv_store} needs --engine mxnet')
    if args.kv_store in SERVER_STORES:
        if os.environ.get('DMLC_ROLE') != 'worker':
            raise UserError(f'--kv-store {args.kv_store} needs parameter servers; start the run with train/launch.py -n 2 COMMAND')
        if args.lambda_rule == 'group-lasso':
            raise UserError(f'--lambda-rule group-lasso needs whole weights, and servers (--kv-store {args.kv_store}) have pieces; take --kv-store horovod')
    if args.kv_store == 'horovod':
        _horovod()


def compression_of(args):
    """MXNet's parameters of gradient compression, or None."""
    return None if args.gc_type == 'none' else {'type': args.gc_type, 'threshold': args.gc_threshold}


class Alone:
    """One process, with one device or several. ``store`` is MXNet's name of what sums over its devices."""

    rank, size = 0, 1
    is_synchronous = True
    updates_per_step = 1  # by the count of the optimizer, which schedules go by
    has_servers = False

    def __init__(self, store='local', compression=None):
        self.store, self.compression = store, compression

    def exchange(self, value):
        """What every worker gives for ``value``, by rank."""
        return [value]

    def total(self, sums):
        """Dicts of numbers, added up over the workers."""
        return sums

    def devices(self, contexts):
        """Those of this machine's ``contexts`` that this process computes on."""
        return contexts

    def begins(self, optimizer, names):
        """``optimizer`` is about to be set, to move the parameters ``names`` in this order."""

    def sum_gradients(self, arrays):
        """Sum the gradients ``arrays`` (of one device) over the workers, in place, where no kvstore does it."""

    def moves(self):
        """This worker has done something, and is alive."""


ALONE = Alone()


class _Workers(Alone):
    """What all groups of several workers share: they meet in a ``Circle``."""

    def exchange(self, value):
        self._watchdog.moves()
        found = self._circle.exchange(value)
        self._watchdog.moves()
        return found

    def total(self, sums):
        parts = self.exchange(sums)
        return {name: sum(part[name] for part in parts) for name in sums}

    def moves(self):
        self._watchdog.moves()

    def part(self):
        """Wait until all have done what they had to, and let go."""
        self.exchange(None)


class ParameterServers(_Workers):
    """Workers whose gradients are summed on MXNet's parameter servers, where the optimizer runs too.

    Servers know a parameter by the number in which the workers told them of it, and have its values in a row, the large ones in pieces.
    """

    has_servers = True

    def __init__(self, args):
        self._watchdog = Watchdog(args.dist_timeout)
        self.store = mx.kv.create(args.kv_store)
        self.rank, self.size, self.compression = self.store.rank, self.store.num_workers, compression_of(args)
        self.is_synchronous = 'async' not in args.kv_store
        self.updates_per_step = 1 if self.is_synchronous else self.size
        self._keys = []
        self._num_servers = int(os.environ['DMLC_NUM_SERVER'])
        self._meet()

    def begins(self, optimizer, names):
        self._keys += names
        self._probes = {f'{kind}_{server}': kind for kind in ('probe_weight', f'{optimizer.lambda_name}_probe') for server in range(self._num_servers)}
        optimizer.idx2name = dict(enumerate([*self._keys, *self._probes]))

    def states(self, shapes):
        """The optimizer's states on the servers: dict from name to state, for the parameters of ``shapes`` that have one. None but on rank 0."""
        if self.rank:
            return None
        for line in self._servers:
            line.send(('states',))
        found = [self._answer(server, line) for server, line in enumerate(self._servers)]
        states = {}
        for name, shape in shapes.items():
            pieces = [states_here[self._keys.index(name)] for states_here in found if self._keys.index(name) in states_here]
            if pieces:
                states[name] = from_numpy(_joined(pieces), lambda array, shape=shape: array.reshape(shape))
        return states

    def resume(self, states):
        """Give the servers what ``states`` found once."""
        if not self.rank:
            by_key = {self._keys.index(name): to_numpy(state) for name, state in states.items()}
            for line in self._servers:
                line.send(('resume', self._num_servers, bool(self.compression), by_key))
            for server, line in enumerate(self._servers):
                self._answer(server, line)
        self.exchange(None)

    def prove(self, optimizer):
        """Make sure, before the first step, that every server moves a weight and a λ by the rule of ``optimizer``. Raises TrainingError."""
        # MXNet lays keys that follow one another on one server after the other.
        before = mx.nd.array([1, -1, 0.5, 2])
        push, pushes = (True, self.size) if self.is_synchronous else (self.rank == 0, 1)
        gradient = mx.nd.full(before.shape, self.compression['threshold'] if self.compression else 0.5)  # compression leaves this as it is
        for name in self._probes:
            self.store.init(name, before)
        for name, kind in self._probes.items():
            twin, expected, found = pickle.loads(pickle.dumps(optimizer)), before.copy(), mx.nd.zeros(before.shape)
            index = len(self._keys) + list(self._probes).index(name)
            twin.update_multi_precision(index, expected, gradient * pushes, twin.create_state_multi_precision(index, before))
            if push:
                self.store.push(name, gradient.copy())  # what is pushed is also where MXNet pulls to
            if self.rank == 0:
                self.store.pull(name, out=found)
                if not np.allclose(found.asnumpy(), expected.asnumpy(), rtol=1e-5, atol=1e-7):
                    server = int(name.rpartition('_')[2])
                    raise TrainingError(f'a first update did not move {kind} by the rule of the optimizer on one of the parameter servers (trial {server} of '
                                        f'{self._num_servers}); every server must run the same version of this project as the workers')
        self.exchange(None)

    def _meet(self):
        """The first worker says where it listens through the store, which all share: as the bytes of a first array."""
        hub = Hub() if self.rank == 0 else None
        words = json.dumps({'host': hub.host, 'port': hub.port, 'key': hub.key.hex()} if hub else {})
        self._keys.append('address')
        said = mx.nd.array(np.frombuffer(words.encode().ljust(256), np.uint8))
        self.store.init('address', said)
        self.store.pull('address', out=said)
        address = json.loads(bytes(said.asnumpy().astype(np.uint8)))
        self._servers = []
        if hub:
            # A server cannot import what this one can, or is none of ours: it never answers.
            self._watchdog.moves('the parameter servers to answer: they must be started by the same command as the workers')
            self.store._send_command_to_servers(0, words)
            self._servers = hub.accept(self._num_servers)
        self.store._barrier()
        self._watchdog.moves('the other workers')
        lines = hub.accept(self.size - 1) if hub else [connect(address['host'], address['port'], bytes.fromhex(address['key']), self.rank)]
        self._circle = Circle(self.rank, lines, self._watchdog)

    def _answer(self, server, line):
        self._watchdog.moves(f'parameter server {server}')
        with Ended(f'parameter server {server}'):
            return line.recv()


class Horovod(_Workers):
    """Workers, each with a single device, that sum gradients with Horovod's allreduce and then take the optimizer's step themselves."""

    store, compression = None, None

    def __init__(self, args):
        self._watchdog = Watchdog(args.dist_timeout)
        self._horovod = _horovod()
        self._horovod.init()
        self.rank, self.size = self._horovod.rank(), self._horovod.size()
        hub = Hub() if self.rank == 0 else None
        self._watchdog.moves('the other workers')
        host, port, key = self._horovod.broadcast_object((hub.host, hub.port, hub.key) if hub else None, root_rank=0)
        lines = hub.accept(self.size - 1) if hub else [connect(host, port, key, self.rank)]
        self._circle = Circle(self.rank, lines, self._watchdog)

    def devices(self, contexts):
        return [contexts[self._horovod.local_rank() % len(contexts)]]

    def sum_gradients(self, arrays):
        for number, array in enumerate(arrays):
            self._horovod.allreduce_(array, average=False, name=str(number), priority=-number)


def _horovod():
    try:
        import horovod.mxnet
    except ImportError as error:
        raise MissingDependencyError(f'--kv-store horovod needs Horovod, built for MXNet ({error}); README, "Many cards, many machines", says how') from None
    return horovod.mxnet


def _joined(pieces):
    """The state of a whole parameter from its pieces."""
    first = pieces[0]
    if isinstance(first, np.ndarray):
        return np.concatenate(pieces)
    if isinstance(first, (list, tuple)):
        return type(first)(_joined(parts) for parts in zip(*pieces))
    return first
