"""What the processes of a run may send each other, and that reading it is safe."""

import contextlib

import numpy as np
import pytest

from runtime import mx
from runtime.errors import TrainingError
from train.checkpoint import State
from train.distributed.encoding import decode, encode


def values():
    state = State(
        1,
        2,
        {'w': mx.nd.ones((2, 3))},
        {'m': mx.nd.zeros((4,))},
        (7, {'w': [mx.nd.ones((1,)), 0.1], 'l': None}),
        {'a': 'b'},
        [0.5, 1],
        {},
    )
    return [
        None,
        True,
        3,
        0.1,
        float('inf'),
        'λ',
        [1, (2, [])],
        {0: 'a', 'b': {}},
        np.arange(6.0).reshape(2, 3),
        np.zeros((0, 3), np.float32),
        np.float32(0.1),
        np.int64(5),
        mx.nd.ones((2, 2), dtype='float16'),
        state,
    ]


def same(one, other):
    assert type(one) is type(other)
    if isinstance(one, mx.nd.NDArray):
        one, other = one.asnumpy(), other.asnumpy()
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and (one == other).all()
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def test_values_come_out_as_they_went_in():
    for value in values():
        assert same(decode(encode(value)), value)


@pytest.mark.parametrize('value', [object(), {1, 2}, b'bytes', np.array(['text']), np.array([object()])])
def test_what_has_no_form_cannot_be_sent(value):
    with pytest.raises(TypeError, match='a message cannot hold'):
        encode(value)


def test_damaged_messages_are_refused_in_one_line():
    good, random = encode(values()), np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(good)
        damaged[int(random.integers(600))] ^= int(random.integers(1, 256))
        with contextlib.suppress(TrainingError):
            decode(bytes(damaged))
    for end in range(0, len(good), 7):
        with pytest.raises(TrainingError, match='cannot be read'):
            decode(good[:end])
