"""What every command line shares: how it ends."""
import logging
import os
import sys

from .errors import UserError


def run(main, argv=None):
    """Run ``main(argv)`` as a script: its return value is the exit code, and a user's mistake is one line on stderr and exit code 2.

    ``OSError`` (a full disk, a file without permission) counts as a user's matter too. Anything else is a defect of ours and keeps its traceback.
    """
    try:
        sys.exit(main(argv))
    except BrokenPipeError:
        # Whoever read our output (head, less) has left; Python must not complain about it while it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except UserError as error:
        _fail(error)
    except OSError as error:
        _fail(f'{error.filename}: {error.strerror}' if error.filename else error.strerror or error)


def _fail(message):
    logging.shutdown()
    print('error:', ' '.join(str(message).split()), file=sys.stderr)
    sys.exit(2)
