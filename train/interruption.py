"""Ctrl-C and SIGTERM: a run stops after the batch in hand, and saves."""

import signal


class Interruption:
    """Turns the first SIGINT or SIGTERM into a wish to stop after the batch in hand; the second acts at once."""

    def __enter__(self):
        self.signal = None
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_):
        self._restore()

    def _note(self, number, frame):
        self.signal = number
        self._restore()

    def _restore(self):
        for number, handler in self._before.items():
            signal.signal(number, handler)
