"""The worker's side of MXNet's parameter servers: ``--kv-store dist_sync``, ``dist_device_sync`` and ``dist_async``."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Optional, Tuple, Union

import numpy as np

from optimizers.plain_data import from_plain, to_plain
from runtime import mx
from runtime.errors import TrainingError

from .connections import Hub, connect, read_address
from .messages import Exchange, PeerErrors, Watchdog
from .secret import run_secret
from .server_states import from_numpy, to_numpy
from .workers import Workers

CONTROLLER, MULTI_PRECISION = 0, 1  # MXNet's numbers of commands to its servers
ADDRESS_LENGTH = 512


class ParameterServers(Workers):
    """Workers whose gradients are summed on MXNet's parameter servers, where the optimizer runs too.

    Servers know a parameter by its number, in the order in which the workers gave them the parameters. They hold its
    values flat, large ones in pieces on several servers. ``store`` may be given to ``mx.mod.Module`` or
    ``gluon.Trainer``: its ``set_optimizer`` sends the optimizer as plain data.

    Parameters
    ----------
    kv_store : 'dist_sync', 'dist_device_sync' or 'dist_async'.
    timeout : seconds without a ``heartbeat`` after which this worker ends.
    compression : MXNet's parameters of gradient compression.
    address_key : key of the array that holds the address of the first worker. MXNet needs keys of one type: for
        ``gluon.Trainer``, whose keys are numbers, it must be a number that no parameter has.
    """

    has_servers = True
    store: mx.kvstore.KVStore
    _keys: List[Union[str, int]]

    def __init__(
        self,
        kv_store: str,
        timeout: float = 300,
        compression: Optional[Dict[str, Any]] = None,
        address_key: Union[str, int] = 'address',
    ) -> None:
        self._watchdog, self._secret = Watchdog(timeout), run_secret()
        self.store = mx.kv.create(kv_store)
        self.store.set_optimizer = self._set_optimizer  # MXNet's sends a pickle
        self.rank, self.size, self.compression = self.store.rank, self.store.num_workers, compression
        self.is_synchronous = 'async' not in kv_store
        self.updates_per_step = 1 if self.is_synchronous else self.size
        self._keys, self._before_names = [], int(isinstance(address_key, str))
        self._num_servers = int(os.environ['DMLC_NUM_SERVER'])
        self._connect(address_key)

    def begins(self, optimizer: mx.optimizer.Optimizer, names: List[str]) -> None:
        """Note the names of the parameters, and give the ``optimizer`` those of the arrays that ``prove`` uses."""
        self._keys += names
        self._probes = {
            f'{kind}_{server}': kind
            for kind in ('probe_weight', f'{optimizer.lambda_name}_probe')
            for server in range(self._num_servers)
        }
        optimizer.idx2name, self._before_names = dict(enumerate([*self._keys, *self._probes])), 0

    def states(self, shapes: Dict[str, Tuple[int, ...]]) -> Optional[Dict[str, Any]]:
        """The optimizer's states on the servers, as ``Alone.states``. Raises TrainingError where a server refuses."""
        if self.rank:
            return None
        found = self._ask_servers('states')
        states = {}
        for name, shape in shapes.items():
            pieces = [
                states_here[self._keys.index(name)] for states_here in found if self._keys.index(name) in states_here
            ]
            if pieces:
                states[name] = from_numpy(_joined(pieces), _reshape_to(shape))
        return states

    def resume(self, states: Dict[str, Any]) -> None:
        """Give the servers ``states`` of a checkpoint. Raises TrainingError where a server refuses."""
        if self.rank == 0:
            by_key = {self._keys.index(name): to_numpy(state) for name, state in states.items()}
            self._ask_servers('resume', self._num_servers, bool(self.compression), by_key)
        self.exchange(None)

    def prove(self, optimizer: mx.optimizer.Optimizer) -> None:
        """Make sure, before the first step, that every server moves a weight and a λ by the rule of ``optimizer``.
        Raises TrainingError.
        """
        # MXNet lays keys that follow one another on one server after the other.
        before = mx.nd.array([1, -1, 0.5, 2])
        push, pushes = (True, self.size) if self.is_synchronous else (self.rank == 0, 1)
        gradient = mx.nd.full(
            before.shape, self.compression['threshold'] if self.compression else 0.5
        )  # compression leaves this as it is
        for name in self._probes:
            self.store.init(name, before)
        for name, kind in self._probes.items():
            twin, expected, found = from_plain(to_plain(optimizer)), before.copy(), mx.nd.zeros(before.shape)
            index = len(self._keys) + list(self._probes).index(name)
            twin.update_multi_precision(
                index, expected, gradient * pushes, twin.create_state_multi_precision(index, before)
            )
            if push:
                self.store.push(name, gradient.copy())  # what is pushed is also where MXNet pulls to
            if self.rank == 0:
                self.store.pull(name, out=found)
                if not np.allclose(found.asnumpy(), expected.asnumpy(), rtol=1e-5, atol=1e-7):
                    server = int(name.rpartition('_')[2])
                    raise TrainingError(
                        f'a first update did not move {kind} by the rule of the optimizer on one of the parameter '
                        f'servers (trial {server} of '
                        f'{self._num_servers}); every server must run the same version of this project as the workers'
                    )
        self.exchange(None)

    def _connect(self, address_key):
        """Connect the first worker with all others. It says where it listens by a command to the servers, and in a
        first array to the workers.
        """
        wanted = [
            *(('server', rank) for rank in range(self._num_servers)),
            *(('worker', rank) for rank in range(1, self.size)),
        ]
        hub = Hub(self._secret, wanted) if self.rank == 0 else None
        address = hub.signed_address() if hub else ''
        self._keys.append(address_key)
        shared = mx.nd.array(np.frombuffer(address.encode().ljust(ADDRESS_LENGTH), np.uint8))
        self.store.init(address_key, shared)
        self.store.pull(address_key, out=shared)
        self._servers = []
        if hub:
            self._watchdog.heartbeat(
                'the parameter servers to answer: they must be started by the same command as the workers'
            )
            self.store._send_command_to_servers(CONTROLLER, address)
            self._servers = hub.accept('server', range(self._num_servers))
        self.store._barrier()
        self._watchdog.heartbeat('the other workers')
        if hub:
            connections = hub.accept('worker', range(1, self.size))
            hub.close()
        else:
            signed_address = bytes(shared.asnumpy().astype(np.uint8)).rstrip()
            connections = [connect(*read_address(self._secret, signed_address), self._secret, 'worker', self.rank)]
        self._exchange = Exchange(self.rank, connections, self._watchdog)

    def _set_optimizer(self, optimizer):
        """Let the servers run ``optimizer``. All workers must call this; the optimizer of the first one counts."""
        if self.rank == 0:
            plain = to_plain(optimizer)
            # Where ``begins`` was not called, the names are those of Module, which does not know that the address has
            # the first number.
            plain['names'] = {index + self._before_names: name for index, name in plain['names'].items()}
            self._ask_servers('optimizer', plain)
            if optimizer.multi_precision:
                self.store._send_command_to_servers(MULTI_PRECISION, '')
        self.exchange(None)

    def _ask_servers(self, *request):
        """What every server answers to ``request``. Raises TrainingError where one cannot do it."""
        for server, connection in enumerate(self._servers):
            with PeerErrors(f'parameter server {server}'):
                connection.send(request)
        answers = []
        for server, connection in enumerate(self._servers):
            self._watchdog.heartbeat(f'parameter server {server}')
            with PeerErrors(f'parameter server {server}'):
                is_done, answer = connection.receive()
            if not is_done:
                raise TrainingError(f'parameter server {server} refused a request of the workers: {answer}')
            answers.append(answer)
        return answers


def _reshape_to(shape):
    return lambda array: array.reshape(shape)


def _joined(pieces):
    """The state of a whole parameter from its pieces."""
    first = pieces[0]
    if isinstance(first, np.ndarray):
        return np.concatenate(pieces)
    if isinstance(first, (list, tuple)):
        return type(first)(_joined(parts) for parts in zip(*pieces))
    return first
