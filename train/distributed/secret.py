"""The secret of a run, which only its processes know: by it they recognise each other's messages.

``train/launch.py`` makes a new one for every run, so that no message of an earlier run is valid in it.
"""

import hashlib
import hmac
import json
import os
import sys
from typing import Any

from runtime.errors import UserError

VARIABLE = 'SSS_SECRET'
SHORTEST = 32  # characters
CODE_LENGTH = 2 * hashlib.sha256().digest_size  # in hexadecimal digits
MAX_WARNINGS = 20


class RefusedError(Exception):
    """Something that came over the network does not show that its sender knows the secret."""


def run_secret() -> bytes:
    """The secret of this run, from the environment. Raises UserError where there is none."""
    text = os.environ.get(VARIABLE, '')
    if len(text) < SHORTEST:
        raise UserError(
            f'{VARIABLE} must hold a secret of at least {SHORTEST} characters, the same in every process of a run of '
            f'several workers: start '
            'the run with train/launch.py, which makes one, or see docs/distributed.md, Trust'
        )
    return text.encode()


def code(key: bytes, *parts: bytes) -> bytes:
    """The HMAC-SHA256 of ``parts``, one after the other, as bytes."""
    made = hmac.new(key, digestmod=hashlib.sha256)
    for part in parts:
        made.update(part)
    return made.digest()


def is_code(claimed: bytes, key: bytes, *parts: bytes) -> bool:
    """Whether ``claimed`` is the code of ``parts``, compared in a time that does not depend on where they differ."""
    return hmac.compare_digest(claimed, code(key, *parts))


def signed(secret: bytes, purpose: str, value: Any) -> str:
    """``value`` as JSON text behind its code. A text signed for one ``purpose`` is not valid for another."""
    text = json.dumps(value)
    return code(secret, purpose.encode(), b'\0', text.encode()).hex() + text


def verified(secret: bytes, purpose: str, body: bytes) -> Any:
    """The value that ``signed`` was given. Raises RefusedError for bytes without a valid code, which is checked before
    anything else is read.
    """
    claimed, text = body[:CODE_LENGTH], body[CODE_LENGTH:]
    expected = code(secret, purpose.encode(), b'\0', text).hex().encode()
    if not hmac.compare_digest(claimed, expected):
        raise RefusedError(f'{len(body)} bytes without a valid code')
    return json.loads(text)


class Warnings:
    """Prints warnings on stderr, at most MAX_WARNINGS of them: strangers must not fill the log."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, text: str) -> None:
        self._count += 1
        if self._count <= MAX_WARNINGS:
            more = ' (further warnings of this kind are not shown)' if self._count == MAX_WARNINGS else ''
            print(f'warning: {text}{more}', file=sys.stderr, flush=True)
