"""A kvstore with an optimizer in it, and steps on it."""

import time

import optimizers  # noqa: F401  (registers 'apg')
from runtime import mx

KEYS = (3, 4, 5, 6)


def store_with(optimizer, kind='local'):
    store = mx.kv.create(kind)
    store.set_optimizer(optimizer)
    for key in KEYS:
        store.init(key, mx.nd.ones((2,)))
    return store


def train(store, seconds=20):
    """Steps until something stops them, or for ``seconds``."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        store.push(list(KEYS), [mx.nd.ones((2,))] * len(KEYS))
        store.pull(list(KEYS), [mx.nd.ones((2,)) for _ in KEYS])
