"""Files of PyTorch: the library's own values where they are sound, else a CheckpointError, and nothing executed."""

import collections
import contextlib
import io
import os
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from helpers.refusals import refused

from formats.onnx_file import load_onnx
from formats.safetensors_file import load_safetensors
from formats.torch_file import load_torch_state
from runtime.errors import CheckpointError

REAL = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), '..', 'shared', 'data', 'checkpoints')


@pytest.fixture
def torch():
    return pytest.importorskip('torch')


def sample_state(torch):
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    return collections.OrderedDict(
        weight=weight,
        tied=weight,
        transposed=torch.randn(4, 3).t(),
        parameter=torch.nn.Parameter(torch.ones(2)),
        scalar=torch.tensor(5),
        brain=torch.tensor([1.5, -2.0, 3e38]).to(torch.bfloat16),
        half=torch.ones(3).half(),
        truth=torch.tensor([True, False]),
        empty=torch.zeros(0, 3),
        slice=torch.arange(10)[3:7:2],
        bytes=torch.zeros(2, dtype=torch.uint8),
    )


def assert_same(loaded, torch, reference):
    assert list(loaded) == list(reference)
    for name, tensor in reference.items():
        values = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()
        assert (loaded[name].dtype, loaded[name].shape) == (values.dtype, values.shape)
        assert np.array_equal(loaded[name], values)


@pytest.mark.parametrize('zipped', [True, False])
def test_what_torch_saves(torch, tmp_path, zipped):
    state = sample_state(torch)
    parallel = {
        'state_dict': {f'module.{name}': tensor for name, tensor in state.items()},
        'epoch': 3,
        'optimizer': {'lr': [0.1]},
        'best': 91.2,
    }
    for saved in (state, parallel, {'model': state}):
        torch.save(saved, tmp_path / 'x.pth', _use_new_zipfile_serialization=zipped)
        assert_same(load_torch_state(tmp_path / 'x.pth'), torch, state)


@pytest.mark.parametrize('zipped', [True, False])
def test_a_module_of_every_kind_of_layer(torch, tmp_path, zipped):
    state = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.LSTM(4, 5), torch.nn.Embedding(7, 2)
    ).state_dict()
    torch.save(state, tmp_path / 'x.pth', _use_new_zipfile_serialization=zipped)
    assert_same(load_torch_state(tmp_path / 'x.pth'), torch, state)


@pytest.mark.parametrize('name', ['resnet20-12fca82f.th', 'resnet32-d509ac18.th'])
def test_published_checkpoints(torch, name):
    path = os.path.join(REAL, name)
    if not os.path.exists(path):
        pytest.skip('the published checkpoints are not here')
    reference = torch.load(path, weights_only=True, map_location='cpu')['state_dict']
    assert_same(load_torch_state(path), torch, {name[len('module.') :]: tensor for name, tensor in reference.items()})


def test_it_needs_no_torch(torch, tmp_path, monkeypatch):
    torch.save({'w': torch.ones(2)}, tmp_path / 'x.pth')
    monkeypatch.setitem(__import__('sys').modules, 'torch', None)
    assert load_torch_state(tmp_path / 'x.pth')['w'].tolist() == [1, 1]


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def archive(contents, members=(), compression=zipfile.ZIP_STORED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w', compression) as new:
        new.writestr('x/data.pkl', contents)
        for name, data in members:
            new.writestr(name, data)
    return out.getvalue()


@pytest.mark.parametrize('protocol', range(6))
def test_nothing_is_executed(tmp_path, protocol):
    sprung = tmp_path / 'sprung'
    for trap in (Trap(sprung), {'w': Trap(sprung)}, {'state_dict': {'w': Trap(sprung)}}, [Trap(sprung)]):
        data = pickle.dumps(trap, protocol)
        refused(load_torch_state, tmp_path / 'trap.pth', archive(data))
        header = b''.join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {'little_endian': True}))
        refused(load_torch_state, tmp_path / 'trap.pth', header + data + pickle.dumps([], 2))
        refused(load_torch_state, tmp_path / 'trap.pth', data)
    assert not sprung.exists()


def tensor_pickle(numel=4, size=(4,), stride=(1,), offset=0, kind='FloatStorage', key='0'):
    """The pickle of {'w': tensor}, in protocol 2, with any numbers in it."""

    def number(value):
        return b'\x8a' + bytes([9]) + value.to_bytes(9, 'little', signed=True)

    def text(value):
        return b'X' + struct.pack('<I', len(value)) + value.encode()

    def numbers(values):
        return b'(' + b''.join(map(number, values)) + b't'

    storage = (
        b'(' + text('storage') + b'ctorch\n' + kind.encode() + b'\n' + text(key) + text('cpu') + number(numel) + b'tQ'
    )
    call = (
        b'ctorch._utils\n_rebuild_tensor_v2\n('
        + storage
        + number(offset)
        + numbers(size)
        + numbers(stride)
        + b'\x89}tR'
    )
    return b'\x80\x02}' + text('w') + call + b's.'


def test_tensors_must_lie_within_their_storage(tmp_path):
    values = np.arange(4, dtype='float32').tobytes()
    path = tmp_path / 'x.pth'
    path.write_bytes(archive(tensor_pickle(), [('x/data/0', values)]))
    assert load_torch_state(path)['w'].tolist() == [0, 1, 2, 3]
    for lie in (
        {'numel': 2**40},
        {'numel': 5},
        {'numel': -1},
        {'size': (5,)},
        {'size': (2**60,)},
        {'size': (-4,)},
        {'size': (2, 2), 'stride': (4, 1)},
        {'size': (2**40,), 'stride': (0,)},
        {'size': (2**40, 0), 'stride': (1, 1)},
        {'stride': (2,)},
        {'stride': (-1,)},
        {'offset': 1},
        {'offset': -1},
        {'offset': 2**62},
        {'size': (1,) * 40, 'stride': (1,) * 40},
        {'size': (2, 2)},
        {'kind': 'DoubleStorage'},
        {'kind': 'QInt8Storage'},
        {'kind': 'nothing'},
        {'key': '1'},
        {'key': '../0'},
    ):
        refused(load_torch_state, path, archive(tensor_pickle(**lie), [('x/data/0', values)]))


