"""Which MXNet set-up picks for which cards, and how it asks the driver."""

import ctypes
import shutil
import subprocess

import pytest

from bootstrap import cards
from bootstrap.cards import Card, Driver

H200 = Card('NVIDIA H200', (9, 0))
V100 = Card('Tesla V100', (7, 0))
L4 = Card('NVIDIA L4', (8, 9))

# What a driver's library looks like from outside: as much of CUDA's driver API as set-up asks for, with two made-up
# cards.
LIBCUDA = """
#include <string.h>
static const int capability[2][2] = {{9, 0}, {7, 5}};
static const char *names[2] = {"Card A", "Card B"};
int cuInit(unsigned flags) { return flags ? 1 : 0; }
int cuDriverGetVersion(int *version) { *version = 11080; return 0; }
int cuDeviceGetCount(int *count) { *count = 2; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal + 40; return 0; }
int cuDeviceGetName(char *name, int length, int device) { strncpy(name, names[device - 40], length); return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = capability[device - 40][attribute - 75];
    return 0;
}
"""


@pytest.mark.parametrize('capability', [(5, 0), (5, 2), (6, 1), (7, 0), (7, 5), (8, 0), (8, 6), (8, 9)])
def test_maxwell_to_ada_has_kernels(capability):
    assert cards.has_kernels(Card('a card', capability))


@pytest.mark.parametrize('capability', [(3, 5), (9, 0), (10, 0), (12, 0)])
def test_kepler_hopper_and_blackwell_have_none(capability):
    assert not cards.has_kernels(Card('a card', capability))


@pytest.mark.parametrize(
    ('driver', 'mxnet', 'words'),
    [
        (None, 'cpu', 'no NVIDIA driver'),
        (Driver((12, 4), []), 'cpu', 'no NVIDIA driver that shows a card'),
        (Driver((12, 4), [V100]), 'cu112', 'Tesla V100 (sm_70)'),
        (Driver((12, 8), [H200]), 'cpu', 'none for NVIDIA H200 (sm_90)'),
        (Driver((12, 8), [H200, L4]), 'cu112', 'NVIDIA L4 (sm_89)'),
        (Driver((10, 2), [V100]), 'cpu', 'CUDA 10.2'),
        (Driver((11, 0), [V100]), 'cu112', 'Tesla V100'),
    ],
)
def test_the_choice_and_its_reason(driver, mxnet, words):
    choice = cards.choose(driver)
    assert choice.mxnet == mxnet
    assert words in choice.reason


@pytest.mark.skipif(shutil.which('cc') is None, reason='needs a C compiler')
def test_the_driver_is_asked_over_its_own_interface(tmp_path):
    (tmp_path / 'libcuda.c').write_text(LIBCUDA)
    subprocess.run(
        ['cc', '-shared', '-fPIC', '-o', str(tmp_path / 'libcuda.so.1'), str(tmp_path / 'libcuda.c')], check=True
    )
    driver = cards.driver(open_library=lambda name: ctypes.CDLL(str(tmp_path / name)))
    assert driver == Driver((11, 8), [Card('Card A', (9, 0)), Card('Card B', (7, 5))])


class _RefusingLibrary:
    def cuInit(self, flags):  # noqa: N802  (CUDA's name)
        return 100


def _missing(name):
    raise OSError(f'{name}: cannot open shared object file')


@pytest.mark.parametrize('open_library', [_missing, lambda name: object(), lambda name: _RefusingLibrary()])
def test_no_working_driver_is_none(open_library):
    assert cards.driver(open_library) is None
