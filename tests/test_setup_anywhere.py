"""Scripts run, and our packages are found, from any folder."""

import importlib.machinery
import os
import pathlib
import subprocess
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
ROOMS = ('bootstrap', 'runtime', 'formats', 'graphs', 'symbols', 'optimizers', 'train', 'tools', 'interop')
SCRIPTS = sorted(
    path
    for folder in ('train', 'tools')
    for path in (REPOSITORY / folder).glob('*.py')
    if "__name__ == '__main__'" in path.read_text()
)


@pytest.mark.parametrize('script_folder', ['train', 'tools'])
def test_our_packages_are_found_from_anywhere(script_folder):
    """From any folder, also with the script's own folder first on the path, as Python puts it."""
    code = f'import {", ".join(ROOMS)}; print(*[room.__path__[0] for room in ({", ".join(ROOMS)})], sep="\\n")'
    starts_with = f'import sys; sys.path.insert(0, {str(REPOSITORY / script_folder)!r}); '
    result = subprocess.run(
        [sys.executable, '-c', starts_with + code], cwd='/', check=True, stdout=subprocess.PIPE, text=True
    )
    assert [pathlib.Path(path).resolve() for path in result.stdout.split()] == [REPOSITORY / room for room in ROOMS]


@pytest.mark.parametrize('script_folder', ['train', 'tools'])
def test_no_module_beside_a_script_hides_another_package(script_folder):
    """Python puts a script's folder first on the path: a module there called like a library would be imported in its
    stead.
    """
    ours = {str(REPOSITORY), *(str(REPOSITORY / folder) for folder in ('train', 'tools', 'tests'))}
    elsewhere = [path for path in sys.path if os.path.realpath(path) not in ours]
    for module in sorted((REPOSITORY / script_folder).glob('[!_]*.py')):
        assert module.stem not in sys.builtin_module_names
        assert importlib.machinery.PathFinder.find_spec(module.stem, elsewhere) is None, f'{module} hides a library'


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_every_script_runs_from_any_folder(script, tmp_path):
    result = subprocess.run([sys.executable, str(script), '--help'], cwd=str(tmp_path), capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, '')
    assert result.stdout.startswith('usage: ')
    assert os.listdir(str(tmp_path)) == []
