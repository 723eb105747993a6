"""The steps of a run that carry out ``Selection``: bounds on λ before a step, the contribution of each structure at the
end of an epoch, and a smaller network after it.
"""

from __future__ import annotations

import argparse
from typing import Any, Callable, Dict, Optional, Tuple

from runtime import mx

from .contribution import contributions
from .engines.interface import Batches
from .metrics import Tally
from .rebuilds import Rebuilds
from .resizing import ResizableEngine
from .selection import Selection


class SelectionSteps:
    """Carries out on ``engine`` what ``Selection`` decides.

    Parameters
    ----------
    args : the parsed command line.
    symbol : the whole network.
    one_image : dict from the name of the input to the shape of one image, (1, C, H, W).
    engine : of the run.
    train_data : its training batches; some of them are used to measure what structures contribute.
    make_tally : returns a fresh ``Tally``.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        symbol: mx.sym.Symbol,
        one_image: Dict[str, Tuple[int, ...]],
        engine: ResizableEngine,
        train_data: Batches,
        make_tally: Callable[[], Tally],
    ) -> None:
        self._args, self._symbol, self._engine, self._train_data = args, symbol, engine, train_data
        self._make_tally = make_tally
        self._selection = Selection(args, symbol, one_image)
        self._rebuilds = Rebuilds(engine, symbol, one_image)

    @property
    def has_budget(self) -> bool:
        """Whether the run ends at a target."""
        return self._selection.has_budget

    @property
    def accuracy_before(self) -> Optional[float]:
        """Validation accuracy after the last epoch in which everything was alive; None before the first one."""
        return self._selection.accuracy_before

    def state(self) -> Optional[Dict[str, Any]]:
        """What a checkpoint must hold; None where nothing is frozen or measured."""
        if not self._selection.has_state:
            return None
        return {**self._selection.state(), 'rebuilt_without': self._rebuilds.state()}

    def resume(self, state: Optional[Dict[str, Any]], epoch: int) -> None:
        """Go on from what ``state`` returned, after ``epoch`` epochs."""
        if state:
            self._selection.load(state)
            if self._args.shrink:
                # Older checkpoints have no ``rebuilt_without``: the network was then rebuilt after every death.
                removed = state.get('rebuilt_without', state['frozen'])
                self._rebuilds.load(epoch, removed, self._selection.frozen, self._selection.is_over(epoch))

    def apply(self, batch: int) -> None:
        """Set the bounds on λ and γ in the engine, as they are before ``batch`` of an epoch."""
        if not self._selection.freezes and self._args.gamma_weight == 'none':
            return
        self._set_bounds(batch)
        self._engine.set_gamma(self._selection.gamma, self._selection.gamma_weights())

    def begin_epoch(self, epoch: int) -> None:
        """Measure importance in ``epoch``, if structures are chosen by it at the end."""
        self._engine.note_importance(self._selection.wants_importance(epoch))

    def before_step(self, batch: int) -> None:
        """Lower the bounds on the λ that fall to 0 in this epoch."""
        if self._selection.is_fading:
            self._set_bounds(batch + 1)

    def end_epoch(self, epoch: int) -> bool:
        """Freeze every λ that is 0 and choose the structures that die next. True if any has died for good."""
        return self._selection.end_epoch(epoch, self._engine.lambdas(), lambda: self._contributions(epoch))

    def report(self, epoch: int, accuracy: float, images_per_second: float) -> None:
        """Log how far the selection has come after ``epoch``, and what the last rebuild did to the speed."""
        self._rebuilds.measured(epoch, images_per_second)
        self._selection.report(epoch, accuracy)

    def after_epoch(self, epochs: int) -> None:
        """Prepare the next epoch, after ``epochs`` of them: rebuild the network if it pays, and set bounds and γ."""
        if self._args.shrink and epochs < self._args.num_epochs:
            self._rebuilds.rebuild_if_it_pays(epochs, self._selection.frozen, self._selection.is_over(epochs))
        self.apply(batch=0)

    def _set_bounds(self, batch: int) -> None:
        self._engine.set_bounds(self._selection.bounds(batch / len(self._train_data)))

    def _contributions(self, epoch: int) -> Dict[str, Any]:
        self._train_data.set_epoch(epoch)
        return contributions(
            self._engine,
            self._symbol,
            self._selection.frozen,
            self._train_data,
            len(self._train_data),
            self._make_tally,
        )
