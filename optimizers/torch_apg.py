"""The paper's optimizer in PyTorch: equations 10 to 12 for λ and the authors' NAG for everything else, over all
parameters at once; and the other rules.

    optimizer = APG(net.mxnet_parameters(), lr=0.1, gamma=0.01, wd=1e-4, rescale_grad=1 / batch_size)

The rules are those of ``optimizers.apg`` and ``optimizers.rules``, which write them out. Settings have the same names
and meaning; states convert to and from theirs.
"""

from collections import defaultdict
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Tuple, Union

import torch

from graphs.lambda_names import is_lambda
from graphs.scaled_parameters import LambdaEntries
from runtime import mx
from runtime.errors import CheckpointError, UserError


class APG(torch.optim.Optimizer):
    """Accelerated proximal gradient for parameters whose name contains ``lambda_name``, Nesterov momentum for the
    others.

    Parameters
    ----------
    named_parameters : pairs of MXNet's name and the ``torch.nn.Parameter``, as from ``TorchGraph.mxnet_parameters``.
    lr, gamma, momentum, wd, lambda_name, nonnegative, rescale_grad, clip_gradient : as for ``optimizers.apg.APG``.
    rule : a key of RULES, the name of what moves λ (for 'group-lasso', of what moves the weights of a structure).
    structures : for 'group-lasso', what ``graphs.scaled_parameters`` says of the network.
    lr_mult, wd_mult : dicts from names to factors of ``lr`` and ``wd``. As in MXNet, names that end in neither _weight
    nor _gamma are not decayed unless
        ``wd_mult`` says so; λ never is.

    ``bounds`` maps a λ to a tensor that |λ| must not exceed: where it is 0, λ is 0 and has no momentum.
    ``gamma_weights`` maps every λ to a tensor that γ is multiplied by. ``importance``, None or a dict, adds up (λ
    ∂G/∂λ)² for each λ while it is a dict.

    Parameters without a gradient are left alone. Each group's ``lr`` may be changed at any time, by a scheduler of
    PyTorch for example. It may be a tensor of no dimensions on the parameters' device: a step that was recorded as a
    CUDA graph then goes by whatever is in it when it is replayed.

    Raises UserError for γ < 0 or μ outside [0, 1).
    """

    def __init__(
        self,
        named_parameters: Iterable[Tuple[str, torch.nn.Parameter]],
        lr: Union[float, torch.Tensor] = 0.01,
        gamma: float = 0.01,
        momentum: float = 0.9,
        wd: float = 0.0,
        lambda_name: str = 'lambda',
        nonnegative: bool = True,
        rescale_grad: float = 1.0,
        clip_gradient: Optional[float] = None,
        lr_mult: Optional[Dict[str, float]] = None,
        wd_mult: Optional[Dict[str, float]] = None,
        rule: str = 'apg',
        structures: Optional[LambdaEntries] = None,
    ) -> None:
        if not gamma >= 0:
            raise UserError(f'gamma is {gamma}; the L1 penalty must be 0 or more')
        if not 0 <= momentum < 1:
            raise UserError(f'momentum is {momentum}; it must be at least 0 and below 1')
        lr_mult, wd_mult = lr_mult or {}, wd_mult or {}
        self._rule, self._structures = RULES[rule], structures or {}
        self.bounds: Dict[str, torch.Tensor] = {}
        self.gamma_weights: Dict[str, torch.Tensor] = {}
        self.importance: Optional[Dict[str, torch.Tensor]] = None
        groups: Dict[Tuple[str, float, float], Dict[str, List[Any]]] = defaultdict(lambda: {'params': [], 'names': []})
        for name, parameter in named_parameters:
            is_factor = is_lambda(name, lambda_name)
            decay = 0.0 if is_factor else wd * wd_mult.get(name, float(name.endswith(('_weight', '_gamma'))))
            kind = 'lambda' if is_factor else 'structure' if name in self._structures else 'weight'
            group = groups[kind, lr_mult.get(name, 1.0), decay]
            group['params'].append(parameter)
            group['names'].append(name)
        settings = [
            {**group, 'kind': kind, 'lr_mult': factor, 'wd': decay} for (kind, factor, decay), group in groups.items()
        ]
        super().__init__(
            settings,
            {
                'lr': lr,
                'gamma': gamma,
                'momentum': momentum,
                'nonnegative': nonnegative,
                'rescale_grad': rescale_grad,
                'clip_gradient': clip_gradient,
            },
        )

    @torch.no_grad()
    def step(self, closure: Optional[Callable[[], torch.Tensor]] = None) -> Optional[torch.Tensor]:
        """Move every parameter that has a gradient once; returns what ``closure``, which may compute the gradients,
        returns.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            moving = [
                (name, parameter)
                for name, parameter in zip(group['names'], group['params'])
                if parameter.grad is not None
            ]
            if moving:
                self._move(group, *zip(*moving))
        return loss

    def _move(self, group, names, parameters):
        gradients, eta = _gradients(parameters, group), group['lr'] * group['lr_mult']
        state = self._moving(parameters, group)
        if group['kind'] == 'weight':
            _move_weights(parameters, gradients, state, eta, group)
        elif group['kind'] == 'structure':
            for name, parameter, gradient, v in zip(names, parameters, gradients, state):
                _move_structures(parameter, gradient, v, eta, group, self._structures[name])
                self._keep_dead(parameter, v, self._structures[name])
        elif self._rule.moves_lambda:
            self._note_importance(names, parameters, gradients)
            self._rule.move(parameters, gradients, state, eta, {**group, 'gamma': self._gammas(names, group)})
            self._keep_within_bounds(names, parameters, state)

    def _gammas(self, names, group):
        """γ: one number for all λ, or a list of tensors, one for each λ."""
        if not self.gamma_weights:
            return group['gamma']
        return [group['gamma'] * self.gamma_weights[name] for name in names]

    def _note_importance(self, names, lambdas, gradients):
        if self.importance is not None:
            for name, lambda_, gradient in zip(names, lambdas, gradients):
                self.importance.setdefault(name, torch.zeros_like(lambda_)).add_((lambda_ * gradient) ** 2)

    def _keep_dead(self, weight, v, factors):
        for name, entries in factors.items():
            if name in self.bounds:
                entries = torch.as_tensor(entries, device=weight.device)
                is_free = (self.bounds[name].reshape(-1)[entries] > 0).reshape(-1, *[1] * (weight.dim() - 1))
                weight.mul_(is_free)
                v.mul_(is_free)

    def _keep_within_bounds(self, names, lambdas, v):
        for position, (name, lambda_) in enumerate(zip(names, lambdas)):
            bound = self.bounds.get(name)
            if bound is not None:
                lambda_.copy_(torch.minimum(torch.maximum(lambda_, -bound), bound) + 0.0)  # + 0 makes 0 of -0
                if v:
                    v[position].mul_(bound > 0)

    def mxnet_state(self) -> Dict[str, Any]:
        """The state of every parameter as ``optimizers.apg.APG`` keeps it, dict by name: v of a λ; [-m, 1] of a weight;
        None without one.
        """
        states: Dict[str, Any] = {}
        for group, name, parameter in self._named():
            if not self._has_state(group):
                states[name] = None
                continue
            moving = self.state[parameter].get('moving')
            moving = _array(torch.zeros_like(parameter) if moving is None else moving)
            # -m at a rate of 1 is exact; MXNet's rule rescales it when it goes on.
            states[name] = [-moving, 1.0] if group['kind'] == 'weight' else moving
        return states

    def load_mxnet_state(self, states: Dict[str, Any]) -> None:
        """Take over the state of every parameter from a dict by name, as ``mxnet_state`` returns it. Raises
        CheckpointError for one that does not fit.
        """
        for group, name, parameter in self._named():
            state = states.get(name)
            if state is None:
                self.state.pop(parameter, None)
                continue
            if isinstance(state, tuple):
                raise CheckpointError(
                    f'the optimizer state of {name} is in half precision, which --engine torch cannot resume from'
                )
            moving = -state[0].asnumpy() / state[1] if group['kind'] == 'weight' else state.asnumpy()
            if moving.shape != tuple(parameter.shape):
                raise CheckpointError(
                    f'the optimizer state of {name} has shape {moving.shape}, the parameter {tuple(parameter.shape)}'
                )
            self.state[parameter] = {'moving': torch.empty_like(parameter).copy_(torch.from_numpy(moving))}

    def _named(self):
        for group in self.param_groups:
            for name, parameter in zip(group['names'], group['params']):
                yield group, name, parameter

    def _has_state(self, group):
        if group['kind'] == 'lambda':
            return self._rule.has_state
        return group['momentum'] != 0 or group['kind'] == 'structure'

    def _moving(self, parameters, group):
        """v of each λ, m of each weight; none where there is no momentum to keep."""
        if not self._has_state(group):
            return []
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]['moving'] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return [self.state[parameter]['moving'] for parameter in parameters]


def _gradients(parameters, group):
    """∇G as the rule wants it: rescaled, clipped, with the decay; new tensors, or the parameters' own, which must not
    be written to.
    """
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
    torch._foreach_add_(z, lambdas)  # (10)
    soft = _soft_threshold(z, _times(group['gamma'], eta))
    torch._foreach_mul_(v, group['momentum'])
    torch._foreach_add_(v, soft)
    torch._foreach_sub_(v, lambdas)  # (11)
    torch._foreach_copy_(lambdas, soft)
    torch._foreach_add_(lambdas, v, alpha=group['momentum'])  # (12)
    if group['nonnegative']:
        torch._foreach_clamp_min_(lambdas, 0.0)


def _move_lambda_ista(lambdas, gradients, _, eta, group):
    """λ ← S(λ - η ∇G), see ``optimizers.rules.ISTA``."""
    z = torch._foreach_mul(gradients, -eta)
    torch._foreach_add_(z, lambdas)
    torch._foreach_copy_(lambdas, _soft_threshold(z, _times(group['gamma'], eta)))
    if group['nonnegative']:
        torch._foreach_clamp_min_(lambdas, 0.0)


def _move_lambda_subgradient(lambdas, gradients, m, eta, group):
    """Network slimming's, see ``optimizers.rules.SubGradient``."""
    gammas = group['gamma'] if isinstance(group['gamma'], list) else [group['gamma']] * len(lambdas)
    gradients = [gradient + gamma * torch.sign(lambda_) for gradient, gamma, lambda_ in zip(gradients, gammas, lambdas)]
    torch._foreach_mul_(m, group['momentum'])
    torch._foreach_add_(m, gradients)
    _add(lambdas, torch._foreach_add(gradients, m, alpha=group['momentum']), -eta)


