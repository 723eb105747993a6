"""What a process does that was started as one of MXNet's parameter servers or as their scheduler: it serves until the workers have ended.

A server runs the optimizer, so it also keeps the optimizer's states, which MXNet gives no way to read or set. Here the first worker may ask for them, over
a connection that it names in a command.
"""
import json
import os
import pickle
import sys
import threading
import traceback
from multiprocessing.connection import Client

import mxnet as mx
import numpy as np

COMMAND = 0  # the only kind of command that MXNet hands on to Python; its body is a pickled optimizer, or JSON of ours
COMPRESSED_TOGETHER = 16  # values that 2-bit compression packs into one, and so never lays on two servers


def serve():
    """Serve, and end the process, where its environment says that it is no worker. A worker returns at once."""
    if os.environ.get('DMLC_ROLE') not in ('server', 'scheduler'):
        return
    Server(mx.kvstore.create('dist')).run()
    sys.exit()


class Server(mx.kvstore.kvstore_server.KVStoreServer):
    """MXNet's server, which ends when it cannot take an optimizer (MXNet's goes on, and overwrites weights with gradients)."""

    def _controller(self):
        def controller(kind, body, _):
            try:
                self._obey(body)
            except BaseException as error:  # C++ called, and would ignore it
                traceback.print_exc()
                print(f'error: this parameter server cannot do what the workers ask of it: {error}', file=sys.stderr, flush=True)
                os._exit(2)
        return controller

    def _obey(self, body):
        if body.startswith(b'{'):
            # Imports would wait for the one that this process serves in, so what the thread needs is imported already.
            threading.Thread(target=self._answer, args=(json.loads(body),), daemon=True).start()
        else:
            self._updater = Updater(pickle.loads(body))
            self.kvstore._set_updater(self._updater)

    def _answer(self, address):
        """Answer the first worker until it has ended. Its questions come while it waits for no update."""
        with Client((address['host'], address['port']), authkey=bytes.fromhex(address['key'])) as worker:
            worker.send(self.kvstore.rank)
            while True:
                try:
                    question, *details = worker.recv()
                except (EOFError, OSError):
                    return
                if question == 'states':
                    mx.nd.waitall()
                    worker.send({key: to_numpy(state) for key, state in self._updater.states.items()})
                elif question == 'resume':
                    self._updater.resume(self.kvstore.rank, *details)
                    worker.send('resumed')


class Updater(mx.optimizer.Updater):
    """MXNet's caller of an optimizer, which may begin with states from a checkpoint: known once the first gradient shows how much of an array lies here."""

    _resumed = {}

    def resume(self, server, num_servers, is_compressed, states):
        """``states``: dict key → state of a whole parameter, its arrays flat, in NumPy."""
        self._place, self._resumed = (server, num_servers, COMPRESSED_TOGETHER if is_compressed else 1), states

    def __call__(self, index, grad, weight):
        if index in self._resumed:
            self.states[index] = from_numpy(self._resumed.pop(index), lambda array: array[self._share(array.size, weight.size)])
            self.states_synced[index] = False
        super().__call__(index, grad, weight)

    def _share(self, whole, here):
        """The slice of an array of ``whole`` values that lies on this server, which holds ``here`` of them."""
        server, num_servers, together = self._place
        if whole == here:
            return slice(None)
        units = -(-whole // together)
        begin, end = (min(whole, together * int(units / num_servers * place + 0.5)) for place in (server, server + 1))
        end = whole if server + 1 == num_servers else end
        if end - begin != here:
            raise ValueError(f'{here} of {whole} values lie on server {server} of {num_servers}, {end - begin} were to be expected')
        return slice(begin, end)


def to_numpy(state):
    """An optimizer's state, its arrays in NumPy and flat."""
    if isinstance(state, mx.nd.NDArray):
        return state.asnumpy().reshape(-1)
    if isinstance(state, (list, tuple)):
        return type(state)(to_numpy(part) for part in state)
    return state


def from_numpy(state, arrange):
    """A state in MXNet's arrays, each of them ``arrange``\\ d first."""
    if isinstance(state, np.ndarray):
        return mx.nd.array(arrange(state), dtype=state.dtype)
    if isinstance(state, (list, tuple)):
        return type(state)(from_numpy(part, arrange) for part in state)
    return state
