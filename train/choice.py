"""Which structures die next, so that a share of the network is left: those that contribute least for what they cost."""

from __future__ import annotations

import itertools
from typing import Callable, Dict, List, Tuple

import numpy as np

# Of so many structures all sets are compared when the last ones are chosen: 255 of them.
FEW = 8

# A structure: the name of its λ, and its place in it, counted through. By name of λ: numbers, and what is dead.
Structure = Tuple[str, int]
Arrays = Dict[str, np.ndarray]
Masks = Dict[str, np.ndarray]


class Choice:
    """Chooses structures that are alive.

    Parameters
    ----------
    frozen : dict from name of λ to boolean array: True where a structure is dead for good.
    kinds : dict from name of λ to ``block``, ``group`` or ``neuron``.
    share_left : the share of the network that is left without the structures of a mask like ``frozen``.
    contributions : dict from name of λ to what each structure contributes to the loss.
    """

    def __init__(
        self, frozen: Masks, kinds: Dict[str, str], share_left: Callable[[Masks], float], contributions: Arrays
    ) -> None:
        self._frozen, self._kinds, self._share_left = frozen, kinds, share_left
        self._contributions = {
            name: np.asarray(contributions[name], np.float64).reshape(mask.shape) for name, mask in frozen.items()
        }

    def next(self, share: float, target: float) -> List[Structure]:
        """The structures of the least contribution per cost without which ``share`` is left, or as near to it as can
        be without falling below ``target``.
        """
        order, low, high = self._ordered(share)
        is_nearer = share - self._left(order[:high]) < self._left(order[:low]) - share
        return order[: high if is_nearer and self._left(order[:high]) >= target else low]

    def last(self, target: float) -> List[Structure]:
        """Structures without which no more than ``target`` is left. Of few structures, those are chosen that contribute
        least together, whatever they cost.
        """
        order, _, high = self._ordered(target)
        return self._least_needed(order, target) if len(order) <= FEW else self._without_needless(order[:high], target)

    def _ordered(self, share):
        """The structures that may die in their order, a number of them without which more than ``share`` is left, and
        the smallest number without which no more is left.
        """
        order = self._order()
        low, high = 0, len(order)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._left(order[:middle]) <= share else (middle, high)
        return order, low, high

    def _left(self, structures: List[Structure]) -> float:
        """The share that is left without these (name, place) too."""
        frozen = {name: mask.copy() for name, mask in self._frozen.items()}
        for name, place in structures:
            frozen[name].flat[place] = True
        return self._share_left(frozen)

    def _least_needed(self, order: List[Structure], share: float) -> List[Structure]:
        """Those of ``order`` whose contributions have the smallest sum, of all sets without which no more than
        ``share`` is left; of equal ones the set that leaves most. All of ``order`` where no set is enough.
        """

        def rank(structures):
            effects = (self._contributions[name].flat[place] for name, place in structures)
            return sum(max(0.0, float(effect)) for effect in effects), -left[structures]

        sets = itertools.chain.from_iterable(itertools.combinations(order, size) for size in range(1, len(order) + 1))
        left = {structures: self._left(list(structures)) for structures in sets}
        return list(min((one for one in left if left[one] <= share), key=rank, default=order))

    def _without_needless(self, chosen: List[Structure], share: float) -> List[Structure]:
        """``chosen`` without those that the target does not need, the most important first; at most 64 are tried."""
        kept = list(chosen)
        for candidate in list(reversed(chosen))[1:65]:
            others = [one for one in kept if one != candidate]
            if self._left(others) <= share:
                kept = others
        return kept

    def _order(self) -> List[Structure]:
        """(name, place) of every structure that may die, the least contribution per cost first."""
        ranked = []
        for name, mask in self._frozen.items():
            spared = set()
            places = np.arange(mask.size).reshape(mask.shape)
            for row in rows_to_keep(self._kinds[name], places):
                alive = row[~mask.reshape(-1)[row]]
                if len(alive):
                    spared.add(int(alive[np.argmax(self._contributions[name].flat[alive])]))
            ranked += [(name, int(place)) for place in np.flatnonzero(~mask) if int(place) not in spared]
        costs = costs_of(ranked, self._frozen, self._kinds, self._share_left)
        score = {
            (name, place): self._contributions[name].flat[place] / costs[name, place] if costs[name, place] else np.inf
            for name, place in ranked
        }
        return sorted((one for one in ranked if np.isfinite(score[one])), key=lambda one: (score[one], one))


def rows_to_keep(kind: str, array: np.ndarray) -> List[np.ndarray]:
    """The parts of a λ of which one structure must stay: a vector of channels, a row of groups; none of blocks, which
    have a shortcut.
    """
    if kind == 'block':
        return []
    return list(array) if kind == 'group' and array.ndim > 1 else [array.reshape(-1)]


def costs_of(
    structures: List[Structure], frozen: Masks, kinds: Dict[str, str], share_left: Callable[[Masks], float]
) -> Dict[Structure, float]:
    """What each structure costs now, as a share of the network: of a block measured alone, of channels and groups by
    one of each vector. See ``Choice`` for the other parameters.
    """
    left, known, costs = share_left(frozen), {}, {}
    for name, place in structures:
        key = (name, place) if kinds[name] == 'block' else name
        if key not in known:
            without = {other: mask.copy() for other, mask in frozen.items()}
            without[name].flat[place] = True
            known[key] = left - share_left(without)
        costs[name, place] = known[key]
    return costs
