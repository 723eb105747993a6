"""The arithmetic of training, on PyTorch: for cards that MXNet's wheels have no kernels for.

The network is still an MXNet symbol, the optimizer still equations 10 to 12 and the authors' NAG, and a checkpoint is
the same files: each engine can resume a run of the other.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any, Dict, List, Optional, Tuple

import torch

from graphs.lambda_names import is_lambda
from interop.torch_graph import TorchGraph
from optimizers.torch_apg import APG
from runtime import mx
from runtime.errors import UserError
from train.metrics import Tally

from .initial import initial_parameters, seed_everything
from .interface import Batches, LambdaArrays, OptimizerState, Params
from .torch_arithmetic import Arithmetic
from .torch_cpu import Compiled, configure_process, should_compile
from .torch_data import on_device
from .torch_replay import CudaRecorder, Replayed
from .torch_tally import DeviceTally


class TorchEngine:
    """One ``TorchGraph`` on one device. On a card, only ``settle`` and methods that return values to the CPU wait for
    it.

    Parameters
    ----------
    symbol : network with inputs ``data`` and ``softmax_label``.
    gpus : None for the CPU, or the number of a card as text, '0'.
    data_shapes, label_shapes : what the iterators provide.
    arithmetic : what to compute in; by default float32 without TF32, so that results are MXNet's up to rounding.
    macs_in_run : multiply-adds of the whole run, by which ``--compile auto`` decides.
    """

    def __init__(
        self,
        symbol: mx.sym.Symbol,
        gpus: Optional[str],
        data_shapes: List[mx.io.DataDesc],
        label_shapes: List[mx.io.DataDesc],
        arithmetic: Optional[Arithmetic] = None,
        macs_in_run: float = 0.0,
    ) -> None:
        self.symbol = symbol
        self._arithmetic = arithmetic or Arithmetic()
        self._device = self.check(gpus, self._arithmetic)
        self._shapes = data_shapes, label_shapes
        self._arithmetic.apply()
        self._is_random = any(node['op'] == 'Dropout' for node in json.loads(symbol.tojson())['nodes'])
        if self._device.type == 'cuda':
            torch.cuda.set_device(self._device)
        self._compiles = should_compile(self._arithmetic.compile, self._arithmetic.dtype, self._device, macs_in_run)
        self._recorder = CudaRecorder(self._device) if self._arithmetic.records(self._device) else None
        self._batch, self._tensors = None, None

    @staticmethod
    def check(gpus: Optional[str], arithmetic: Optional[Arithmetic] = None) -> torch.device:
        """The device that ``--gpus`` names; for the CPU, the process is set up for it. Raises UserError where there is
        no such device, or it cannot do the arithmetic.
        """
        device = _device(gpus)
        if device.type == 'cpu':
            configure_process()
        if arithmetic:
            arithmetic.check(device)
        return device

    @staticmethod
    def versions(gpus: Optional[str]) -> Dict[str, Any]:
        """What a result depends on besides ``train.log.versions``: PyTorch, and the card with its libraries."""
        device = _device(gpus)
        if device.type == 'cpu':
            return {'torch': torch.__version__, 'card': None}
        return {
            'torch': torch.__version__,
            'card': torch.cuda.get_device_name(device),
            'cuda': torch.version.cuda,
            'cudnn': torch.backends.cudnn.version(),
        }

    def start(
        self,
        optimizer: mx.optimizer.Optimizer,
        arg_params: Optional[Params] = None,
        aux_params: Optional[Params] = None,
        state: Optional[OptimizerState] = None,
    ) -> None:
        """Set parameters (None: those that MXNet would start from after the same ``seed``) and the optimizer, by the
        settings of MXNet's one.
        """
        if arg_params is None:
            arg_params, aux_params = initial_parameters(self.symbol, *self._shapes)
        layout = {'memory_format': torch.channels_last} if self._arithmetic.channels_last else {}
        self._net = TorchGraph(self.symbol, arg_params, aux_params).to(self._device, **layout)
        self._schedule, self._num_update = optimizer.lr_scheduler or (lambda num_update: optimizer.lr), 0
        self._rate = None
        # A recorded step reads the rate from this tensor; a number would be recorded as it is now.
        rate = torch.tensor(optimizer.learning_rate, device=self._device) if self._recorder else optimizer.learning_rate
        self._optimizer = APG(
            self._net.mxnet_parameters(),
            lr=rate,
            gamma=optimizer.gamma,
            momentum=optimizer.momentum,
            wd=optimizer.wd,
            lambda_name=optimizer.lambda_name,
            nonnegative=optimizer.nonnegative,
            rescale_grad=optimizer.rescale_grad,
            clip_gradient=optimizer.clip_gradient,
            lr_mult=optimizer.lr_mult,
            wd_mult=optimizer.wd_mult,
            rule=optimizer.rule,
            structures=getattr(optimizer, 'structures', None),
        )
        self._lambda_name, self._magnitudes = optimizer.lambda_name, optimizer.magnitudes
        self._scaler = self._arithmetic.scaler(self._device, self._shapes[0][0].shape[0])
        self._losses, probabilities = self._loss_and_probabilities, self._inferred
        if self._compiles:
            self._losses = Compiled(self._losses, 'training step', self._try_training_step)
            probabilities = Compiled(
                probabilities, 'evaluation step', lambda function: function(self._blank_batch()[0])
            )
        self._learn, self._infer = Replayed(self._learned, self._recorder), Replayed(probabilities, self._recorder)
        if state is not None:
            self._num_update, states = state
            self._optimizer.load_mxnet_state(states or {})

    def seed(self, number: int) -> None:
        """Seed the generators behind initial weights and dropout."""
        seed_everything(number)
        torch.manual_seed(number)

    def set_threads(self, number: int) -> None:
        """Compute with ``number`` threads on the CPU from the next step on. A compiled step is compiled anew for a
        number that it has not had.
        """
        torch.set_num_threads(number)

    def prepare_iterator(self, iterator: Batches) -> Batches:
        """``iterator``, on a card with its images there if they can be."""
        return on_device(iterator, self._device) if self._device.type == 'cuda' else iterator

    def tally(self, top_k: int) -> Tally:
        """A fresh ``Tally`` for what ``step`` or ``predict`` and ``labels`` return."""
        return DeviceTally(top_k, self._device)

    def step(self, batch: mx.io.DataBatch, seed: int) -> torch.Tensor:
        """One pass forward and backward and one update; the class probabilities (N, K) before it, on the device, until
        the next step.
        """
        if self._is_random:
            torch.manual_seed(seed)
        self._num_update += 1
        self._set_rate(self._schedule(self._num_update))
        self._train(True)
        probabilities = self._learn(*self._on_device(batch))
        if self._scaler.is_enabled():
            # The update depends on whether float16 overflowed, so this waits for a card.
            self._scaler.step(self._optimizer)
            self._scaler.update()
        return probabilities

    @torch.no_grad()
    def predict(self, batch: mx.io.DataBatch) -> torch.Tensor:
        """The class probabilities (N - pad, K) of a batch, by the moving statistics, on the device, until the next
        call.
        """
        self._train(False)
        images, _ = self._on_device(batch)
        return self._infer(images)[: len(images) - batch.pad]

    @torch.no_grad()
    def predict_by_batch(self, batch: mx.io.DataBatch) -> torch.Tensor:
        """The class probabilities (N - pad, K) of a batch, by the statistics of the batch itself, on the device."""
        if self._is_random:
            torch.manual_seed(0)
        images, _ = self._on_device(batch)
        with self._statistics_kept():
            self._train(True)
            return self._inferred(images)[: len(images) - batch.pad]

    def labels(self, batch: mx.io.DataBatch) -> torch.Tensor:
        """The labels (N,) of a batch, on the device."""
        return self._on_device(batch)[1]

    def end_epoch(self) -> None:
        """``settle``: there is one device, and its moving statistics are those of the network."""
        self.settle()

    def settle(self) -> None:
        """Wait until every update has been carried out."""
        if self._device.type == 'cuda':
            torch.cuda.synchronize(self._device)

    def parameters(self) -> Tuple[Params, Params]:
        """(arg_params, aux_params), copies on the CPU."""
        return self._net.to_mxnet()

    def lambdas(self) -> LambdaArrays:
        """The scaling factors, or what the rule selects structures by in their place: dict from name to NumPy array."""
        arrays = dict(self._net.mxnet_parameters())
        return self._magnitudes(
            [name for name in arrays if is_lambda(name, self._lambda_name)],
            lambda name: arrays[name].detach().cpu().numpy().copy(),
        )

    @torch.no_grad()
    def set_lambdas(self, lambdas: LambdaArrays) -> None:
        """Give scaling factors (dict from name to NumPy array) these values."""
        arrays = dict(self._net.mxnet_parameters())
        for name, values in lambdas.items():
            arrays[name].copy_(torch.as_tensor(values))

    def set_bounds(self, bounds: LambdaArrays) -> None:
        """Keep |λ| within ``bounds`` (dict from name to NumPy array) from the next step on; a λ whose bound is 0 stays
        0.
        """
        for name, bound in bounds.items():
            known = self._optimizer.bounds.get(name)
            tensor = torch.as_tensor(bound, dtype=torch.float32, device=self._device)
            if known is None:
                self._optimizer.bounds[name] = tensor
                self._record_again()
            else:
                known.copy_(tensor)

    def set_gamma(self, gamma: float, weights: Optional[LambdaArrays] = None) -> None:
        """Penalise λ by ``gamma`` from the next step on, times ``weights`` (dict from name to NumPy array) where they
        are given.
        """
        for group in self._optimizer.param_groups:
            group['gamma'] = gamma
        if weights is not None:
            self._optimizer.gamma_weights = {
                name: torch.as_tensor(weight, dtype=torch.float32, device=self._device)
                for name, weight in weights.items()
            }
        self._record_again()

    def note_importance(self, is_on: bool) -> None:
        """Add up (λ ∂G/∂λ)² over the steps to come, or stop it."""
        self._optimizer.importance = {} if is_on else None
        self._record_again()

    def importance(self) -> LambdaArrays:
        """The sums of (λ ∂G/∂λ)² so far: dict from name to NumPy array."""
        return {name: effect.cpu().numpy() for name, effect in (self._optimizer.importance or {}).items()}

    def _record_again(self):
        """A recorded step holds numbers and tensors as they were; the next steps are computed, and recorded again."""
        self._learn = Replayed(self._learned, self._recorder)

    def optimizer_state(self) -> OptimizerState:
        """(number of updates done, dict from parameter name to its state), as MXNetEngine's."""
        return self._num_update, self._optimizer.mxnet_state()

    def _learned(self, images, labels):
        """The body of ``step``, which may be recorded: nothing here may wait for the card or depend on what is not in a
        tensor.
        """
        self._optimizer.zero_grad(set_to_none=True)
        loss, probabilities = self._losses(images, labels)
        self._scaler.scale(loss).backward()
        if not self._scaler.is_enabled():
            self._optimizer.step()
        return probabilities

    def _loss_and_probabilities(self, images, labels):
        with self._arithmetic.autocast(self._device):
            logits = self._net(images)
        logits = logits.float()
        return self._net.loss(logits, labels), torch.softmax(logits.detach(), dim=1)

    def _try_training_step(self, function):
        """One forward and backward pass without effect: gradients dropped, moving statistics restored."""
        try:
            with self._statistics_kept():
                function(*self._blank_batch())[0].backward()
        finally:
            self._optimizer.zero_grad(set_to_none=True)

    @contextlib.contextmanager
    def _statistics_kept(self):
        """Restores the moving statistics at the end."""
        statistics = [buffer.clone() for buffer in self._net.buffers()]
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, value in zip(self._net.buffers(), statistics):
                    buffer.copy_(value)

    def _blank_batch(self):
        """(images, labels) of the shapes that training has, all zero."""
        (data,), (label,) = self._shapes
        images = torch.zeros(tuple(data.shape), device=self._device)
        return self._arithmetic.laid_out(images), torch.zeros(tuple(label.shape), device=self._device)

    def _inferred(self, images):
        with self._arithmetic.autocast(self._device):
            logits = self._net(images)
        return torch.softmax(logits.float(), dim=1)

    def _set_rate(self, rate):
        if rate == self._rate:
            return
        self._rate = rate
        for group in self._optimizer.param_groups:
            if isinstance(group['lr'], torch.Tensor):
                group['lr'].fill_(rate)
            else:
                group['lr'] = rate

    def _train(self, is_training):
        if self._net.training != is_training:
            self._net.train(is_training)

    def _on_device(self, batch):
        """(images, labels); a batch that comes again, as synthetic ones do, is there already."""
        if batch is not self._batch:
            images, labels = (self._uploaded(array) for array in (batch.data[0], batch.label[0]))
            self._batch, self._tensors = batch, (self._arithmetic.laid_out(images), labels)
        return self._tensors

    def _uploaded(self, array):
        if not isinstance(array, torch.Tensor):
            array = torch.from_numpy(array.asnumpy())
            # On the CPU a copy, whose alignment is always the same: MKL's last digits depend on it. For a card pinned
            # memory: out of other memory the copy would wait for all that the card has still to do.
            array = array.pin_memory() if self._device.type == 'cuda' else array.clone()
        return array.to(self._device, non_blocking=True)


def _device(gpus):
    if not gpus:
        return torch.device('cpu')
    if not gpus.isdecimal():
        raise UserError(f'--gpus {gpus}: --engine torch computes on one card; give its number, as in --gpus 0')
    if int(gpus) >= torch.cuda.device_count():
        raise UserError(
            f'--gpus {gpus}: PyTorch {torch.__version__} sees {torch.cuda.device_count()} cards; leave --gpus out to '
            'compute on the CPU'
        )
    return torch.device('cuda', int(gpus))
