"""Damaged files by the thousand: sound files of every format the project reads, and ways to spoil them.

``Corpus(folder).case(seed, index)`` is a pure function, so that a failure can be made again from two numbers.
"""

import json
import os
import random

from formats.symbol_operators import KNOWN
from helpers.fuzz_bytes import mutated_archive, mutated_bytes
from helpers.fuzz_graphs import JUNK, mutated_graph, operator_info, random_operator
from helpers.fuzz_seeds import network_seeds
from helpers.fuzz_texts import mutated_lines, text_seeds

# How often each kind of file is drawn.
WEIGHTS = {
    'params': 4,
    'symbol': 8,
    'operator': 4,
    'torch': 4,
    'safetensors': 1,
    'onnx': 1,
    'metrics': 2,
    'result': 2,
    'record manifest': 1,
    'manifest': 1,
    'recipe': 1,
    'idx': 1,
    'tar': 2,
    'packed tar': 1,
    'matlab': 2,
}


class Corpus:
    """The seeds, made once and kept in memory."""

    def __init__(self, folder):
        os.makedirs(folder, exist_ok=True)
        self.seeds = {
            'operator': [operator_info(name) for name in sorted(KNOWN)],
            **network_seeds(folder),
            **text_seeds(),
        }
        self.kinds = [kind for kind in WEIGHTS if self.seeds[kind]]

    def case(self, seed, index):
        """The ``index``-th damaged file: ``(kind, bytes)``."""
        rng = random.Random(f'{seed}:{index}')
        kind = rng.choices(self.kinds, [WEIGHTS[kind] for kind in self.kinds])[0]
        original = rng.choice(self.seeds[kind])
        if kind == 'operator':
            return 'symbol', json.dumps(random_operator(rng, original)).encode()
        if kind == 'symbol':
            graph = mutated_graph(rng, original, rng.choice(self.seeds[kind]))
            data = json.dumps(graph).encode()
            return kind, mutated_bytes(rng, data) if rng.random() < 0.2 else data
        if isinstance(original, list):
            data = mutated_lines(rng, original, JUNK)
            return kind, mutated_bytes(rng, data) if rng.random() < 0.3 else data
        if kind == 'torch' and original[:2] == b'PK' and rng.random() < 0.6:
            return kind, mutated_archive(rng, original)
        return kind, mutated_bytes(rng, original, head=0.5)
