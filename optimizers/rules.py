"""Other rules that select structures, to compare with APG: ``--lambda-rule``.

Each is the optimizer APG with another step in the place of equations 10 to 12; weights that have no part in the
selection follow the authors' NAG under every rule. η is the learning rate, γ the weight of the penalty, μ the momentum,
G the loss, and S_a(z) = sign(z) max(|z| - a, 0).
"""

from typing import Any, Callable, Dict, Iterable, Optional, Union

import numpy as np

from graphs.scaled_parameters import LambdaEntries, scaled_parameters
from runtime import mx

from .apg import APG, State, clipped

nd = mx.nd


@mx.optimizer.register
class ISTA(APG):
    """Proximal gradient descent on λ without acceleration (ISTA; Beck & Teboulle 2009, equation 1.4)::

        λ ← S_ηγ(λ - η ∇G(λ)), then clipped at 0 from below

    Without momentum a step is 1 / (1 - μ) times as short as APG's in the long run, in the gradient and in γ alike. λ
    has no state.
    """

    @property
    def shrinkage_per_step(self) -> Optional[float]:
        return self.gamma

    def create_state(self, index: Union[int, str], weight: mx.nd.NDArray) -> State:
        return None if self.is_lambda(index) else super().create_state(index, weight)

    def _update_lambda(self, lambda_, grad, state, eta, gamma, gradient):
        nd.sgd_update(lambda_, grad, out=lambda_, lr=eta, wd=0, **gradient)
        lambda_ -= clipped(lambda_, eta * gamma)
        if self.nonnegative:
            nd.relu(lambda_, out=lambda_)


@mx.optimizer.register
class SubGradient(APG):
    """The L1 penalty by its sub-gradient, with the momentum of the weights: network slimming (Liu et al. 2017, equation
    1 and section 3)::

        g ← ∇G(λ) + γ sign(λ);    m ← μ m + g;    λ ← λ - η (g + μ m)

    λ oscillates around 0 and is exactly 0 only by chance, so nothing is dead without ``tools/strip_params.py
    --threshold``. λ may be negative. The state of λ is m.
    """

    def _update_lambda(self, lambda_, grad, m, eta, gamma, gradient):
        g = grad * gradient['rescale_grad']
        if gradient['clip_gradient'] > 0:
            g = nd.clip(g, -gradient['clip_gradient'], gradient['clip_gradient'])
        g += gamma * nd.sign(lambda_)
        m *= self.momentum
        m += g
        lambda_ -= eta * (g + self.momentum * m)


@mx.optimizer.register
class GroupLasso(APG):
    """Group lasso on the weights, with no λ in the loss (Wen et al. 2016, equation 3): the penalty is γ Σ ‖W_s‖₂ over
    the structures s.

    λ stays at 1, where it changes nothing; what it would have multiplied is W_s: the last convolution's weight of a
    block, or the slices of a batch normalisation's γ and of its β (two vectors, two norms). Wen et al. descend by
    sub-gradient and cut what is small; here equations 10 to 12 move W_s, with the proximal step of the norm (Yuan & Lin
    2006) in the place of S, so that a dead structure is exactly 0 and only the penalty differs from APG's::

        z = W - η (∇G(W) + wd W);   S_a(z) = z max(1 - a / ‖z‖₂, 0);   v ← S_ηγ(z) - W + μ v;   W ← S_ηγ(z) + μ v

    With γ = 0 this is the authors' NAG. A structure is dead when all of its W_s is 0; it may come back where its
    gradient is not 0. The state of a weight in a structure is v, of its shape.

    Parameters
    ----------
    structures : what ``graphs.scaled_parameters`` says of the network.
    **kwargs : those of ``APG``.
    """

    def __init__(self, structures: Optional[LambdaEntries] = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.structures = dict(structures or {})

    @property
    def shrinkage_per_step(self) -> Optional[float]:
        return None

    def magnitudes(self, lambdas: Iterable[str], read: Callable[[str], np.ndarray]) -> Dict[str, np.ndarray]:
        """‖W_s‖₂ of every structure s, in the shape of the λ that names it."""
        squares = {name: np.zeros(read(name).shape) for name in lambdas}
        for parameter, factors in self.structures.items():
            array = read(parameter).astype(np.float64)
            for name, entries in factors.items():
                np.add.at(squares[name].reshape(-1), entries, (array**2).reshape(len(entries), -1).sum(axis=1))
        return {name: np.sqrt(sums) for name, sums in squares.items()}

    def create_state(self, index: Union[int, str], weight: mx.nd.NDArray) -> State:
        if self.is_lambda(index):
            return None
        if self.parameter_name(index) in self.structures:
            return nd.zeros(weight.shape, weight.context, dtype=weight.dtype)
        return super().create_state(index, weight)

    def update(self, index: Union[int, str], weight: mx.nd.NDArray, grad: mx.nd.NDArray, state: State) -> None:
        factors = self.structures.get(self.parameter_name(index))
        if factors:
            self._update_structures(weight, grad, state, factors, self._rate(index), self._get_wd(index))
        elif not self.is_lambda(index):
            super().update(index, weight, grad, state)

    def _update_structures(self, weight, grad, v, factors, eta, wd):
        shrunk = nd.sgd_update(
            weight, grad, lr=eta, wd=wd, rescale_grad=self.rescale_grad, clip_gradient=self.clip_gradient or -1
        )
        for entries in sorted(
            factors.values(), key=lambda entries: -len(set(entries))
        ):  # of nested groups the inner first (Jenatton et al. 2011)
            shrunk = shrink_groups(shrunk, len(set(entries)), eta * self.gamma)
        v *= self.momentum
        v += shrunk - weight
        nd.elemwise_add(shrunk, self.momentum * v, out=weight)
        for name, entries in factors.items():
            if name in self.bounds:
                is_free = (self.bounds[name].asnumpy().reshape(-1)[entries] > 0).reshape(
                    (-1,) + (1,) * (weight.ndim - 1)
                )
                mask = nd.array(is_free, ctx=weight.context, dtype=weight.dtype)
                nd.broadcast_mul(weight, mask, out=weight)
                nd.broadcast_mul(v, mask, out=v)


def shrink_groups(array: mx.nd.NDArray, count: int, amount: float) -> mx.nd.NDArray:
    """``array`` with each of ``count`` equal parts along its first axis made shorter, as a vector, by ``amount``; 0
    where it was no longer than that.
    """
    parts = array.reshape((count, -1))
    # The squares of small numbers would be 0, so the largest number is divided out of them first.
    largest = nd.maximum(nd.max(nd.abs(parts), axis=1, keepdims=True), float(np.finfo(array.dtype).tiny))
    norms = largest * nd.sqrt(nd.sum(nd.broadcast_div(parts, largest) ** 2, axis=1, keepdims=True))
    return nd.broadcast_mul(parts, nd.relu(1 - amount / nd.maximum(norms, largest))).reshape(array.shape)


RULES = {'apg': APG, 'ista': ISTA, 'subgradient': SubGradient, 'group-lasso': GroupLasso}


def create(rule: str, symbol: mx.sym.Symbol, **settings: Any) -> APG:
    """The optimizer that selects structures of ``symbol`` by ``rule``, a key of RULES, with the settings of ``APG``."""
    if rule == 'group-lasso':
        settings['structures'] = scaled_parameters(symbol)
    optimizer = RULES[rule](sym=symbol, **settings)
    optimizer.rule = rule
    return optimizer
