"""PyTorch, safetensors and ONNX files: the libraries' own values where they are sound, a CheckpointError, and nothing
executed, where they are not.
"""

import collections
import contextlib
import io
import json
import os
import pickle
import struct
import time
import tracemalloc
import zipfile

import numpy as np
import pytest

from formats.onnx_file import load_onnx
from formats.safetensors_file import load_safetensors
from formats.torch_file import load_torch_state
from runtime.errors import CheckpointError, MissingDependencyError

REAL = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), '..', 'shared', 'data', 'checkpoints')


def refused(load, path, data, reason='.'):
    path.write_bytes(data)
    start = time.process_time()
    with pytest.raises(CheckpointError, match=reason) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert time.process_time() - start < 1


# PyTorch


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


# safetensors


def safetensors_file(header, data=b''):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack('<Q', len(text)) + text + data


def test_what_safetensors_saves(tmp_path):
    library = pytest.importorskip('safetensors.numpy')
    tensors = {
        'b': np.random.rand(3, 4),
        'a': np.zeros((0, 2), 'float16'),
        'scalar': np.array(3),
        'truth': np.array([True]),
    }
    library.save_file(tensors, tmp_path / 'x.safetensors', {'made by': 'a test'})
    loaded = load_safetensors(tmp_path / 'x.safetensors')
    assert list(loaded) == sorted(tensors)
    assert all(
        np.array_equal(loaded[name], tensors[name]) and loaded[name].dtype == tensors[name].dtype for name in tensors
    )
    data = (tmp_path / 'x.safetensors').read_bytes()
    for length in range(len(data)):
        refused(load_safetensors, tmp_path / 'cut.safetensors', data[:length])


@pytest.mark.parametrize(
    ('data', 'reason'),
    [
        (struct.pack('<Q', 2**31) + b'{}', 'the header would be'),
        (struct.pack('<Q', 2**63) + b'{}', 'the header would be'),
        (safetensors_file(b'[' * 100_000), 'nested too deeply'),
        (safetensors_file([]), 'no object'),
        (safetensors_file({}, b'x'), 'do not fill'),
        (
            safetensors_file({'w': {'dtype': 'F32', 'shape': [2], 'data_offsets': [0, 4]}}, bytes(4)),
            "'w' does not have as many bytes",
        ),
        (safetensors_file({'w': {'dtype': 'F32', 'shape': [2**40, 0], 'data_offsets': [0, 0]}}), "'w' does not have"),
        (
            safetensors_file({'w': {'dtype': 'C64', 'shape': [1], 'data_offsets': [0, 8]}}, bytes(8)),
            "'w' does not have",
        ),
        (
            safetensors_file({'w': {'dtype': 'F32', 'shape': [-1], 'data_offsets': [4, 0]}}, bytes(4)),
            "'w' does not have",
        ),
        (safetensors_file({'w': {'dtype': 'F32', 'shape': [1], 'data_offsets': [4, 8]}}, bytes(8)), 'gaps'),
        (
            safetensors_file({name: {'dtype': 'F32', 'shape': [1], 'data_offsets': [0, 4]} for name in 'ab'}, bytes(4)),
            'overlap',
        ),
        (safetensors_file({'w': {'dtype': 'BF16', 'shape': [1], 'data_offsets': [0, 2]}}, bytes(2)), 'cannot read it'),
        (safetensors_file({'w': 3}), "'w' does not have"),
    ],
    ids=range(13),
)
def test_damaged_safetensors(tmp_path, data, reason):
    pytest.importorskip('safetensors')
    refused(load_safetensors, tmp_path / 'x.safetensors', data, reason)


# ONNX


@pytest.fixture
def model():
    onnx = pytest.importorskip('onnx')
    pytest.importorskip('onnx.numpy_helper')
    weights = [
        onnx.numpy_helper.from_array(np.ones((4, 3, 3, 3), 'float32'), 'w'),
        onnx.helper.make_tensor('axes', onnx.TensorProto.INT64, [1], [1]),
    ]
    nodes = [onnx.helper.make_node('Conv', ['x', 'w'], ['c']), onnx.helper.make_node('Unsqueeze', ['c', 'axes'], ['y'])]
    ends = [
        onnx.helper.make_tensor_value_info(name, 1, shape)
        for name, shape in (('x', [1, 3, 8, 8]), ('y', [1, 1, 4, 6, 6]))
    ]
    built = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, 'g', ends[:1], ends[1:], weights),
        opset_imports=[onnx.helper.make_opsetid('', 13)],
    )
    built.ir_version = 8
    return built


def test_what_onnx_saves(tmp_path, model):
    (tmp_path / 'x.onnx').write_bytes(model.SerializeToString())
    assert load_onnx(tmp_path / 'x.onnx') == model


