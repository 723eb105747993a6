"""The two sets of requirements, and what the project installs as."""
import importlib.machinery
import os
import pathlib
import subprocess
import sys

import pytest
from packaging.requirements import Requirement

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
ROOMS = ('bootstrap', 'runtime', 'symbols', 'optimizers', 'train', 'tools', 'interop')
SUPPORTED = ('3.8', '3.9', '3.10', '3.11')


def _requirements(name):
    lines = [line.split('#')[0].strip() for line in (REPOSITORY / name).read_text().splitlines()]
    return [Requirement(line) for line in lines if line]


def _pins(name, python):
    return {found.name: str(found.specifier) for found in _requirements(name) if found.marker is None or found.marker.evaluate({'python_version': python})}


@pytest.mark.parametrize('name', ['requirements.txt', 'requirements-cpu.txt'])
def test_everything_is_pinned_to_one_version(name):
    for requirement in _requirements(name):
        assert [clause.operator for clause in requirement.specifier] == ['=='], requirement


@pytest.mark.parametrize('python', SUPPORTED)
def test_the_two_sets_differ_in_mxnet_alone(python):
    cuda, cpu = _pins('requirements.txt', python), _pins('requirements-cpu.txt', python)
    assert cuda.pop('mxnet-cu112') == cpu.pop('mxnet')
    assert {name: pin for name, pin in cuda.items() if not name.startswith('nvidia-')} == cpu


@pytest.mark.parametrize('script_folder', ['train', 'tools'])
def test_our_packages_are_found_from_anywhere(script_folder):
    """From any folder, also with the script's own folder first on the path, as Python puts it."""
    code = f'import {", ".join(ROOMS)}; print(*[room.__path__[0] for room in ({", ".join(ROOMS)})], sep="\\n")'
    starts_with = f'import sys; sys.path.insert(0, {str(REPOSITORY / script_folder)!r}); '
    result = subprocess.run([sys.executable, '-c', starts_with + code], cwd='/', check=True, stdout=subprocess.PIPE, text=True)
    assert [pathlib.Path(path).resolve() for path in result.stdout.split()] == [REPOSITORY / room for room in ROOMS]


@pytest.mark.parametrize('script_folder', ['train', 'tools'])
def test_no_module_beside_a_script_hides_another_package(script_folder):
    """Python puts a script's folder first on the path: a module there called like a library would be imported in its stead."""
    elsewhere = [path for path in sys.path if path and not os.path.realpath(path).startswith(str(REPOSITORY) + os.sep + 't') and
                 os.path.realpath(path) != str(REPOSITORY)]
    for module in sorted((REPOSITORY / script_folder).glob('[!_]*.py')):
        assert module.stem not in sys.builtin_module_names
        assert importlib.machinery.PathFinder.find_spec(module.stem, elsewhere) is None, f'{module} hides a library'
