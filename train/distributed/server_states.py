"""The states of the optimizer on a parameter server, and the way between them and NumPy."""

from __future__ import annotations

from typing import Any, Callable, Dict

import numpy as np

from runtime import mx

COMPRESSED_TOGETHER = 16  # values that 2-bit compression packs into one, and so never lays on two servers


class Updater(mx.optimizer.Updater):
    """MXNet's Updater, which may start from the states of a checkpoint. The first gradient of a parameter shows how
    much of it is on this server; its state is then cut accordingly.
    """

    _resumed: Dict[int, Any] = {}

    def resume(self, server: int, num_servers: int, is_compressed: bool, states: Dict[int, Any]) -> None:
        """``states``: dict key → state of a whole parameter, its arrays flat, in NumPy."""
        self._place, self._resumed = (server, num_servers, COMPRESSED_TOGETHER if is_compressed else 1), states

    def __call__(self, index: int, grad: mx.nd.NDArray, weight: mx.nd.NDArray) -> None:
        if index in self._resumed:
            self.states[index] = from_numpy(
                self._resumed.pop(index), lambda array: array[self._share(array.size, weight.size)]
            )
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
            raise ValueError(
                f'{here} of {whole} values lie on server {server} of {num_servers}, {end - begin} were expected'
            )
        return slice(begin, end)


def to_numpy(state: Any) -> Any:
    """An optimizer's state, its arrays in NumPy and flat."""
    if isinstance(state, mx.nd.NDArray):
        return state.asnumpy().reshape(-1)
    if isinstance(state, (list, tuple)):
        return type(state)(to_numpy(part) for part in state)
    return state


def from_numpy(state: Any, arrange: Callable[[np.ndarray], np.ndarray]) -> Any:
    """A state in MXNet's arrays, each of them ``arrange``\\ d first."""
    if isinstance(state, np.ndarray):
        return mx.nd.array(arrange(state), dtype=state.dtype)
    if isinstance(state, (list, tuple)):
        return type(state)(from_numpy(part, arrange) for part in state)
    return state
