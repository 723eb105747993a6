"""The arithmetic of training, on PyTorch: for cards that MXNet's wheels have no kernels for.

The network is still an MXNet symbol, the optimizer still equations 10 to 12 and the authors' NAG, and a checkpoint is the same files: what one engine wrote,
the other goes on from. The interface is that of ``train.engine.MXNetEngine``.
"""
import torch

from interop.torch_graph import TorchGraph
from interop.torch_optim import APG
from runtime.errors import UserError

from .engine import initial_parameters, seed_everything


class TorchEngine:
    """One ``TorchGraph`` on one device.

    Parameters
    ----------
    symbol : network with inputs ``data`` and ``softmax_label``.
    gpus : None for the CPU, or the number of a card as text, '0'.
    data_shapes, label_shapes : what the iterators provide; only the shape of an image matters.

    Arithmetic is full float32: TF32 stays off, so that results are MXNet's up to rounding.
    """

    def __init__(self, symbol, gpus, data_shapes, label_shapes):
        self.symbol = symbol
        self._device = self.check(gpus)
        self._shapes = data_shapes, label_shapes
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

    @staticmethod
    def check(gpus):
        """The device that ``--gpus`` names. Raises UserError where there is none such."""
        if not gpus:
            return torch.device('cpu')
        if not gpus.isdecimal():
            raise UserError(f'--gpus {gpus}: --engine torch computes on one card; give its number, as in --gpus 0')
        if int(gpus) >= torch.cuda.device_count():
            raise UserError(f'--gpus {gpus}: PyTorch {torch.__version__} sees {torch.cuda.device_count()} cards; leave --gpus out to compute on the CPU')
        return torch.device('cuda', int(gpus))

    def start(self, optimizer, arg_params=None, aux_params=None, state=None):
        """Set parameters (None: those that MXNet would start from after the same ``seed``) and the optimizer, by the settings of MXNet's one."""
        if arg_params is None:
            arg_params, aux_params = initial_parameters(self.symbol, *self._shapes)
        self._net = TorchGraph(self.symbol, arg_params, aux_params).to(self._device)
        self._schedule, self._num_update = optimizer.lr_scheduler, 0
        self._optimizer = APG(self._net.mxnet_parameters(), lr=optimizer.lr, gamma=optimizer.gamma, momentum=optimizer.momentum, wd=optimizer.wd,
                              lambda_name=optimizer.lambda_name, nonnegative=optimizer.nonnegative, rescale_grad=optimizer.rescale_grad,
                              clip_gradient=optimizer.clip_gradient, lr_mult=optimizer.lr_mult, wd_mult=optimizer.wd_mult)
        self._lambda_name = optimizer.lambda_name
        if state is not None:
            self._num_update, states = state
            self._optimizer.load_mxnet_state(states)

    def seed(self, number):
        """Seed the generators behind initial weights and dropout."""
        seed_everything(number)
        torch.manual_seed(number)

    def step(self, batch, seed):
        """One pass forward and backward and one update; the class probabilities (N, K) before it, as a NumPy array."""
        torch.manual_seed(seed)
        images, labels = self._tensors(batch)
        self._num_update += 1
        for group in self._optimizer.param_groups:
            group['lr'] = self._schedule(self._num_update)
        self._net.train()
        self._optimizer.zero_grad(set_to_none=True)
        logits = self._net(images)
        self._net.loss(logits, labels).backward()
        self._optimizer.step()
        return torch.softmax(logits.detach().float(), dim=1).cpu().numpy()

    @torch.no_grad()
    def predict(self, batch):
        """The class probabilities (N - pad, K) of a batch, by the moving statistics, as a NumPy array."""
        self._net.eval()
        images, _ = self._tensors(batch)
        return torch.softmax(self._net(images[:len(images) - batch.pad]).float(), dim=1).cpu().numpy()

    def settle(self):
        """Wait until every update has been carried out."""
        if self._device.type == 'cuda':
            torch.cuda.synchronize(self._device)

    def parameters(self):
        """(arg_params, aux_params), copies on the CPU."""
        return self._net.to_mxnet()

    def lambdas(self):
        """The scaling factors, dict from name to NumPy array."""
        return {name: parameter.detach().cpu().numpy().copy() for name, parameter in self._net.mxnet_parameters() if self._lambda_name in name}

    def optimizer_state(self):
        """(number of updates done, dict from parameter name to its state), as MXNetEngine's."""
        return self._num_update, self._optimizer.mxnet_state()

    def _tensors(self, batch):
        return (torch.from_numpy(array.asnumpy()).to(self._device) for array in (batch.data[0], batch.label[0]))
