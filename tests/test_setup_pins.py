"""The two sets of requirements."""

import pathlib

import pytest
from packaging.requirements import Requirement

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
SUPPORTED = ('3.8', '3.9', '3.10', '3.11')


def _requirements(name):
    lines = [line.split('#')[0].strip() for line in (REPOSITORY / name).read_text().splitlines()]
    return [Requirement(line) for line in lines if line]


def _pins(name, python):
    return {
        found.name: str(found.specifier)
        for found in _requirements(name)
        if found.marker is None or found.marker.evaluate({'python_version': python})
    }


@pytest.mark.parametrize('name', ['requirements.txt', 'requirements-cpu.txt'])
def test_everything_is_pinned_to_one_version(name):
    for requirement in _requirements(name):
        assert [clause.operator for clause in requirement.specifier] == ['=='], requirement


@pytest.mark.parametrize('python', SUPPORTED)
def test_the_two_sets_differ_in_mxnet_alone(python):
    cuda, cpu = _pins('requirements.txt', python), _pins('requirements-cpu.txt', python)
    assert cuda.pop('mxnet-cu112') == cpu.pop('mxnet')
    assert {name: pin for name, pin in cuda.items() if not name.startswith('nvidia-')} == cpu
