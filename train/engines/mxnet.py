"""The arithmetic of training, on MXNet: a bound network, its optimizer, and their state."""

from __future__ import annotations

import json
import pickle
from typing import List, Optional, Tuple, Union

import numpy as np

from graphs.lambda_names import is_lambda
from runtime import mx
from runtime.errors import TrainingError
from runtime.threads import set_mxnet_threads
from train.distributed.group import ALONE, Alone
from train.metrics import Tally

from .initial import initialise, seed_everything
from .interface import Batches, LambdaArrays, OptimizerState, Params


class MXNetEngine:
    """One ``mx.mod.Module`` over one or several devices.

    Parameters
    ----------
    symbol : network with inputs ``data`` and ``softmax_label``.
    contexts : list of devices; each takes an equal share of the batch.
    data_shapes, label_shapes : what the iterators provide.
    kvstore : MXNet's store that sums gradients over devices, or its name ('local', 'device').
    group : the workers that train together. All of them must call ``start``, ``step``, ``end_epoch``, ``parameters``
        and ``optimizer_state``.
    """

    def __init__(
        self,
        symbol: mx.sym.Symbol,
        contexts: List[mx.Context],
        data_shapes: List[mx.io.DataDesc],
        label_shapes: List[mx.io.DataDesc],
        kvstore: Union[str, mx.kvstore.KVStore, None] = 'local',
        group: Alone = ALONE,
    ) -> None:
        self.symbol = symbol
        self._kvstore, self._group = kvstore, group
        self._contexts = contexts
        self._replicas = len(contexts) * group.size
        self._module = mx.mod.Module(
            symbol,
            context=contexts,
            label_names=[label[0] for label in label_shapes],
            compression_params=group.compression,
        )
        self._module.bind(data_shapes=data_shapes, label_shapes=label_shapes)
        self._proved = False
        self._is_random = any(node['op'] == 'Dropout' for node in json.loads(symbol.tojson())['nodes'])

    def start(
        self,
        optimizer: mx.optimizer.Optimizer,
        arg_params: Optional[Params] = None,
        aux_params: Optional[Params] = None,
        state: Optional[OptimizerState] = None,
    ) -> None:
        """Set parameters (None: initialise as the authors do) and the optimizer, with its ``state`` where a run is
        resumed.
        """
        if arg_params is None:
            initialise(self._module)
        else:
            self._module.init_params(None, arg_params=arg_params, aux_params=aux_params, allow_missing=False)
        self._optimizer = optimizer
        if state is not None:
            # A scheduler counts from where the optimizer begins; the states hold no count.
            optimizer.begin_num_update = optimizer.num_update = state[0]
        self._group.begins(optimizer, self._module._param_names)
        self._module.init_optimizer(kvstore=self._kvstore, optimizer=optimizer)
        self._on_servers = self._group.has_servers and self._module._update_on_kvstore
        if state is not None:
            self._restore(state[1])
        if self._on_servers:
            self._group.prove(optimizer)
            self._proved = True

    def seed(self, number: int) -> None:
        """Seed the generators behind initial weights and dropout."""
        seed_everything(number)

    def set_threads(self, number: int) -> None:
        """Compute with ``number`` threads on the CPU from the next step on."""
        set_mxnet_threads(number, [context.device_id for context in self._contexts if context.device_type == 'cpu'])

    def prepare_iterator(self, iterator: Batches) -> Batches:
        """``iterator``; an engine may return a device-resident replacement."""
        return iterator

    def tally(self, top_k: int) -> Tally:
        """A fresh ``Tally`` for what ``step`` or ``predict`` and ``labels`` return."""
        return Tally(top_k)

    def step(self, batch: mx.io.DataBatch, seed: int) -> np.ndarray:
        """One pass forward and backward and one update; the class probabilities (N, K) before it, as a NumPy array.

        Dropout draws from a generator whose state cannot be saved; so ``seed`` sets it, and a step depends on nothing
        that came before.
        """
        if self._is_random:
            self.seed(seed)
        if self._gradients(batch):
            self._group.sum_gradients([gradients[0] for gradients in self._module._exec_group.grad_arrays])
            expected = None if self._proved else self._expected_update()
            self._update()
            if expected is not None:
                self._prove(expected)
        if self._on_servers:
            self._optimizer.num_update += self._group.updates_per_step  # the servers count for themselves
        return self._module.get_outputs()[0].asnumpy()

    def _gradients(self, batch):
        """The pass forward and backward. False if the step must be skipped (float16 overflow)."""
        self._module.forward_backward(batch)
        return True

    def _update(self):
        if not (self._on_servers and self._group.compression):
            self._module.update()
            return
        # Module's single call for this does not work with compressed gradients.
        group = self._module._exec_group
        self._module._params_dirty = True
        for index, name in enumerate(group.param_names):
            self._group.store.push(name, group.grad_arrays[index], priority=-index)
            self._group.store.pull(name, out=group.param_arrays[index], priority=-index)

    def predict(self, batch: mx.io.DataBatch) -> np.ndarray:
        """The class probabilities (N - pad, K) of a batch, by the moving statistics, as a NumPy array."""
        self._module.forward(batch, is_train=False)
        return self._module.get_outputs()[0].asnumpy()[: batch.data[0].shape[0] - batch.pad]

    def predict_by_batch(self, batch: mx.io.DataBatch) -> np.ndarray:
        """The class probabilities (N - pad, K) of a batch, by the statistics of the batch itself, as a NumPy array."""
        self.settle()
        arrays = [array for devices in self._module._exec_group.aux_arrays for array in devices]
        kept = [array.copy() for array in arrays]
        if self._is_random:
            self.seed(0)
        self._module.forward(batch, is_train=True)
        found = self._module.get_outputs()[0].asnumpy()[: batch.data[0].shape[0] - batch.pad]
        self.settle()
        for array, value in zip(arrays, kept):
            array[:] = value
        return found

    def labels(self, batch: mx.io.DataBatch) -> np.ndarray:
        """The labels (N,) of a batch, as a NumPy array."""
        return batch.label[0].asnumpy()

    def settle(self) -> None:
        """Wait until every update has been carried out: BatchNorm's moving statistics are stale until then."""
        mx.nd.waitall()

    def end_epoch(self) -> None:
        """``settle``, and let all devices of all workers go on from the mean of their moving statistics, which each
        takes of its own images alone.
        """
        self.settle()
        for name, array in _means(self._statistics()).items():
            for device in self._module._exec_group.aux_arrays[self._module._aux_names.index(name)]:
                device[:] = array

    def parameters(self) -> Tuple[Params, Params]:
        """(arg_params, aux_params), copies on the CPU; moving statistics are the mean over all devices."""
        self.settle()
        arg_params, aux_params = self._module.get_params()
        return arg_params, {**aux_params, **_means(self._statistics())}

    def lambdas(self) -> LambdaArrays:
        """The scaling factors, or what the optimizer selects structures by in their place: dict from name to NumPy
        array.
        """
        names = [name for name in self._module._param_names if is_lambda(name, self._optimizer.lambda_name)]
        return self._optimizer.magnitudes(names, lambda name: self._weight(name).asnumpy())

    def set_lambdas(self, lambdas: LambdaArrays) -> None:
        """Give scaling factors (dict from name to NumPy array) these values on every device."""
        self.settle()
        for name, values in lambdas.items():
            for device in self._module._exec_group.param_arrays[self._position(name)]:
                device[:] = values

    def set_bounds(self, bounds: LambdaArrays) -> None:
        """Keep |λ| within ``bounds`` (dict from name to NumPy array) from the next step on; a λ whose bound is 0 stays
        0.
        """
        self._optimizer.bounds = {name: mx.nd.array(bound) for name, bound in bounds.items()}

    def set_gamma(self, gamma: float, weights: Optional[LambdaArrays] = None) -> None:
        """Penalise λ by ``gamma`` from the next step on, times ``weights`` (dict from name to NumPy array) where they
        are given.
        """
        self._optimizer.gamma = gamma
        if weights is not None:
            self._optimizer.gamma_weights = {name: mx.nd.array(weight) for name, weight in weights.items()}

    def note_importance(self, is_on: bool) -> None:
        """Add up (λ ∂G/∂λ)² over the steps to come, or stop it."""
        self._optimizer.importance = {} if is_on else None

    def importance(self) -> LambdaArrays:
        """The sums of (λ ∂G/∂λ)² so far: dict from name to NumPy array."""
        return {name: effect.asnumpy() for name, effect in (self._optimizer.importance or {}).items()}

    def optimizer_state(self) -> OptimizerState:
        """(number of updates done, dict from parameter name to its state): see ``APG`` for what a state is.

        With several devices, the moving statistics of each are there too: a list under the name of their mean. On
        workers other than the first, the dict may be None.
        """
        self.settle()
        statistics = self._statistics()
        if self._on_servers:
            states = self._group.states({name: self._weight(name).shape for name in self._module._param_names})
        else:
            known = self._updater().states
            states = {
                name: known[self._keys(name)[0]] for name in self._module._param_names if self._keys(name)[0] in known
            }
        return self._optimizer.num_update, states if states is None else {**states, **statistics}

    def _restore(self, states):
        # A state that belongs to no parameter or statistic is that of another engine.
        for name, devices in zip(self._module._aux_names, self._module._exec_group.aux_arrays):
            of_each = states.get(name, ())
            if len(of_each) == self._replicas:
                for device, array in zip(devices, of_each[self._group.rank * len(devices) :]):
                    array.copyto(device)
        states = {name: state for name, state in states.items() if name in self._module._param_names}
        if self._on_servers:
            self._group.resume(states)
            return
        self._optimizer._index_update_count.clear()
        updater = self._updater()
        for name, state in states.items():
            for key in self._keys(name):
                updater.states[key] = _copy(state)
                updater.states_synced[key] = False

    def _statistics(self):
        """The moving statistics of every device of every worker: dict from name to list of arrays; nothing where there
        is one device.
        """
        if self._replicas == 1:
            return {}
        here = {
            name: [device.asnumpy() for device in devices]
            for name, devices in zip(self._module._aux_names, self._module._exec_group.aux_arrays)
        }
        of_all = self._group.exchange(here)
        return {name: [mx.nd.array(array) for worker in of_all for array in worker[name]] for name in here}

    def _updater(self):
        return self._module._kvstore._updater if self._module._update_on_kvstore else self._module._updater

    def _keys(self, name):
        """What the updates of a parameter are known by: its name on a kvstore, else a number for each device."""
        if self._module._update_on_kvstore:
            return [name]
        devices = len(self._contexts)
        return [self._position(name) * devices + device for device in range(devices)]

    def _weight(self, name):
        return self._module._exec_group.param_arrays[self._position(name)][0]

    def _position(self, name):
        return self._module._exec_group.param_names.index(name)

    def _expected_update(self):
        """What one update by the rule, carried out here, makes of the smallest weight and the smallest λ: dict from
        name to array.
        """
        by_size = sorted(self._module._exec_group.param_names, key=lambda name: self._weight(name).size)
        factors = [name for name in by_size if is_lambda(name, self._optimizer.lambda_name)]
        others = [name for name in by_size if name not in factors]
        twin = _copy(self._optimizer)
        if twin.first_rate_late:
            twin.first_rate_late = False  # which is so for all parameters but the first
            others = [name for name in others if name != self._module._param_names[0]]
        return {name: self._updated(twin, name) for name in factors[:1] + others[:1]}

    def _updated(self, twin, name):
        gradient = mx.nd.array(
            sum(self._as_sent(grad.asnumpy()) for grad in self._module._exec_group.grad_arrays[self._position(name)])
        )
        weight = self._weight(name).copyto(mx.cpu())
        key, states = self._keys(name)[0], self._updater().states
        state = _copy(states[key]) if key in states else twin.create_state_multi_precision(name, weight)
        twin.update_multi_precision(name, weight, gradient, state)
        return weight.asnumpy()

    def _as_sent(self, gradient):
        """What compression leaves of the first gradient, before it has kept anything back."""
        if not self._group.compression:
            return gradient
        threshold = float(self._group.compression['threshold'])
        return threshold * (gradient >= threshold) - threshold * (gradient <= -threshold)

    def _prove(self, expected):
        """Compare the first update with the ``expected`` one: an optimizer that fails inside a kvstore raises no error
        here. Raises TrainingError.
        """
        for name, weight in expected.items():
            if not np.allclose(self._weight(name).asnumpy(), weight, rtol=1e-4, atol=1e-6, equal_nan=True):
                raise TrainingError(
                    f'the first update did not move {name} by the rule of the optimizer: it does not run inside '
                    f'kvstore {self._kvstore!r}; '
                    'look above for an exception that was ignored, and check that every process can import optimizers'
                )
        self._proved = True


def _means(statistics):
    # In float64, where the mean of equal numbers is that number, of however many.
    return {
        name: mx.nd.array(np.mean([array.asnumpy() for array in arrays], axis=0, dtype=np.float64))
        for name, arrays in statistics.items()
    }


def _copy(thing):
    return pickle.loads(pickle.dumps(thing))
