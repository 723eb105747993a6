"""Ctrl-C and SIGTERM: a run stops after the current batch, and saves."""

import signal
from types import FrameType
from typing import Optional


class Interruption:
    """Keeps the number of the first SIGINT or SIGTERM within the block in ``signal``, so that the run can stop after
    the current batch. The second signal acts at once.
    """

    signal: Optional[int]

    def __enter__(self) -> 'Interruption':
        self.signal = None
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _note(self, number: int, frame: Optional[FrameType]) -> None:
        self.signal = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
