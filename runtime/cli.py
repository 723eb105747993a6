"""What every command line shares: how it reads its arguments, and how it ends."""

import argparse
import difflib
import logging
import os
import re
import signal
import sys
import traceback
from typing import Any, Callable, Iterable, List, NoReturn, Optional, Sequence

from .errors import UserError


class DefaultsShown(argparse.ArgumentDefaultsHelpFormatter):
    """Help that says each default, except where there is none."""

    def _get_help_string(self, action: argparse.Action) -> Optional[str]:
        # argparse has no public name for it
        return action.help if action.default is None or action.nargs == 0 else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are UserErrors: one line, no page of usage, the nearest name for an unknown one.

    ``finishers`` are functions of the parser and the namespace that are called when all was read.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.finishers: List[Callable[[argparse.ArgumentParser, argparse.Namespace], None]] = []

    def parse_known_args(self, args: Optional[Sequence[str]] = None, namespace: Any = None) -> Any:
        """As in argparse; then the ``finishers`` are called."""
        found, rest = super().parse_known_args(args, namespace)
        for finish in self.finishers:
            finish(self, found)
        return found, rest

    def error(self, message: str) -> NoReturn:
        """Raise UserError for a command line that cannot be read."""
        unknown = re.match(r'unrecognized arguments: (--[\w-]+)', message)
        if unknown:
            message += did_you_mean(unknown.group(1), self._option_string_actions)
        raise UserError(f'{message} (--help explains)')

    def _get_values(self, action: argparse.Action, arg_strings: List[str]) -> Any:
        # An empty word is mostly a variable of the shell that is not set. What may be empty has a type that says so.
        if action.type is None and '' in arg_strings:
            raise argparse.ArgumentError(action, 'is empty')
        return super()._get_values(action, arg_strings)  # argparse has no public name for it

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            message = f'{value!r} is not one of {", ".join(known)}{did_you_mean(str(value), known)}'
            raise argparse.ArgumentError(action, message)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """'; did you mean cifar10?' for the name in ``known`` that is nearest to ``name``; '' where none is near."""
    by_simple = {re.sub(r'[^a-z0-9]', '', one.lower()): one for one in known}
    simple = re.sub(r'[^a-z0-9]', '', name.lower())
    near = difflib.get_close_matches(simple, by_simple, n=1)
    return f'; did you mean {by_simple[near[0]]}?' if near else ''


def run(main: Callable[[Optional[Sequence[str]]], Optional[int]], argv: Optional[Sequence[str]] = None) -> NoReturn:
    """Run ``main(argv)`` as a script and exit: its return value is the exit code, and a user's mistake is one line on
    stderr and exit code 2.

    ``OSError`` (a full disk, a file without permission) and ``MemoryError`` are a user's matter too. Ctrl-C and SIGTERM
    are one line, and exit code 128 + the signal's number. Anything else is a defect of ours and keeps its traceback.
    """
    before = signal.getsignal(signal.SIGTERM)
    if before is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _interrupt)
    try:
        sys.exit(main(argv))
    except BrokenPipeError:
        # The process that read our output (head, less) has ended. Python must not complain when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (UserError, OSError, MemoryError, KeyboardInterrupt) as error:
        sys.exit(report(error))
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number, _):
    raise KeyboardInterrupt(number)


def report(error: BaseException) -> int:
    """Print on stderr the ``error`` that ends the process; returns its exit code."""
    logging.shutdown()
    message: object = error
    if isinstance(error, OSError):
        message = f'{error.filename}: {error.strerror}' if error.filename else error.strerror or error
    elif isinstance(error, MemoryError):
        message = f'there is not enough memory for this: {error or "use less at a time"}'
    elif isinstance(error, KeyboardInterrupt):
        number = error.args[0] if error.args else signal.SIGINT
        print(f'Stopped by signal {int(number)}', file=sys.stderr, flush=True)
        return 128 + number
    elif not isinstance(error, UserError):
        traceback.print_exception(type(error), error, error.__traceback__)
        return 1
    print('error:', ' '.join(str(message).split()), file=sys.stderr, flush=True)
    return getattr(error, 'exit_code', 2)
