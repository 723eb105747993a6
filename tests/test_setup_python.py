"""Which Python set-up takes, and what it says where none will do."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent

# Commands that answer set-up's two questions, its version and its venv module, as such a Python would.
GOOD = 'exit 0'
TOO_NEW = 'case "$2" in *version_info*) exit 1;; esac'
BROKEN_SHIM = 'echo "command not found" >&2; exit 127'
NO_VENV = 'case "$2" in *ensurepip*) exit 1;; esac'


@pytest.fixture
def find(tmp_path):
    """A function that runs the search where PATH holds the given commands (name=behaviour) and nothing else."""
    shell = shutil.which('sh')

    def run(asked='', **pythons):
        for name, behaviour in pythons.items():
            command = tmp_path / name.replace('_', '.')
            command.write_text(f'#!{shell}\n{behaviour}\n')
            command.chmod(0o755)
        return subprocess.run(
            [shell, str(REPOSITORY / 'bootstrap' / 'find_python.sh'), asked],
            cwd=str(tmp_path),
            env={'PATH': str(tmp_path)},
            capture_output=True,
            text=True,
        )

    return run


@pytest.mark.parametrize(
    ('pythons', 'found'),
    [
        ({'python3_8': GOOD, 'python3_11': GOOD}, 'python3.11'),
        ({'python3_11': BROKEN_SHIM, 'python3_9': GOOD, 'python3': GOOD}, 'python3.9'),
        ({'python3_10': NO_VENV, 'python3': GOOD}, 'python3'),
        ({'python3': TOO_NEW, 'python': GOOD}, 'python'),
    ],
)
def test_the_first_that_fits_is_taken(find, pythons, found):
    result = find(**pythons)
    assert (result.returncode, result.stdout, result.stderr) == (0, found + '\n', '')


def test_the_users_choice_is_taken_alone(find):
    assert find('python3.9', python3_9=GOOD, python3_11=GOOD).stdout == 'python3.9\n'
    assert find('python3.8', python3_9=GOOD).returncode == 2


def test_a_standing_environment_keeps_its_python(find, tmp_path):
    (tmp_path / '.venv' / 'bin').mkdir(parents=True)
    os.symlink(sys.executable, str(tmp_path / '.venv' / 'bin' / 'python'))
    assert find(python3_11=GOOD).stdout == os.path.realpath(sys.executable) + '\n'


@pytest.mark.parametrize('pythons', [{}, {'python3': TOO_NEW, 'python3_11': BROKEN_SHIM}])
def test_no_supported_python_is_one_line(find, pythons):
    result = find(**pythons)
    assert (result.returncode, result.stdout) == (2, '')
    assert result.stderr.count('\n') == 1
    assert 'needs Python 3.8, 3.9, 3.10 or 3.11' in result.stderr
    assert 'PYTHON=/path/to/python3.11' in result.stderr


def test_no_venv_module_names_the_package(find):
    result = find(python3_10=NO_VENV)
    assert result.returncode == 2
    assert result.stderr.startswith('error: python3.10 has no venv module: install it')
    assert result.stderr.count('\n') == 1


@pytest.mark.skipif(shutil.which('make') is None, reason='needs make')
def test_make_passes_the_message_on():
    result = subprocess.run(
        ['make', 'venv', 'PYTHON=/nonexistent/python'], cwd=str(REPOSITORY), capture_output=True, text=True
    )
    assert result.returncode == 2
    assert result.stderr.splitlines()[0].startswith(
        'error: MXNet 1.9.1 needs Python 3.8, 3.9, 3.10 or 3.11, and PYTHON=/nonexistent/python'
    )


def test_every_python_that_runs_is_found_on_the_path_or_with_pyenv(tmp_path):
    """A shim of pyenv that does not run stands before the version that it would start."""
    versions = tmp_path / 'pyenv' / 'versions'
    pythons = {
        tmp_path / 'path' / 'python3.11': GOOD,
        tmp_path / 'path' / 'python3.8': BROKEN_SHIM,
        versions / '3.8.18' / 'bin' / 'python': GOOD,
        versions / '3.9.1' / 'bin' / 'python': NO_VENV,
        versions / '3.12.1' / 'bin' / 'python': GOOD,
    }
    for path, behaviour in pythons.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'#!{shutil.which("sh")}\n{behaviour}\n')
        path.chmod(0o755)
    for tool in ('sh', 'dirname'):
        (tmp_path / 'path' / tool).symlink_to(shutil.which(tool))
    result = subprocess.run(
        [shutil.which('sh'), str(REPOSITORY / 'bootstrap' / 'every_python.sh')],
        cwd=str(tmp_path),
        env={'PATH': str(tmp_path / 'path'), 'PYENV_ROOT': str(tmp_path / 'pyenv')},
        capture_output=True,
        text=True,
    )
    assert result.stdout == f'3.8 {versions}/3.8.18/bin/python\n3.11 python3.11\n'