def test_damaged_onnx(tmp_path, model):
    import onnx

    def changed(change):
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        change(copy.graph.initializer[0], copy.graph)
        return copy.SerializeToString()

    path = tmp_path / 'x.onnx'
    refused(load_onnx, path, b'', '0 bytes')
    refused(load_onnx, path, b'\0' * 100, 'no valid ONNX')
    refused(load_onnx, path, b'\x08\x08' * 10_000_000, 'more than any network')
    refused(load_onnx, path, b'\x08\x08' * 500_000, 'fields')
    refused(load_onnx, path, b'\x3a\x02\x0a\x00' * 5_000_000, 'more than any network')
    refused(load_onnx, path, b'\x3a\xff\xff\xff\xff\x07', 'cut off or damaged')
    refused(load_onnx, path, model.SerializeToString()[:-20])
    refused(load_onnx, path, changed(lambda tensor, _: tensor.dims.__setitem__(0, 10**12)), 'w has 108 values')
    refused(load_onnx, path, changed(lambda tensor, _: tensor.dims.__setitem__(0, -4)), 'impossible shape')
    refused(load_onnx, path, changed(lambda tensor, _: setattr(tensor, 'data_type', 99)), 'unknown dtype')
    refused(load_onnx, path, changed(lambda tensor, _: setattr(tensor, 'raw_data', b'123')), 'w has 0.75 values')
    refused(load_onnx, path, changed(lambda _, graph: graph.node[0].input.append('nowhere')), 'no valid ONNX')
    refused(load_onnx, path, changed(lambda _, graph: graph.sparse_initializer.add()), 'sparse')

    def points_outside(tensor, _):
        tensor.ClearField('raw_data')
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key='location', value='../../etc/passwd')

    refused(load_onnx, path, changed(points_outside), 'another file')
    refused(
        load_onnx,
        path,
        changed(lambda _, graph: points_outside(graph.node[0].attribute.add(name='value', type=4).t, None)),
        'another file',
    )


def onnx_network(onnx, nodes, constants=(), batch='N'):
    """The bytes of a network from x (batch, 3, 8, 8) to y, of four axes."""
    ends = [
        onnx.helper.make_tensor_value_info(name, 1, shape)
        for name, shape in (('x', [batch, 3, 8, 8]), ('y', ['N', 'a', 'b', 'c']))
    ]
    weights = [onnx.numpy_helper.from_array(np.array(value), name) for name, value in dict(constants).items()]
    built = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, 'g', ends[:1], ends[1:], weights),
        opset_imports=[onnx.helper.make_opsetid('', 13)],
    )
    built.ir_version = 8
    return built.SerializeToString()


def test_onnx_of_a_kilobyte_that_asks_for_hours_or_gigabytes(tmp_path):
    onnx = pytest.importorskip('onnx')
    pytest.importorskip('onnx.numpy_helper')
    node, path = onnx.helper.make_node, tmp_path / 'x.onnx'
    scalar = [onnx.helper.make_tensor_value_info(name, kind, []) for name, kind in (('i', 7), ('c', 9), ('d', 9))]
    body = onnx.helper.make_graph([node('Identity', ['c'], ['d'])], 'body', scalar[:2], scalar[2:])
    relu = node('Relu', ['x'], ['y'])
    endless = node('Loop', ['often', 'yes'], [], body=body)
    path.write_bytes(onnx_network(onnx, [relu], batch=64))
    load_onnx(path)
    for reason, nodes, constants, batch in (
        ('holds a Loop', [endless, relu], {'often': 2**62, 'yes': True}, 'N'),
        ('x would be an array of 1000000×3×8×8', [relu], {}, 1_000_000),
        (
            'k would be an array of 100000×100000',
            [node('ConstantOfShape', ['s'], ['k']), node('ReduceSum', ['k'], ['r']), node('Add', ['x', 'r'], ['y'])],
            {'s': [100_000, 100_000]},
            'N',
        ),
        ('y would be an array of', [node('Tile', ['x', 's'], ['y'])], {'s': [1, 1, 100_000, 1000]}, 'N'),
        ('strides is outside', [node('MaxPool', ['x'], ['y'], kernel_shape=[2, 2], strides=[0, 0])], {}, 'N'),
        ('y would be', [node('AveragePool', ['x'], ['y'], kernel_shape=[2, 2], pads=[50_000] * 4)], {}, 'N'),
    ):
        data = onnx_network(onnx, nodes, constants, batch)
        assert len(data) < 1000
        refused(load_onnx, path, data, reason)


@pytest.mark.parametrize(('load', 'package'), [(load_safetensors, 'safetensors'), (load_onnx, 'onnx')])
def test_a_missing_package_is_one_line(tmp_path, monkeypatch, load, package):
    for name in (package, f'{package}.numpy'):
        monkeypatch.setitem(__import__('sys').modules, name, None)
    with pytest.raises(MissingDependencyError, match=f'{package} is not installed: pip install {package}'):
        load(tmp_path / 'x')
