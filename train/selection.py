"""What dies during a run and stays dead: ``--freeze-dead``, and a budget, ``--target-macs`` or ``--target-params``.

With a budget, the run has three phases. In the first epochs everything trains, by the plain method. Then, once an
epoch, the structures that contribute least for what they cost are chosen. In the first half of the next epoch their λ
fall linearly to 0, where they stay: a bound on λ falls, which is a proximal step too, that of the indicator of [0,
bound]. After a third of the epochs the target is reached; γ is 0 from there, and what is left trains on.

What contributes how much is measured by ``train.contribution``; ``train.choice`` chooses.
"""

from __future__ import annotations

import argparse
import logging
import math
from typing import Any, Callable, Dict, NamedTuple, Optional

import numpy as np

from graphs.alive import AliveCounter
from graphs.complexity import complexity
from graphs.lambdas import lambda_layout
from runtime import mx
from runtime.errors import UserError

from .choice import Arrays, Choice, Masks, costs_of, rows_to_keep
from .latency import latency_weights

# The parts of a run, as shares of its epochs: selection begins and ends here.
BEGIN, END = 0.05, 1 / 3
# The share of an epoch in which chosen λ fall to 0. In the rest of it the weights and moving statistics settle.
FADE = 0.5


class Schedule(NamedTuple):
    """Selection chooses at the end of the epochs ``begin`` - 1 to ``end`` - 2, and what is chosen dies in the epoch
    after; ``end`` epochs reach the target.
    """

    begin: int
    end: int

    def share(self, epoch: int, target: float) -> Optional[float]:
        """The share that must be left after what the end of ``epoch`` chooses has died, or None where nothing is
        chosen.
        """
        if not self.begin - 1 <= epoch <= self.end - 2:
            return None
        return 1 - (1 - target) * (epoch + 2 - self.begin) / (self.end - self.begin)


def schedule_of(num_epochs: int, begin: Optional[int] = None, end: Optional[int] = None) -> Schedule:
    """The ``Schedule`` of a run of ``num_epochs``. Raises UserError where they are too few."""
    begin = max(1, math.ceil(BEGIN * num_epochs)) if begin is None else begin
    end = max(begin + 1, math.ceil(END * num_epochs)) if end is None else end
    if end >= num_epochs:
        raise UserError(
            f'a budget needs more epochs than --num-epochs {num_epochs}: at least one before selection, '
            'one for selection and one after it'
        )
    return Schedule(begin, end)


NEVER = Schedule(0, 0)  # chooses nothing


