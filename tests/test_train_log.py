"""The progress bar on a terminal: loss, structures alive, share of the MACs, time left; the log has none of it."""

import io
import logging

import numpy as np
import pytest

from train import log
from train.metrics import Tally
from train.report import alive_in_words

RECORD = {
    'lambda': {'block': {'alive': 5, 'total': 8}, 'neuron': {'alive': 40, 'total': 40}},
    'alive': {'macs': 930},
    'full': {'macs': 1000},
}


class Screen(io.StringIO):
    def __init__(self, is_terminal):
        super().__init__()
        self.isatty = lambda: is_terminal


class EveryBatch(log.tqdm.tqdm):
    """A bar that is drawn after every batch, however short."""

    def __init__(self, **options):
        super().__init__(mininterval=0, **options)


def trained(monkeypatch, is_terminal, alive):
    """What stderr shows of epoch 1 of 3: two of its four batches, a second each; every batch costs ln 2."""
    screen, clock = Screen(is_terminal), iter(range(1000))
    monkeypatch.setattr('sys.stderr', screen)
    monkeypatch.setattr(log.time, 'time', lambda: next(clock))
    monkeypatch.setattr(log.tqdm, 'tqdm', EveryBatch)
    tally = Tally()
    with log.Progress(1, 4, 0, 2, 50, 3, alive) as progress:
        for _ in range(2):
            tally.add(np.full((2, 2), 0.5), np.zeros(2))
            progress.batch_done(tally)
    return screen.getvalue()


@pytest.mark.parametrize('alive', [alive_in_words(RECORD), alive_in_words({})])
def test_the_bar_says_how_the_run_goes(monkeypatch, alive):
    shown = trained(monkeypatch, True, alive)
    assert 'loss 0.693' in shown
    assert ('45 of 48 structures, 93 % of the MACs' in shown) == bool(alive)
    assert ' left' in shown or '00:' in shown  # a narrow terminal cuts the last word


def test_there_is_no_bar_where_nobody_watches(monkeypatch, caplog):
    with caplog.at_level(logging.INFO):
        assert trained(monkeypatch, False, '') == ''
    assert not caplog.records


def test_the_time_left_is_that_of_all_epochs(monkeypatch):
    """Two of four batches took 20 s. Two of this epoch and four of the last one are left."""
    now = [100.0]
    monkeypatch.setattr(log.time, 'time', lambda: now[0])
    progress, tally = log.Progress(1, 4, 0, 2, 50, 3, 'x'), Tally()
    tally.add(np.full((2, 2), 0.5), np.zeros(2))
    now[0] += 20
    progress.batch_done(tally)
    progress.batch_done(tally)
    assert progress._state(tally) == 'loss 0.693, x, 01:00 left'
