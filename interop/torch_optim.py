"""The paper's optimizer in PyTorch: equations 10 to 12 for λ and the authors' NAG for everything else, over all parameters at once.

    optimizer = APG(net.mxnet_parameters(), lr=0.1, gamma=0.01, wd=1e-4, rescale_grad=1 / batch_size)

The rules are those of ``optimizers.apg``, which writes them out; settings have the same names and meaning, and states convert to and from its.
"""
from collections import defaultdict

import torch

from runtime import mx
from runtime.errors import CheckpointError, UserError


class APG(torch.optim.Optimizer):
    """Accelerated proximal gradient for parameters whose name contains ``lambda_name``, Nesterov momentum for the others.

    Parameters
    ----------
    named_parameters : pairs of MXNet's name and the ``torch.nn.Parameter``, as from ``TorchGraph.mxnet_parameters``.
    lr, gamma, momentum, wd, lambda_name, nonnegative, rescale_grad, clip_gradient : as for ``optimizers.apg.APG``.
    lr_mult, wd_mult : dicts from names to factors of ``lr`` and ``wd``. As in MXNet, names that end in neither _weight nor _gamma are not decayed unless
        ``wd_mult`` says so; λ never is.

    Parameters without a gradient are left alone. Each group's ``lr`` may be changed at any time, by a scheduler of PyTorch for example. It may be a tensor of
    no dimensions on the parameters' device: a step that was recorded as a CUDA graph then goes by whatever is in it when it is replayed.

    Raises UserError for γ < 0 or μ outside [0, 1).
    """

    def __init__(self, named_parameters, lr=0.01, gamma=0.01, momentum=0.9, wd=0., lambda_name='lambda', nonnegative=True, rescale_grad=1.,
                 clip_gradient=None, lr_mult=None, wd_mult=None):
        if not gamma >= 0:
            raise UserError(f'gamma is {gamma}; the L1 penalty must be 0 or more')
        if not 0 <= momentum < 1:
            raise UserError(f'momentum is {momentum}; it must be at least 0 and below 1')
        lr_mult, wd_mult = lr_mult or {}, wd_mult or {}
        groups = defaultdict(lambda: {'params': [], 'names': []})
        for name, parameter in named_parameters:
            is_lambda = lambda_name in name
            decay = 0. if is_lambda else wd * wd_mult.get(name, float(name.endswith(('_weight', '_gamma'))))
            group = groups[is_lambda, lr_mult.get(name, 1.), decay]
            group['params'].append(parameter)
            group['names'].append(name)
        settings = [{**group, 'is_lambda': is_lambda, 'lr_mult': factor, 'wd': decay} for (is_lambda, factor, decay), group in groups.items()]
        super().__init__(settings, {'lr': lr, 'gamma': gamma, 'momentum': momentum, 'nonnegative': nonnegative, 'rescale_grad': rescale_grad,
                                    'clip_gradient': clip_gradient})

    @torch.no_grad()
    def step(self, closure=None):
        """Move every parameter that has a gradient once; returns what ``closure``, which may compute the gradients, returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group['params'] if parameter.grad is not None]
            if parameters:
                move = _move_lambda if group['is_lambda'] else _move_weights
                move(parameters, _gradients(parameters, group), self._moving(parameters, group), group['lr'] * group['lr_mult'], group)
        return loss

    def mxnet_state(self):
        """The state of every parameter as ``optimizers.apg.APG`` keeps it, dict by name: v of a λ; [-η m, η] of a weight; None without momentum."""
        states = {}
        for group, name, parameter in self._named():
            eta = float(group['lr']) * group['lr_mult'] or 1.
            if not group['is_lambda'] and group['momentum'] == 0:
                states[name] = None
                continue
            moving = _array(self.state[parameter].get('moving', torch.zeros_like(parameter)))
            states[name] = moving if group['is_lambda'] else [-eta * moving, eta]
        return states

    def load_mxnet_state(self, states):
        """Take over the state of every parameter from a dict by name, as ``mxnet_state`` returns it. Raises CheckpointError for one that does not fit."""
        for group, name, parameter in self._named():
            state = states.get(name)
            if state is None:
                self.state.pop(parameter, None)
                continue
            if isinstance(state, tuple):
                raise CheckpointError(f'the optimizer state of {name} is one of half precision, which this engine does not go on from')
            moving = state.asnumpy() if group['is_lambda'] else -state[0].asnumpy() / state[1]
            if moving.shape != tuple(parameter.shape):
                raise CheckpointError(f'the optimizer state of {name} has shape {moving.shape}, the parameter {tuple(parameter.shape)}')
            self.state[parameter] = {'moving': torch.empty_like(parameter).copy_(torch.from_numpy(moving))}

    def _named(self):
        for group in self.param_groups:
            for name, parameter in zip(group['names'], group['params']):
                yield group, name, parameter

    def _moving(self, parameters, group):
        """v of each λ, m of each weight; none where there is no momentum to keep."""
        if group['momentum'] == 0 and not group['is_lambda']:
            return []
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]['moving'] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return [self.state[parameter]['moving'] for parameter in parameters]


def _gradients(parameters, group):
    """∇G as the rule wants it: rescaled, clipped, with the decay; new tensors, or the parameters' own, which must not be written to."""
    gradients = [parameter.grad for parameter in parameters]
    if group['rescale_grad'] != 1:
        gradients = torch._foreach_mul(gradients, group['rescale_grad'])
    if group['clip_gradient'] is not None:
        gradients = _clipped(gradients, group['clip_gradient'])
    if group['wd'] != 0:
        gradients = torch._foreach_add(gradients, parameters, alpha=group['wd'])
    return gradients