class Selection:
    """Which structures of ``symbol``, the whole network, are dead for good, and which are dying.

    Parameters
    ----------
    args : the parsed command line.
    symbol : the whole network.
    data_shapes : dict from the name of the input to the shape of one image, (1, C, H, W).
    """

    def __init__(self, args: argparse.Namespace, symbol: mx.sym.Symbol, data_shapes: Dict[str, tuple]) -> None:
        self._target = args.target_macs or args.target_params
        self._cost = 'params' if args.target_params else 'macs'
        self.freezes = args.freeze_dead or bool(self._target)
        self._symbol, self._data_shapes = symbol, data_shapes
        self._gamma_weight = args.gamma_weight
        self._latency: Arrays = {}
        self.gamma = args.gamma if args.optimizer == 'apg' else 0.0
        self._kinds = {vector.name: vector.kind for vector in lambda_layout(symbol)}
        self._shapes = dict(zip(symbol.list_arguments(), symbol.infer_shape(**data_shapes)[0]))
        self._alive, self._full = AliveCounter(symbol, data_shapes), complexity(symbol, data_shapes)
        self.frozen = {name: np.zeros(self._shapes[name], bool) for name in self._kinds}
        self._dying: Arrays = {}
        # Validation accuracy after the last epoch in which everything was alive.
        self.accuracy_before: Optional[float] = None
        self._schedule = schedule_of(args.num_epochs) if self._target else NEVER
        if self._target:
            self._require_possible()

    @property
    def has_state(self) -> bool:
        """Whether a checkpoint must hold ``state()``."""
        return self.freezes or bool(self._latency)

    @property
    def has_budget(self) -> bool:
        """Whether the run ends at a target."""
        return bool(self._target)

    @property
    def is_fading(self) -> bool:
        """Whether some λ fall to 0 in this epoch."""
        return bool(self._dying)

    def is_over(self, epochs: int) -> bool:
        """Whether a budget is reached after ``epochs`` epochs, so that nothing more is to die."""
        return self.has_budget and epochs >= self._schedule.end

    def state(self) -> Dict[str, Any]:
        """What a checkpoint must hold, for JSON."""
        return {
            'frozen': {name: np.flatnonzero(mask).tolist() for name, mask in self.frozen.items() if mask.any()},
            'dying': {
                name: {str(place): float(start.flat[place]) for place in np.flatnonzero(np.isfinite(start))}
                for name, start in self._dying.items()
            },
            'gamma': self.gamma,
            'accuracy_before': self.accuracy_before,
            'latency': {name: array.tolist() for name, array in self._latency.items()},
        }

    def load(self, state: Dict[str, Any]) -> None:
        """Go on from what ``state`` returned."""
        for name, places in state['frozen'].items():
            self.frozen[name].reshape(-1)[places] = True
        for name, starts in state['dying'].items():
            self._dying[name] = np.full(self._shapes[name], np.inf)
            for place, start in starts.items():
                self._dying[name].flat[int(place)] = start
        self.gamma = state['gamma']
        self.accuracy_before = state.get('accuracy_before')
        self._latency = {name: np.array(values) for name, values in state.get('latency', {}).items()}

    def share_left(self, frozen: Optional[Masks] = None) -> float:
        """The share of MACs (or parameters) that is left without what is dead."""
        frozen = self.frozen if frozen is None else frozen
        found = self._alive({name: (~mask).astype(np.float32) for name, mask in frozen.items()})
        return getattr(found, self._cost) / getattr(self._full, self._cost)

    def wants_importance(self, epoch: int) -> bool:
        """Whether contributions must be measured in this epoch, because its end chooses."""
        return self.has_budget and self._schedule.share(epoch, self._target) is not None

    def bounds(self, progress: float) -> Dict[str, np.ndarray]:
        """What |λ| must not exceed when a share ``progress`` of the epoch is over: dict from name to array; only of λ
        with a bound.
        """
        found = {}
        for name, mask in self.frozen.items():
            bound = np.where(mask, 0.0, np.inf)
            if name in self._dying:
                falls = np.isfinite(self._dying[name])
                bound[falls] = self._dying[name][falls] * max(0.0, 1 - progress / FADE)
            if np.isfinite(bound).any():
                found[name] = bound.astype(np.float32)
        return found

    def gamma_weights(self) -> Optional[Dict[str, np.ndarray]]:
        """What γ of each λ is multiplied by: the cost of its structure over that of the most expensive one, by
        ``--gamma-weight`` in MACs or in measured time; None for ``none``. Time is measured at the first call, once in a
        run.
        """
        if self._gamma_weight == 'none':
            return None
        if self._gamma_weight == 'latency':
            self._latency = self._latency or latency_weights(self._symbol, self._data_shapes)
            return self._latency
        everything = [(name, place) for name, mask in self.frozen.items() for place in range(mask.size)]
        costs = costs_of(everything, self.frozen, self._kinds, self.share_left)
        most = max(costs.values())
        return {
            name: np.array([costs[name, place] / most for place in range(mask.size)]).reshape(mask.shape)
            for name, mask in self.frozen.items()
        }

    def end_epoch(self, epoch: int, lambdas: Arrays, measure: Callable[[], Arrays]) -> bool:
        """Freeze what is 0, and choose what dies next, by the contributions that ``measure()`` finds. Returns whether
        something more is dead for good.
        """
        if not self.freezes:
            return False
        before = sum(mask.sum() for mask in self.frozen.values())
        for name, values in lambdas.items():
            self.frozen[name] |= np.asarray(values).reshape(self._shapes[name]) == 0
        self._dying = {}
        share = self._schedule.share(epoch, self._target) if self.has_budget else None
        if share is not None:
            self._choose(epoch, share, lambdas, measure())
        if self.has_budget and epoch >= self._schedule.end - 1:
            self.gamma = 0.0
        return sum(mask.sum() for mask in self.frozen.values()) > before

    def report(self, epoch: int, accuracy: float) -> None:
        """Log where the budget stands after ``epoch``, and note the validation accuracy as long as nothing is dead."""
        if not any(mask.any() for mask in self.frozen.values()):
            self.accuracy_before = float(accuracy)
        if not self.has_budget:
            return
        logging.info(
            'Epoch[%d] Budget %.1f %% of the %s left, target %.1f %%, %d structures fade out in the next epoch, '
            'gamma=%g',
            epoch,
            100 * self.share_left(),
            'MACs' if self._cost == 'macs' else 'parameters',
            100 * self._target,
            sum(int(np.isfinite(start).sum()) for start in self._dying.values()),
            self.gamma,
        )

    def _require_possible(self) -> None:
        least = {name: np.ones(mask.shape, bool) for name, mask in self.frozen.items()}
        for name, mask in least.items():
            for row in rows_to_keep(self._kinds[name], mask):
                row[:1] = False
        smallest = self.share_left(least)
        if smallest > self._target:
            raise UserError(
                f'--target-{self._cost} {self._target:g} cannot be reached: the smallest possible share is '
                f'{math.ceil(1000 * smallest) / 1000:.3f}'
            )

    def _choose(self, epoch: int, share: float, lambdas: Arrays, contributions: Arrays) -> None:
        """Let structures die until ``share`` is left, or as near to it as can be without falling below the target; the
        last time, until no more than the target is left.
        """
        if self.share_left() <= share:
            return
        choice = Choice(self.frozen, self._kinds, self.share_left, contributions)
        is_last = epoch == self._schedule.end - 2
        for name, place in choice.last(self._target) if is_last else choice.next(share, self._target):
            if name not in self._dying:
                self._dying[name] = np.full(self._shapes[name], np.inf)
            self._dying[name].flat[place] = abs(np.asarray(lambdas[name]).flat[place])