def test_archives_that_torch_never_writes(tmp_path):
    path, member = tmp_path / 'x.pth', ('x/data/0', bytes(16))
    sound = archive(tensor_pickle(), [member])
    refused(load_torch_state, path, archive(tensor_pickle(), [member], zipfile.ZIP_DEFLATED), 'compressed')
    refused(load_torch_state, path, archive(tensor_pickle(), [member, ('x/constants.pkl', b'')]), 'TorchScript')
    refused(load_torch_state, path, archive(tensor_pickle(), [member, ('x/byteorder', b'big')]), 'big-endian')
    refused(load_torch_state, path, archive(tensor_pickle(), [member, ('y/data.pkl', b'')]), 'no data.pkl')
    refused(load_torch_state, path, archive(tensor_pickle()), 'missing')
    claim = sound.rindex(b'PK\1\2') + 20
    refused(load_torch_state, path, sound[:claim] + struct.pack('<I', 2**31 - 2) + sound[claim + 4 :], 'claims more')
    refused(load_torch_state, path, sound.replace(bytes(16), bytes(15) + b'\1'), 'CRC')
    for length in range(len(sound)):
        refused(load_torch_state, path, sound[:length])


def test_old_files_cut_off_anywhere(torch, tmp_path):
    torch.save({'w': torch.ones(2, 3), 'b': torch.ones(2)}, tmp_path / 'x.pth', _use_new_zipfile_serialization=False)
    data = (tmp_path / 'x.pth').read_bytes()
    for length in range(len(data)):
        refused(load_torch_state, tmp_path / 'cut.pth', data[:length])
    refused(load_torch_state, tmp_path / 'cut.pth', data + b'\0', 'left over')


@pytest.mark.parametrize(
    'program',
    [
        b'(' + b'\x85' * 100_000,
        b')' + b'\x85' * 190_000,
        b'})' + b'\x85' * 190_000 + b')s',
        b'}r\xff\xff\xff\xff',
        b'X\xff\xff\xff\xff',
        b'\x8d' + b'\xff' * 8,
        b'0' * 1000,
        b'',
        b']' + b'a' * 10,
        b'N' + b'2' * 2_000_000,
        b'\x8b\xff\xff\xff\x7f',
        b'I' + b'9' * 1_000_000 + b'\n',
    ],
    ids=range(12),
)
def test_hostile_pickles(tmp_path, program):
    """Tuples nested 190,000 deep, as a dictionary's key too; texts and memos of 4 GB; too little or far too much on the
    stack.
    """
    refused(load_torch_state, tmp_path / 'x.pth', archive(b'\x80\x02' + program + b'.'))


@pytest.mark.parametrize('load', [load_torch_state, load_safetensors, load_onnx])
def test_claims_of_gigabytes_allocate_nothing(tmp_path, load):
    """Texts, headers and members of 2 to 4 GB in files of a few bytes."""
    claims = [
        b'\x80\x02X\xff\xff\xff\xff',
        b'\x80\x02\x8b\xff\xff\xff\x7f',
        b'\xff\xff\xff\x7f' + bytes(4) + b'{}',
        b'\x3a\xff\xff\xff\xff\x07',
        b'PK\3\4' + bytes(56) + b'PK\5\6' + bytes(8) + b'\xff\xff\xff\x7f' * 2 + bytes(2),
    ]
    with contextlib.suppress(CheckpointError):
        load(tmp_path / 'nowhere')
    for data in claims:
        tracemalloc.start()
        try:
            refused(load, tmp_path / 'x', data)
            assert tracemalloc.get_traced_memory()[1] < 1 << 22
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize('tail', [b'X\1\0\0\0a\x93', b'X\1\0\0\0aR', b'Q', b'}X\1\0\0\0wh\x3bs'], ids=range(4))
def test_a_tuple_doubled_sixty_times_takes_no_time(tmp_path, tail):
    """A tuple of twice the one before, 60 times: 2^60 values, if anybody looks at each; as a name, a call, a storage
    and a tensor.
    """
    doubled = b')' + b''.join(b'q%ch%c\x86' % (number, number) for number in range(60)) + b'q\x3b'
    refused(load_torch_state, tmp_path / 'x.pth', archive(b'\x80\x04' + doubled + tail + b'.'))


def test_a_storage_with_a_long_tail_is_refused(tmp_path):
    """Each tensor would look through all of it again."""
    sound = tensor_pickle()
    at = sound.index(b'tQ')
    path = tmp_path / 'x.pth'
    values = [('x/data/0', np.arange(4, dtype='float32').tobytes())]
    path.write_bytes(archive(sound[:at] + b'N' + sound[at:], values))
    assert load_torch_state(path)['w'].tolist() == [0, 1, 2, 3]
    refused(load_torch_state, path, archive(sound[:at] + b'N' * 1000 + sound[at:], values), 'storage')


def test_a_whole_model_is_no_state_dict(torch, tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / 'x.pth')
    with pytest.raises(CheckpointError, match=r'save model.state_dict\(\)'):
        load_torch_state(tmp_path / 'x.pth')