def _move_structures(weight, gradient, v, eta, group, factors):
    """Equations 10 to 12 with the proximal step of the group's norm, see ``optimizers.rules.GroupLasso``."""
    shrunk = weight - eta * gradient
    for entries in sorted(
        factors.values(), key=lambda entries: -len(set(entries))
    ):  # of nested groups the inner first (Jenatton et al. 2011)
        parts = shrunk.reshape(len(set(entries)), -1)
        norms = parts.norm(dim=1, keepdim=True)
        shrunk = (
            parts * torch.clamp(1 - eta * group['gamma'] / norms.clamp(min=torch.finfo(parts.dtype).tiny), min=0.0)
        ).reshape(weight.shape)
    v.mul_(group['momentum']).add_(shrunk).sub_(weight)
    weight.copy_(shrunk + group['momentum'] * v)


class Rule(NamedTuple):
    """The λ rule: ``move(lambdas, gradients, states, eta, group)``, whether λ has a state, whether λ moves."""

    move: Optional[Callable]
    has_state: bool = True
    moves_lambda: bool = True


RULES = {
    'apg': Rule(_move_lambda),
    'ista': Rule(_move_lambda_ista, has_state=False),
    'subgradient': Rule(_move_lambda_subgradient),
    'group-lasso': Rule(None, has_state=False, moves_lambda=False),
}


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
    """S(z) = max(z - t, 0) + min(z + t, 0), as new tensors: exactly 0 from -t to t. The threshold may be a number, a
    tensor, or a list of tensors.
    """
    above, below = _shifted(z, _times(threshold, -1)), _shifted(z, threshold)
    torch._foreach_clamp_min_(above, 0.0)
    torch._foreach_clamp_max_(below, 0.0)
    torch._foreach_add_(above, below)
    return above


def _shifted(tensors, amount):
    """``tensors`` + ``amount``, as new tensors; ``_foreach_add`` would read the number out of a tensor, and wait for
    it.
    """
    if isinstance(amount, list):
        return torch._foreach_add(tensors, amount)
    return (
        [tensor + amount for tensor in tensors]
        if isinstance(amount, torch.Tensor)
        else torch._foreach_add(tensors, amount)
    )


def _times(gammas, factor):
    """γ, a number or a list of tensors, times a number or a tensor of no dimensions."""
    return [gamma * factor for gamma in gammas] if isinstance(gammas, list) else gammas * factor


def _clipped(tensors, bound):
    """Each of ``tensors`` with its values clipped to [-bound, bound], as new tensors."""
    clipped = torch._foreach_clamp_max(tensors, bound)
    torch._foreach_clamp_min_(clipped, -bound)
    return clipped


def _array(tensor):
    values = tensor.detach().cpu().contiguous().numpy()
    return mx.nd.array(values, dtype=values.dtype)
