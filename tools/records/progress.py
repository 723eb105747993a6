"""The progress of a tool: a bar on a terminal, elsewhere a line of the log each minute."""

import logging
import sys
import time

import tqdm

SECONDS_BETWEEN_LINES = 60


class Progress:
    """A context that counts images up to ``total``, of which ``done`` were finished before."""

    def __init__(self, total: int, done: int = 0) -> None:
        self.done = done
        self._total, self._first = total, done
        self._begun = self._said = time.monotonic()
        self._bar = tqdm.tqdm(total=total, initial=done, unit='image', disable=not sys.stderr.isatty())

    def __enter__(self) -> 'Progress':
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def add(self, images: int) -> None:
        """Count ``images`` more."""
        self.done += images
        self._bar.update(images)
        now = time.monotonic()
        if self._bar.disable and (now - self._said > SECONDS_BETWEEN_LINES or self.done == self._total):
            logging.info(
                '%d of %d images\tSpeed: %.2f samples/sec',
                self.done,
                self._total,
                (self.done - self._first) / max(now - self._begun, 1e-9),
            )
            self._said = now