def _move_lambda(lambdas, gradients, v, eta, group):
    """Equations 10 to 12."""
    z = torch._foreach_mul(gradients, -eta)
    torch._foreach_add_(z, lambdas)                                         # (10)
    soft = _soft_threshold(z, eta * group['gamma'])
    torch._foreach_mul_(v, group['momentum'])
    torch._foreach_add_(v, soft)
    torch._foreach_sub_(v, lambdas)                                         # (11)
    torch._foreach_copy_(lambdas, soft)
    torch._foreach_add_(lambdas, v, alpha=group['momentum'])                # (12)
    if group['nonnegative']:
        torch._foreach_clamp_min_(lambdas, 0.)


def _move_weights(weights, gradients, m, eta, group):
    """The authors' NAG: the learning rate stands outside the momentum."""
    if m:
        torch._foreach_mul_(m, group['momentum'])
        torch._foreach_add_(m, gradients)
        _add(weights, m, -eta * group['momentum'])
    _add(weights, gradients, -eta)


def _add(tensors, others, factor):
    """Add ``factor`` times ``others`` to ``tensors``. PyTorch scales as it adds, but by a number only."""
    if isinstance(factor, torch.Tensor):
        others, factor = torch._foreach_mul(others, factor), 1
    torch._foreach_add_(tensors, others, alpha=factor)


def _soft_threshold(z, threshold):
    """S(z) = max(z - t, 0) + min(z + t, 0), as new tensors: exactly 0 from -t to t. The threshold may be a number or a tensor."""
    above, below = _shifted(z, -threshold), _shifted(z, threshold)
    torch._foreach_clamp_min_(above, 0.)
    torch._foreach_clamp_max_(below, 0.)
    torch._foreach_add_(above, below)
    return above


def _shifted(tensors, amount):
    """``tensors`` + ``amount``, as new tensors; ``_foreach_add`` would read the number out of a tensor, and wait for it."""
    return [tensor + amount for tensor in tensors] if isinstance(amount, torch.Tensor) else torch._foreach_add(tensors, amount)


def _clipped(tensors, bound):
    """Each of ``tensors`` with its values clipped to [-bound, bound], as new tensors."""
    clipped = torch._foreach_clamp_max(tensors, bound)
    torch._foreach_clamp_min_(clipped, -bound)
    return clipped


def _array(tensor):
    values = tensor.detach().cpu().contiguous().numpy()
    return mx.nd.array(values, dtype=values.dtype)
