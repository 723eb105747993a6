#!/bin/sh
# Print the Python that .venv is to be made with, or one line saying what is missing. `make` calls it; $1 is the user's PYTHON=, if any.
#
# Each candidate is really run: version managers leave commands on PATH that do not work, and Debian's Python may come without the venv module.
set -u

supported='import sys; sys.exit(not (3, 8) <= sys.version_info[:2] <= (3, 11))'
complete='import ensurepip, venv'
no_venv=

use_if_fit() {
    "$1" -c "$supported" 2>/dev/null || return 0
    if "$1" -c "$complete" 2>/dev/null; then
        echo "$1"
        exit 0
    fi
    no_venv=${no_venv:-$1}
}

if [ -n "${1:-}" ]; then
    use_if_fit "$1"
    asked="PYTHON=$1 is none of these, or does not run"
else
    # A .venv that stands keeps its Python, also when that was once given as PYTHON= and is not on PATH.
    if [ -x .venv/bin/python ]; then
        base=$(.venv/bin/python -c 'import os, sys; print(os.path.realpath(sys.executable))' 2>/dev/null) && use_if_fit "$base"
    fi
    for candidate in python3.11 python3.10 python3.9 python3.8 python3 python; do
        use_if_fit "$candidate"
    done
    asked='none of them runs here'
fi

if [ -n "$no_venv" ]; then
    echo "error: $no_venv has no venv module: install it (Debian, Ubuntu: the package pythonX.Y-venv), or point PYTHON= at another Python 3.8 to 3.11" >&2
else
    echo "error: MXNet 1.9.1 needs Python 3.8, 3.9, 3.10 or 3.11, and $asked: point make at one with PYTHON=/path/to/python3.11" >&2
fi
exit 2
