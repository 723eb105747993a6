"""The flags of --engine torch on the command line, and what is said where PyTorch is not installed."""

import json
import os
import subprocess
import sys

import pytest
from helpers.tiny_runs import NOISE, log_lines, metrics, refused, save_network, train

from train import train_cifar
from train.compute_arguments import TORCH_ONLY

DTYPE = ['--dtype', 'bfloat16']
FLAGS = {
    'channels_last': ['--channels-last'],
    'allow_tf32': ['--allow-tf32'],
    'cuda_graphs': ['--cuda-graphs', 'off'],
    'compile': ['--compile', 'off'],
}


@pytest.mark.parametrize('name', TORCH_ONLY)
def test_mxnet_refuses_the_flags_of_torch(name, tmp_path, capfd):
    line = refused(capfd, tmp_path, *NOISE, *FLAGS[name], '--model-prefix', tmp_path / 'run')
    assert line.startswith(f'error: --{name.replace("_", "-")} needs --engine torch')


def test_without_pytorch_there_is_one_line(tmp_path):
    """A process in which PyTorch cannot be imported, as where it is not installed."""
    code = (
        'import sys; sys.modules["torch"] = None; from runtime.cli import run; '
        'from train.train_cifar import main; run(main)'
    )
    done = subprocess.run(
        [sys.executable, '-c', code, '--engine', 'torch', *NOISE], stderr=subprocess.PIPE, text=True, cwd=str(tmp_path)
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith('error: --engine torch needs PyTorch')
    assert 'make venv EXTRAS=torch' in line
    assert os.listdir(str(tmp_path)) == []


def test_a_run_says_what_it_computed_in_and_goes_on_in_something_else(tmp_path):
    torch = pytest.importorskip('torch')
    network, prefix = save_network(tmp_path), tmp_path / 'run'
    assert train(network, prefix, '--engine', 'torch', '--num-epochs', 1, *DTYPE, *FLAGS['channels_last']) == 0
    said = json.loads(next(line for line in log_lines(prefix) if ' Run: ' in line).partition(' Run: ')[2])
    assert {name: said['arguments'][name] for name in TORCH_ONLY} == {**TORCH_ONLY, 'channels_last': True}
    assert said['arguments']['dtype'] == 'bfloat16'
    assert said['versions']['torch'] == torch.__version__
    assert said['versions']['card'] is None
    assert train(network, prefix, '--engine', 'mxnet', '--num-epochs', 2, '--resume') == 0
    assert [epoch['epoch'] for epoch in metrics(prefix)] == [0, 1]


def test_graphs_need_a_card(tmp_path, capfd):
    pytest.importorskip('torch')
    line = refused(capfd, tmp_path, *NOISE, '--engine', 'torch', '--cuda-graphs', 'on', script=train_cifar)
    assert '--cuda-graphs on needs a card' in line
