"""`make check-gpu` on a machine without a card: its checks pass on the CPU, find what is wrong, and the report says
what was not tried.
"""

import re

import check_gpu
import pytest
from helpers import gpu_checks

from bootstrap.cards import Card, Driver
from graphs.graph import Graph
from runtime import mx

H200, T4 = Card('NVIDIA H200', (9, 0)), Card('Tesla T4', (7, 5))


@pytest.fixture
def few_networks(monkeypatch):
    monkeypatch.setattr(gpu_checks, 'FAMILIES', ('vgg',))
    monkeypatch.setattr(gpu_checks, 'NETWORKS', [('vgg', 'weight'), ('resnet-basic', 'output')])


@pytest.fixture
def machine(monkeypatch):
    """A function that pretends a driver with the given cards, and PyTorch not being there."""

    def pretend(*cards):
        monkeypatch.setattr(check_gpu.cards, 'driver', lambda: Driver((12, 4), list(cards)) if cards else None)
        monkeypatch.setattr(gpu_checks, 'torch_replays_what_it_computes', torch_replays_what_it_computes)

    def torch_replays_what_it_computes(device):
        raise gpu_checks.Skip('no PyTorch')

    return pretend


def test_the_part_of_the_cpu_passes(few_networks, machine, capsys):
    machine()
    assert check_gpu.main([]) == 0
    said = capsys.readouterr().out
    assert len(re.findall(r'^CPU: .+ passed: ', said, re.MULTILINE)) == len(gpu_checks.CHECKS)
    assert 'GPUs: skipped: no NVIDIA driver that shows a card here' in said
    assert said.splitlines()[-1] == '9 passed, 0 FAILED, 2 skipped; MXNet has computed on no card'


@pytest.mark.parametrize(
    ('card', 'said'),
    [(H200, 'none for NVIDIA H200 (sm_90); --engine torch is for it'), (T4, 'this MXNet is the CPU build')],
)
def test_cards_that_cannot_be_used_are_named(card, said, machine, monkeypatch, capsys):
    class Build:
        def is_enabled(self, feature):
            return card is H200

    machine(card)
    monkeypatch.setattr(check_gpu.mx.runtime, 'Features', Build)
    assert check_gpu.main(['--no-cpu']) == 0
    assert said in capsys.readouterr().out


def test_a_check_that_fails_is_said_and_the_rest_goes_on(machine, monkeypatch, capsys):
    def computes_nonsense(device):
        raise mx.MXNetError('Traceback\n  out of memory')

    def is_fine(device):
        return f'on {device}'

    machine()
    monkeypatch.setattr(gpu_checks, 'CHECKS', (computes_nonsense, is_fine))
    assert check_gpu.main([]) == 1
    said = capsys.readouterr().out
    assert 'CPU: computes nonsense ... FAILED: MXNetError: out of memory' in said
    assert 'CPU: is fine ... passed: on cpu(0)' in said


def twice_moved(symbol):
    """As on a card whose kernel moves the statistics in the forward pass, and forgets that it runs twice."""
    graph = Graph.from_symbol(symbol)
    for node in graph.nodes():
        if node.op == 'BatchNorm':
            node.attrs['momentum'] = str(0.9**2)
    return graph.to_symbol()


def wrong_products(symbol):
    graph = Graph.from_symbol(symbol)
    for node in graph.nodes():
        if node.op == 'Activation' and node.name.endswith('relu2_1'):
            node.attrs['act_type'] = 'softrelu'
    return graph.to_symbol()


def test_statistics_that_move_twice_are_found_out(few_networks, monkeypatch):
    monkeypatch.setattr(gpu_checks, 'recomputed', twice_moved)
    with pytest.raises(AssertionError, match=r'vgg .* apart, 0.001 allowed'):
        gpu_checks.recomputes(mx.cpu())


def test_a_wrong_activation_is_found_out(few_networks, monkeypatch):
    right = gpu_checks.in_half
    monkeypatch.setattr(
        gpu_checks,
        'in_half',
        lambda device: lambda symbol: right(device)(wrong_products(symbol) if device == mx.cpu(1) else symbol),
    )
    with pytest.raises(AssertionError, match='vgg weight'):
        gpu_checks.trains_in_half_like_the_cpu(mx.cpu(1))
    assert gpu_checks.trains_in_half_like_the_cpu(mx.cpu(0))
