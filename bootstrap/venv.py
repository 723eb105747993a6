"""Make ``.venv``, or the environment that the variable VENV names, or bring it up to date.

Run as ``python -m bootstrap.venv`` in the folder of the checkout, which is what ``make venv`` does. A stamp, written
last, says what the environment was made from. The same stamp again: nothing to do. Other pins: pip changes what
differs. No stamp (never finished), another interpreter, another place or another build of MXNet: made anew.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
from typing import Optional, Sequence

from . import cards, cuda_links

VENV = os.environ.get('VENV') or '.venv'
PYTHON = os.path.join(VENV, 'bin', 'python')
STAMP = os.path.join(VENV, 'made-from.json')

REQUIREMENTS = {'cpu': 'requirements-cpu.txt', 'cu112': 'requirements.txt'}
TITLES = {'cpu': 'the CPU build', 'cu112': 'the CUDA 11 build (mxnet-cu112)'}
COSTS = {'cpu': '1 GB on disk, a minute or two', 'cu112': '5 GB on disk, several minutes'}

# The tools of `make test` and `make lint`, and ONNX, which the tests compare with, are always installed.
ALWAYS = ('onnx', 'test')
ON_REQUEST = ('torch',)

# The pip of a fresh environment may be too old to install a pyproject.toml in editable mode; this one is the last that
# runs on Python 3.8.
PIP = 'pip==25.0.1'


def main(argv: Optional[Sequence[str]] = None) -> int:
    """The command line; returns the exit code: 0, or 2 where the environment is not finished."""
    options = _parse(argv)
    standing = _read_stamp()
    wanted = _wanted(options, standing)
    if _same(standing, wanted, except_for=('reason',)):
        print(f'{VENV} is up to date: {_describe(wanted)}')
        return 0
    print(f'MXNet: {TITLES[wanted["mxnet"]]}, because {wanted["reason"]}.', flush=True)
    try:
        _make(wanted, anew=not _same(standing, wanted, except_for=('reason', 'extras', 'pins')))
    except KeyboardInterrupt:
        return _unfinished('interrupted')
    except subprocess.CalledProcessError as error:
        return _unfinished(' '.join(error.cmd) + f' ended with {error.returncode}')
    except OSError as error:
        return _unfinished(error)
    print(f'{VENV} is ready: {_describe(wanted)}')
    return 0


def _unfinished(why):
    print(f'error: {VENV} is not finished; run the same command again to finish it: {why}', file=sys.stderr)
    return 2


def _parse(argv):
    parser = argparse.ArgumentParser(prog='make venv', description='Make .venv, or bring it up to date.')
    parser.add_argument(
        '--mxnet',
        default='',
        choices=('', 'auto', *REQUIREMENTS),
        help='the build of MXNet to install (default: the one that fits this machine)',
    )
    parser.add_argument(
        '--extras', default=[], nargs='*', choices=ON_REQUEST, help='optional parts to install too: torch'
    )
    return parser.parse_args(argv)


def _wanted(options, standing):
    """What the environment is to be made from, given what a ``standing`` one (or None) was.

    A choice stays until another is asked for: `make test` must not undo what `make venv MXNET=cpu` did.
    """
    standing = standing or {}
    if options.mxnet in REQUIREMENTS:
        mxnet, reason = options.mxnet, f'MXNET={options.mxnet} was asked for'
    elif 'mxnet' in standing and options.mxnet != 'auto':
        mxnet, reason = standing['mxnet'], standing['reason']
    else:
        mxnet, reason = cards.choose(cards.driver())
    return {
        'interpreter': os.path.realpath(sys.executable),
        'place': os.getcwd(),
        'mxnet': mxnet,
        'reason': reason,
        'extras': sorted({*ALWAYS, *options.extras, *standing.get('extras', ())}),
        'pins': _sha256(REQUIREMENTS[mxnet], 'pyproject.toml', __file__),
    }


def _same(standing, wanted, except_for):
    return standing is not None and all(
        standing.get(key) == value for key, value in wanted.items() if key not in except_for
    )


def _make(wanted, anew):
    if anew:
        _run(sys.executable, '-m', 'venv', '--clear', VENV)
    else:
        os.remove(STAMP)  # If set-up is interrupted after this, the environment counts as never finished.
    requirements = REQUIREMENTS[wanted['mxnet']]
    print(f'Installing {requirements} with pip ({COSTS[wanted["mxnet"]]}) ...', flush=True)
    _pip_install(PIP)
    # One call, so that pip sees every requirement at once.
    _pip_install('-r', requirements, '-e', '.[{}]'.format(','.join(wanted['extras'])))
    if wanted['mxnet'] == 'cu112':
        cuda_links.link(cuda_links.site_packages(VENV))
    _write_stamp(wanted)


def _pip_install(*what):
    _run(PYTHON, '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', *what)


def _run(*command):
    subprocess.run(command, check=True)


def _read_stamp():
    """What a finished and working environment was made from; None where there is none."""
    try:
        with open(STAMP, encoding='utf-8') as stamp:
            made_from = json.load(stamp)
        subprocess.run([PYTHON, '-c', ''], check=True, stderr=subprocess.DEVNULL)
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None
    return made_from


def _write_stamp(made_from):
    with open(STAMP + '.new', 'w', encoding='utf-8') as stamp:
        json.dump(made_from, stamp, indent=2)
    os.replace(STAMP + '.new', STAMP)


def _sha256(*paths):
    total = hashlib.sha256()
    for path in paths:
        with open(path, 'rb') as contents:
            total.update(contents.read())
    return total.hexdigest()


def _describe(made_from):
    return 'Python {}.{}, MXNet 1.9.1, {} ({})'.format(
        *sys.version_info[:2], TITLES[made_from['mxnet']], made_from['reason']
    )


if __name__ == '__main__':
    sys.exit(main())
