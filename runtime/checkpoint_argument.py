"""How command lines name a checkpoint: PREFIX:EPOCH, or PREFIX for the last whole one. What older releases took
(``--prefix PREFIX --epoch EPOCH``, PREFIX EPOCH and PREFIX,EPOCH) is taken for one release more, with a line that says
the new spelling. ``formats.checkpoint_files`` finds the files.
"""

import argparse
import functools
import os
import re
import sys
from typing import Any, Optional, Sequence, Union

from .argument_types import whole
from .cli import Parser

METAVAR = 'CHECKPOINT'
HELP = 'PREFIX:EPOCH, or PREFIX for the last whole one; PREFIX-symbol.json and the path of a .params file are taken too'


def checkpoint_name(text: str) -> str:
    """The name of a checkpoint, for ``type=`` of argparse: ``text``, but PREFIX:EPOCH for PREFIX,EPOCH."""
    old = re.fullmatch(r'(.+),(\d+)', text)
    if old is None or os.path.exists(text):
        return text
    new = f'{old.group(1)}:{old.group(2)}'
    say_new_spelling(text, new)
    return new


def add_checkpoint(parser: Parser, help: str = HELP, required: bool = True) -> None:
    """Add the argument ``checkpoint``, a name for ``formats.checkpoint_files.find_checkpoint``."""
    positional = parser.add_argument('checkpoint', metavar=METAVAR, type=checkpoint_name, help=help)
    if not required:
        positional.required, positional.nargs = False, '?'
    parser.add_argument('--prefix', action=_OldPrefix, positional=positional, help=argparse.SUPPRESS)
    parser.add_argument('--epoch', type=whole, help=argparse.SUPPRESS)
    parser.finishers.append(_join)


def add_old_epoch(parser: Parser) -> None:
    """Take an epoch behind the argument ``checkpoint``, as older releases did."""
    parser.add_argument('epoch', nargs='?', type=whole, help=argparse.SUPPRESS)
    parser.finishers.append(_join)


@functools.lru_cache(maxsize=None)
def say_new_spelling(old: str, new: str) -> None:
    """Say once on stderr that ``old`` is now written ``new``."""
    print(f'warning: write {new} in place of {old}, which the next release will not take', file=sys.stderr, flush=True)


class _OldPrefix(argparse.Action):
    """``--prefix PREFIX``, which replaces the argument ``positional``."""

    def __init__(self, *args: Any, positional: argparse.Action, **options: Any) -> None:
        super().__init__(*args, **options)
        self._positional = positional

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Union[str, Sequence[Any], None],
        option_string: Optional[str] = None,
    ) -> None:
        self._positional.required = False
        setattr(namespace, self.dest, values)


def _join(parser: argparse.ArgumentParser, namespace: argparse.Namespace) -> None:
    """Make one ``namespace.checkpoint`` of what was given, in whichever spelling."""
    is_flag = hasattr(namespace, 'prefix')
    prefix, number = vars(namespace).pop('prefix', None), vars(namespace).pop('epoch', None)
    if prefix is not None and namespace.checkpoint is not None:
        parser.error(f'--prefix {prefix} and {namespace.checkpoint}: name one checkpoint, {METAVAR}')
    if prefix is None and number is None:
        return
    name = namespace.checkpoint if prefix is None else prefix
    if name is None:
        parser.error(f'--epoch {number}: of which checkpoint? Write PREFIX:{number}')
    old = name if prefix is None else f'--prefix {prefix}'
    if number is not None:
        old += f' --epoch {number}' if is_flag else f' {number}'
    namespace.checkpoint = name if number is None else f'{name}:{number}'
    say_new_spelling(old, namespace.checkpoint)
