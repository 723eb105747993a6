"""What a parameter server or MXNet's scheduler does: it serves until the workers have ended.

MXNet's own server unpickles what comes over the network, and so runs the code of anyone who reaches its port. This one
takes a single command from there, the address of the first worker, and only with a code made with the secret of the
run. Everything else it gets from the first worker: the optimizer, as plain data, and the optimizer's states, which
MXNet cannot read or set.
"""

from __future__ import annotations

import sys
import threading
import traceback
from typing import Optional

from optimizers.plain_data import from_plain
from runtime import mx
from runtime.cli import report
from runtime.errors import TrainingError, UserError

from .connections import connect, read_address
from .secret import RefusedError, Warnings, run_secret
from .server_states import Updater, to_numpy


def serve_as(role: str) -> None:
    """Serve as a 'server' or the 'scheduler', and end the process."""
    try:
        secret = run_secret() if role == 'server' else None
    except UserError as error:
        sys.exit(report(error))
    Server(mx.kvstore.create('dist'), secret).run()
    sys.exit()


class Server(mx.kvstore.kvstore_server.KVStoreServer):
    """MXNet's parameter server, without its unpickling."""

    def __init__(self, kvstore: mx.kvstore.KVStore, secret: Optional[bytes]) -> None:
        super().__init__(kvstore)
        self._secret, self._warn, self._connecting, self._updater = secret, Warnings(), threading.Lock(), None

    def _controller(self):
        def controller(kind, body, _):
            try:
                self._take_command(body or b'')
            except Exception as error:  # C++ called, and would ignore it
                self._warn(f'refused a command to this parameter server: {error}')

        return controller

    def _take_command(self, body):
        """Connect to the first worker, whose address is in ``body``. Raises RefusedError for anything else."""
        host, port = read_address(self._secret, body)
        if not self._connecting.acquire(blocking=False):
            raise RefusedError('it is connected to the first worker already')
        threading.Thread(target=self._serve_first_worker, args=(host, port), daemon=True).start()

    def _serve_first_worker(self, host, port):
        """Do what the first worker asks until it ends. It asks while no worker waits for an update."""
        try:
            connection = connect(host, port, self._secret, 'server', self.kvstore.rank)
        except TrainingError as error:
            print(f'warning: {error}', file=sys.stderr, flush=True)
            self._connecting.release()
            return
        while True:
            try:
                request = connection.receive()
                connection.send(self._answer(*request))
            except (EOFError, OSError):
                return
            except (RefusedError, TrainingError) as error:
                # The first worker waits for an answer: the end of the connection ends it, and so the run.
                print(f'error: a message of the first worker was not understood: {error}', file=sys.stderr, flush=True)
                connection.close()
                return

    def _answer(self, request, *details):
        """(True, answer), or (False, what is wrong)."""
        answers = {'optimizer': self._set_optimizer, 'states': self._states, 'resume': self._resume}
        try:
            return True, answers[request](*details)
        except Exception as error:
            if not isinstance(error, UserError):
                traceback.print_exc()
            return False, f'{error}'

    def _set_optimizer(self, plain):
        self._updater = Updater(from_plain(plain))
        self.kvstore._set_updater(self._updater)

    def _states(self):
        mx.nd.waitall()
        return {key: to_numpy(state) for key, state in self._updater.states.items()}

    def _resume(self, num_servers, is_compressed, states):
        self._updater.resume(self.kvstore.rank, num_servers, is_compressed, states)
