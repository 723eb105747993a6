"""From ``--gpus 0,1`` to MXNet contexts, with a clear error where a card cannot be used."""

from __future__ import annotations

from typing import List, Optional

from bootstrap import cards

from . import mx
from .errors import UserError


def contexts(gpus: Optional[str], cpus: int = 1) -> List[mx.Context]:
    """The contexts that a run computes on.

    ``gpus`` is None or '' for ``cpus`` contexts on the CPU, else the numbers of cards as CUDA counts them, '0' or
    '0,1'. Raises UserError where it is no such list, MXNet is the CPU build, there is no such card, or MXNet has no
    kernels for it.
    """
    if not gpus:
        return [mx.cpu(number) for number in range(cpus)]
    numbers = _numbers(gpus)
    _check_build(gpus)
    _check_cards(numbers)
    return [mx.gpu(number) for number in numbers]


def _numbers(gpus):
    words = [word.strip() for word in gpus.split(',')]
    if not all(word.isdecimal() for word in words) or len(set(map(int, words))) < len(words):
        raise UserError(f'--gpus {gpus}: give the numbers of different cards, separated by commas, as in --gpus 0,1')
    return [int(word) for word in words]


def _check_build(gpus):
    if not mx.runtime.Features().is_enabled('CUDA'):
        raise UserError(
            f'--gpus {gpus}: this MXNet is the CPU build; leave --gpus out to compute on the CPU, or install the other '
            'with make venv MXNET=cu112'
        )


def _check_cards(numbers):
    driver = cards.driver()
    present = driver.cards if driver else []
    for number in numbers:
        if number >= len(present):
            known = ', '.join(f'{index}: {card}' for index, card in enumerate(present)) or 'none, or no NVIDIA driver'
            raise UserError(f'--gpus {number}: there is no such card; the cards here: {known}')
        if not cards.has_kernels(present[number]):
            raise UserError(
                f'--gpus {number}: {cards.no_kernels(present[number])}; leave --gpus out to compute on the CPU'
            )
