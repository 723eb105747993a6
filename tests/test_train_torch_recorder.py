"""The order in which a card would be spoken to, seen by a stand-in for ``torch.cuda``: there is none where the tests
run.
"""

import contextlib

import pytest

torch = pytest.importorskip('torch')

from train.engines.torch_replay import CudaRecorder, Replayed  # noqa: E402  (needs PyTorch)


class Card:
    """Streams by name, and what was done on which, in order."""

    def __init__(self, monkeypatch, fails=False):
        self.said, self.current, self.fails, card = [], 'default', fails, self

        class Stream:
            def __init__(self, name):
                self.name = name

            def wait_stream(self, other):
                card.said.append(f'{self.name} waits for {other.name}')

        class Graph:
            def replay(self):
                card.said.append(f'replay on {card.current}')

        @contextlib.contextmanager
        def on(stream):
            before, card.current = card.current, stream.name
            try:
                yield
            finally:
                card.current = before

        class Capture:
            """As PyTorch's: where recording fails, leaving it fails too, and leaves the stream behind."""

            def __init__(self, graph, stream):
                self.stream = stream

            def __enter__(self):
                card.said.append('begin')
                self.before, card.current = card.current, self.stream.name

            def __exit__(self, *_):
                card.said.append('end')
                if card.fails:
                    raise RuntimeError('capture failed')
                card.current = self.before

        for name, thing in {
            'Stream': lambda device: Stream('side'),
            'current_stream': lambda device: Stream(card.current),
            'stream': on,
            'graph': Capture,
            'CUDAGraph': Graph,
        }.items():
            monkeypatch.setattr(torch.cuda, name, thing)

    def work(self, tensor):
        self.said.append(f'work on {self.current}')
        return tensor + 1


def test_three_steps_on_a_stream_of_their_own_then_one_recording_then_replays(monkeypatch):
    card = Card(monkeypatch)
    replayed = Replayed(card.work, CudaRecorder('cuda:0'))
    for _ in range(5):
        replayed(torch.zeros(2))
    once = ['side waits for default', 'work on side', 'default waits for side']
    assert card.said == 3 * once + ['begin', 'work on side', 'end'] + 2 * ['replay on default']


def test_a_failed_recording_gives_the_stream_back(monkeypatch):
    card = Card(monkeypatch, fails=True)
    replayed = Replayed(card.work, CudaRecorder('cuda:0'))
    results = [replayed(torch.full((2,), float(value))).tolist() for value in range(6)]
    assert results == [[value + 1.0] * 2 for value in range(6)]
    assert card.current == 'default'
    assert card.said[9:] == ['begin', 'work on side', 'end'] + 3 * ['work on default']
