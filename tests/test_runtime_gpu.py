"""--gpus becomes contexts, or one line on why a card cannot be used. The cards are made up."""

import pytest

from bootstrap.cards import Card, Driver
from runtime import devices as gpu
from runtime import mx
from runtime.errors import UserError

T4 = Card('Tesla T4', (7, 5))
A100 = Card('NVIDIA A100', (8, 0))
H200 = Card('NVIDIA H200', (9, 0))


@pytest.fixture
def machine(monkeypatch):
    """A function that pretends the CUDA build of MXNet and a driver with the given cards."""

    class CudaBuild:
        def is_enabled(self, feature):
            return feature == 'CUDA'

    def pretend(*cards, driver=True):
        monkeypatch.setattr(mx.runtime, 'Features', CudaBuild)
        monkeypatch.setattr(gpu.cards, 'driver', lambda: Driver((12, 4), list(cards)) if driver else None)

    return pretend


@pytest.mark.parametrize('nothing', [None, ''])
def test_no_cards_asked_for_is_the_cpu(nothing):
    assert gpu.contexts(nothing) == [mx.cpu()]


def test_several_contexts_on_the_cpu():
    assert gpu.contexts(None, 3) == [mx.cpu(0), mx.cpu(1), mx.cpu(2)]


def test_cards_become_contexts_in_the_order_given(machine):
    machine(T4, A100)
    assert gpu.contexts('0') == [mx.gpu(0)]
    assert gpu.contexts('1, 0') == [mx.gpu(1), mx.gpu(0)]


@pytest.mark.parametrize('nonsense', ['a', '0,', '-1', '0.5', '0,0', '1,01', ' '])
def test_nonsense_is_named(machine, nonsense):
    machine(T4, A100)
    with pytest.raises(UserError, match='numbers of different cards'):
        gpu.contexts(nonsense)


def test_the_cpu_build_says_what_to_install(monkeypatch):
    class CpuBuild:
        def is_enabled(self, feature):
            return False

    monkeypatch.setattr(mx.runtime, 'Features', CpuBuild)
    with pytest.raises(UserError, match='CPU build.*make venv MXNET=cu112'):
        gpu.contexts('0')


def test_a_missing_card_lists_those_there(machine):
    machine(T4)
    with pytest.raises(UserError, match=r'--gpus 1: there is no such card; the cards here: 0: Tesla T4 \(sm_75\)'):
        gpu.contexts('0,1')


def test_no_driver_is_said(machine):
    machine(driver=False)
    with pytest.raises(UserError, match='no NVIDIA driver'):
        gpu.contexts('0')


def test_a_card_without_kernels_is_named(machine):
    machine(T4, H200)
    with pytest.raises(
        UserError, match=r'--gpus 1: MXNet 1.9.1 has kernels for sm_50 to sm_89 .* none for NVIDIA H200 \(sm_90\)'
    ):
        gpu.contexts('0,1')
