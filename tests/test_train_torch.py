"""One run, two engines: what MXNet and PyTorch make of the same seed, and of each other's checkpoints."""

import json
import shutil

import numpy as np
import pytest
from helpers.tiny_runs import refused, save_network, train

torch = pytest.importorskip('torch')

from formats.symbol_file import load_symbol  # noqa: E402
from interop.torch_graph import TorchGraph  # noqa: E402
from train.checkpoint import Checkpoints  # noqa: E402  (where PyTorch is missing there is nothing to import it for)

# A small rate and one drop: rounding stays small, and the momentum has to be carried over the drop.
FLAGS = ['--gamma', '0.05', '--lr', '0.01', '--lr-step-epochs', '2', '--seed', '3']


@pytest.fixture
def network(tmp_path):
    return save_network(tmp_path, kinds=('block', 'neuron'))


def run(network, prefix, engine, epochs, *more):
    assert train(network, prefix, '--engine', engine, '--num-epochs', epochs, *FLAGS, *more) == 0
    return Checkpoints(str(prefix)).load()


def assert_alike(first, second, tolerance):
    """States whose parameters, λ included, and momenta agree."""
    for mine, other in ((first.arg_params, second.arg_params), (first.aux_params, second.aux_params)):
        assert mine.keys() == other.keys()
        for name in mine:
            close(mine[name], other[name], tolerance, name)
    (updates, states), (other_updates, other_states) = first.optimizer_state, second.optimizer_state
    assert updates == other_updates
    assert states.keys() == other_states.keys()
    for name, state in states.items():
        close(arrays_of(state), arrays_of(other_states[name]), 5 * tolerance, name)


def arrays_of(state):
    """The momentum of a weight, whatever learning rate it is scaled by; v of a λ."""
    return state[0] / state[1] if isinstance(state, list) else state


def close(mine, other, tolerance, name):
    mine, other = mine.asnumpy(), other.asnumpy()
    scale = max(np.abs(mine).max(), 1e-2)
    assert np.abs(mine - other).max() <= tolerance * scale, name


def test_both_engines_take_the_same_path(network, tmp_path):
    assert_alike(run(network, tmp_path / 'mxnet', 'mxnet', 1), run(network, tmp_path / 'torch', 'torch', 1), 2e-3)


@pytest.mark.parametrize(('first', 'then'), [('mxnet', 'torch'), ('torch', 'mxnet')])
def test_either_engine_goes_on_from_the_other(network, tmp_path, first, then):
    """Across the drop of the learning rate, against the engine that goes on alone."""
    run(network, tmp_path / 'one', first, 2)
    for path in tmp_path.glob('one*'):
        shutil.copy(str(path), str(tmp_path / path.name.replace('one', 'two', 1)))
    stayed, switched = (
        run(network, tmp_path / 'one', first, 3, '--resume'),
        run(network, tmp_path / 'two', then, 3, '--resume'),
    )
    assert_alike(stayed, switched, 2e-3)


def test_resumed_on_torch_equals_uninterrupted(network, tmp_path):
    whole = run(network, tmp_path / 'whole', 'torch', 3)
    run(network, tmp_path / 'parts', 'torch', 2)
    assert_alike(whole, run(network, tmp_path / 'parts', 'torch', 3, '--resume'), 0)


class _Misaligned:
    """An array whose NumPy memory begins one number past a multiple of 64 bytes."""

    def __init__(self, shape):
        self._shape = shape

    def asnumpy(self):
        memory = np.zeros(int(np.prod(self._shape)) + 32, np.float32)
        first = -memory.ctypes.data // 4 % 16 + 1
        return memory[first : first + int(np.prod(self._shape))].reshape(self._shape)


def test_the_memory_of_parameters_is_aligned(network):
    """MKL's last digits depend on the alignment of its inputs, and that of NumPy's memory varies: a resumed run would
    differ.
    """
    symbol = load_symbol(network)
    args, _, aux = symbol.infer_shape(data=(2, 3, 8, 8))
    arrays = [
        {name: _Misaligned(shape) for name, shape in zip(names, shapes) if name != 'data'}
        for names, shapes in ((symbol.list_arguments(), args), (symbol.list_auxiliary_states(), aux))
    ]
    net = TorchGraph(symbol, *arrays)
    assert all(tensor.data_ptr() % 64 == 0 for tensor in net.state_dict().values() if tensor.numel())


def test_what_torch_writes_says_what_mxnet_says(network, tmp_path):
    records = []
    for engine in ('mxnet', 'torch'):
        run(network, tmp_path / engine, engine, 1)
        records.append(json.loads((tmp_path / f'{engine}-metrics.jsonl').read_text()))
    assert records[0].keys() == records[1].keys()
    assert records[0]['lambda_values'].keys() == records[1]['lambda_values'].keys()
    assert records[0]['validation']['accuracy'] == pytest.approx(records[1]['validation']['accuracy'], abs=0.05)


def test_a_card_that_is_not_there(network, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    flags = ['--network', network, '--dataset', 'synthetic', '--image-shape', '3,8,8', '--engine', 'torch']
    assert 'sees 1 card' in refused(capfd, tmp_path, *flags, '--gpus', '1')
    assert 'one card' in refused(capfd, tmp_path, *flags, '--gpus', '0,1')
