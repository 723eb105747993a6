"""What every command line shares: how it ends."""

import logging
import os
import signal
import sys
import traceback

from .errors import UserError


def run(main, argv=None):
    """Run ``main(argv)`` as a script: its return value is the exit code, and a user's mistake is one line on stderr and
    exit code 2.

    ``OSError`` (a full disk, a file without permission) counts as a user's matter too. Ctrl-C and SIGTERM are one line,
    and exit code 128 + the signal's number. Anything else is a defect of ours and keeps its traceback.
    """
    before = signal.getsignal(signal.SIGTERM)
    if before is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _interrupt)
    try:
        sys.exit(main(argv))
    except BrokenPipeError:
        # Whoever read our output (head, less) has left; Python must not complain about it while it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (UserError, OSError, KeyboardInterrupt) as error:
        sys.exit(report(error))
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number, _):
    raise KeyboardInterrupt(number)


def report(error):
    """Say on stderr what ``error`` ends the process; returns its exit code."""
    logging.shutdown()
    message = error
    if isinstance(error, OSError):
        message = f'{error.filename}: {error.strerror}' if error.filename else error.strerror or error
    elif isinstance(error, KeyboardInterrupt):
        number = error.args[0] if error.args else signal.SIGINT
        print(f'Stopped by signal {int(number)}', file=sys.stderr, flush=True)
        return 128 + number
    elif not isinstance(error, UserError):
        traceback.print_exception(type(error), error, error.__traceback__)
        return 1
    print('error:', ' '.join(str(message).split()), file=sys.stderr, flush=True)
    return getattr(error, 'exit_code', 2)
