"""Accelerated proximal gradient for λ and Nesterov momentum for the weights, in one pass: section 3.3 of the paper.

For a scaling factor, with S_a(z) = sign(z) max(|z| - a, 0), learning rate η and the gradient taken at λ, which is what
is stored::

    (10)   z = λ - η ∇G(λ)
    (11)   v ← S_ηγ(z) - λ + μ v
    (12)   λ ← S_ηγ(z) + μ v

after which the authors clip λ at 0 from below. For any other parameter w, the authors' NAG has the learning rate
outside the momentum::

    g ← ∇G + wd w
    m ← μ m + g
    w ← w - η (g + μ m)
"""

import warnings
from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple, Union

import numpy as np

from graphs.lambda_names import is_lambda
from runtime import mx
from runtime.errors import TrainingError, UserError

from .stopping import stops_training

nd = mx.nd
# v of a λ, [b, η] of a weight, or None: see ``APG``.
State = Union[None, mx.nd.NDArray, List[Any]]


@mx.optimizer.register
class APG(mx.optimizer.Optimizer):
    """The optimizer of Sparse Structure Selection; ``mx.optimizer.create('apg', ...)``, or by the authors' name
    ``'apgnag'``.

    Parameters
    ----------
    gamma : weight γ of the L1 penalty on λ, at least 0.
    momentum : μ in [0, 1), shared by λ and the weights.
    lambda_name : a parameter whose name contains this is a scaling factor. It has no weight decay, whatever ``wd``
    says. nonnegative : clip λ at 0 from below after equation 12, as the authors do. v is not clipped.
    first_rate_late : the first parameter takes each change of the learning rate one update late, as in the authors'
    code, which reads the rate before it counts the update.
    **kwargs : those of ``mx.optimizer.Optimizer`` (``learning_rate``, ``wd``, ``rescale_grad``, ``clip_gradient``,
    ``multi_precision``, ...).

    ``bounds`` maps a λ to an NDArray that |λ| must not exceed: where it is 0, λ is 0 and has no momentum.
    ``gamma_weights`` maps every λ to an NDArray that γ is multiplied by. ``importance``, None or a dict, adds up (λ
    ∂G/∂λ)² for each λ while it is a dict.

    State of a scaling factor: v, of its shape. State of a weight: [b, η], where b = -η m is the momentum in the form
    that MXNet's fused kernel keeps, and η the learning rate it is scaled by; None without momentum. In multi precision:
    (the float32 master copy, that state).

    Raises
    ------
    UserError for γ < 0, μ outside [0, 1) or a sparse gradient; TrainingError when an update's key leads to no parameter
    name.
    """

    rule = 'apg'  # the name of what moves λ, see optimizers.rules

    # It does not derive from NAG or SGD: those make the Updater pass over update().
    def __init__(
        self,
        gamma: float = 0.01,
        momentum: float = 0.9,
        lambda_name: str = 'lambda',
        nonnegative: bool = True,
        first_rate_late: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not gamma >= 0:
            raise UserError(f'gamma is {gamma}; the L1 penalty must be 0 or more')
        if not 0 <= momentum < 1:
            raise UserError(f'momentum is {momentum}; it must be at least 0 and below 1')
        self.gamma = gamma
        self.momentum = momentum
        self.lambda_name = lambda_name
        self.nonnegative = nonnegative
        self.first_rate_late = first_rate_late
        self.bounds: Dict[str, mx.nd.NDArray] = {}
        self.gamma_weights: Dict[str, mx.nd.NDArray] = {}
        self.importance: Optional[Dict[str, mx.nd.NDArray]] = None
        self._scratch = Scratch()
        self._may_warn = True

    def parameter_name(self, index: Union[int, str]) -> str:
        """The parameter's name behind an update's key: a name itself (update on a kvstore), or an int that Module or
        gluon.Trainer has explained.
        """
        if isinstance(index, str):
            return index
        if index in self.param_dict:
            return self.param_dict[index].name
        if index in self.idx2name:
            return self.idx2name[index]
        raise TrainingError(
            f'APG does not know the name of parameter {index!r}, by which it recognises scaling factors: create the '
            'optimizer with param_idx2name={index: name}, or use names as keys'
        )

    def is_lambda(self, index: Union[int, str]) -> bool:
        """Whether an update's key belongs to a scaling factor."""
        return is_lambda(self.parameter_name(index), self.lambda_name)

    @property
    def shrinkage_per_step(self) -> Optional[float]:
        """How much a step shrinks a λ without a gradient, in the long run and in units of η: γ / (1 - μ). None where
        the penalty is not on λ.
        """
        return self.gamma / (1 - self.momentum)

    def magnitudes(self, lambdas: Iterable[str], read: Callable[[str], np.ndarray]) -> Dict[str, np.ndarray]:
        """Magnitude of each structure, by the name of its λ; 0 means removable. Here it is λ itself. ``read(name)``
        gives a parameter as a NumPy array.
        """
        return {name: read(name) for name in lambdas}

    @stops_training
    def create_state_multi_precision(self, index: Union[int, str], weight: mx.nd.NDArray) -> Any:
        return super().create_state_multi_precision(index, weight)

    def create_state(self, index: Union[int, str], weight: mx.nd.NDArray) -> State:
        if self.is_lambda(index):
            return nd.zeros(weight.shape, weight.context, dtype=weight.dtype)
        if self.momentum == 0:
            return None
        return [nd.zeros(weight.shape, weight.context, dtype=weight.dtype), 1.0]

    @stops_training
    def update_multi_precision(
        self, index: Union[int, str], weight: mx.nd.NDArray, grad: mx.nd.NDArray, state: Any
    ) -> None:
        if isinstance(grad, nd.sparse.BaseSparseNDArray):
            raise UserError(
                f'the gradient of {self.parameter_name(index)} is {grad.stype}; APG moves dense gradients only: leave '
                'out sparse_grad'
            )
        if not (self.multi_precision and weight.dtype == np.float16):
            self.update(index, weight, grad, state)
            return
        master, narrow = state
        wide_grad = self._scratch.like(master, 'gradient')
        nd.cast(grad, dtype='float32', out=wide_grad)
        self.update(index, master, wide_grad, narrow)
        nd.cast(master, dtype='float16', out=weight)

    def _warn_without_lambda(self):
        """Say once that nothing will be selected: gluon.Trainer explains its parameters before the first step."""
        names = [parameter.name for parameter in self.param_dict.values()]
        if self._may_warn and self.gamma and names and not any(is_lambda(name, self.lambda_name) for name in names):
            warnings.warn(
                f'none of the {len(names)} parameters that APG trains has {self.lambda_name!r} in its name, so nothing '
                'will be removed; add λ by symbols.blocks.scaled_block, or set gamma to 0',
                stacklevel=2,
            )
        self._may_warn = False

    def update(self, index: Union[int, str], weight: mx.nd.NDArray, grad: mx.nd.NDArray, state: State) -> None:
        self._warn_without_lambda()
        eta = self._rate(index)
        gradient = {'rescale_grad': self.rescale_grad, 'clip_gradient': self.clip_gradient or -1}
        if self.is_lambda(index):
            name = self.parameter_name(index)
            self._note_importance(name, weight, grad)
            self._update_lambda(weight, grad, state, eta, self._gamma_of(name, weight), gradient)
            self._keep_within_bound(name, weight, state)
        elif state is None:
            nd.sgd_update(weight, grad, out=weight, lr=eta, wd=self._get_wd(index), **gradient)
        else:
            self._update_weight(weight, grad, state, eta, self._get_wd(index), gradient)

    def _rate(self, index):
        """Count an update of a parameter; the learning rate η of it."""
        if not self.first_rate_late:
            self._update_count(index)
            return self._get_lr(index)
        # The rate goes by the count of the parameter that was updated most often. So the first one reads that of the
        # step before, and all others read that of this step.
        eta = self._get_lr(index)
        self._update_count(index)
        return eta

    def _gamma_of(self, name, lambda_):
        """γ of a λ: a number, or an NDArray of its shape."""
        weights = self.gamma_weights.get(name)
        return self.gamma if weights is None else self.gamma * weights.as_in_context(lambda_.context)

    def _note_importance(self, name, lambda_, grad):
        if self.importance is not None:
            effect = (lambda_ * grad * self.rescale_grad) ** 2
            known = self.importance.get(name)
            self.importance[name] = effect if known is None else known + effect.as_in_context(known.context)

    def _keep_within_bound(self, name, lambda_, state):
        bound = self.bounds.get(name)
        if bound is None:
            return
        bound = bound.as_in_context(lambda_.context)
        clipped(lambda_, bound, out=lambda_)
        lambda_ += 0  # makes 0 of -0
        if isinstance(state, nd.NDArray):
            state *= bound > 0

    def _update_lambda(self, lambda_, grad, v, eta, gamma, gradient):
        """Equations 10 to 12."""
        z, excess = self._scratch.like(lambda_, 'z'), self._scratch.like(lambda_, 'excess')
        nd.sgd_update(lambda_, grad, out=z, lr=eta, wd=0, **gradient)  # (10)
        clipped(z, eta * gamma, out=excess)
        soft = nd.elemwise_sub(z, excess, out=z)  # S_ηγ(z) = z - clip(z, -ηγ, ηγ)
        v *= self.momentum
        v += nd.elemwise_sub(soft, lambda_, out=excess)  # (11); the small difference first, which is exact
        v.copyto(lambda_)
        lambda_ *= self.momentum
        lambda_ += soft  # (12)
        if self.nonnegative:
            nd.relu(lambda_, out=lambda_)

    def _update_weight(self, weight, grad, state, eta, wd, gradient):
        """The NAG rule by MXNet's fused kernel, whose b = -η m has to be rescaled when η changes."""
        if eta not in (0, state[1]):
            state[0] *= eta / state[1]
            state[1] = eta
        b, scaled_by = state
        # The kernel takes the decay in the momentum from its output: written over the weight, that would be the weight
        # after the update.
        out = weight if wd == 0 and eta != 0 else self._scratch.like(weight, 'z')
        nd.nag_mom_update(weight, grad, b, out=out, lr=scaled_by, momentum=self.momentum, wd=wd, **gradient)
        if out is not weight and eta != 0:  # at η = 0 the momentum moves on, and the weight stays
            out.copyto(weight)

    def __getstate__(self) -> Dict[str, Any]:
        # gluon.Trainer explains its keys by parameters, which are not pickled: a parameter server must know the names
        # without them.
        names = {index: parameter.name for index, parameter in self.param_dict.items()}
        return {**super().__getstate__(), 'idx2name': {**self.idx2name, **names}}


def clipped(
    array: mx.nd.NDArray, bound: Union[float, mx.nd.NDArray], out: Optional[mx.nd.NDArray] = None
) -> mx.nd.NDArray:
    """``array`` clipped to [-bound, bound]; the bound is a number, or an NDArray of the same shape."""
    if isinstance(bound, nd.NDArray):
        return nd.broadcast_maximum(nd.broadcast_minimum(array, bound), -bound, out=out)
    return nd.clip(array, -bound, bound, out=out)


@mx.optimizer.register
class APGNAG(APG):
    """APG under the name that the authors' scripts create it by."""


class Scratch:
    """Buffers that hold an intermediate result of any shape: one per device, type and purpose, as large as the largest
    array that asked for it.
    """

    def __init__(self) -> None:
        self._buffers: Dict[tuple, mx.nd.NDArray] = {}
        self._views: Dict[tuple, mx.nd.NDArray] = {}

    def like(self, array: mx.nd.NDArray, purpose: str) -> mx.nd.NDArray:
        """An NDArray of the shape, type and device of ``array``, its contents undefined."""
        place = (purpose, array.context, array.dtype)
        view = place + (array.shape,)
        if view not in self._views:
            if place not in self._buffers or self._buffers[place].size < array.size:
                self._buffers[place] = nd.empty((array.size,), array.context, array.dtype)
                self._views = {known: kept for known, kept in self._views.items() if known[:3] != place}
            self._views[view] = self._buffers[place][: array.size].reshape(array.shape)
        return self._views[view]

    def __reduce__(self) -> Tuple[type, Tuple[()]]:
        # What is pickled with an optimizer is an empty one.
        return Scratch, ()
