"""Files of safetensors and of ONNX: the libraries' own values where they are sound, else a CheckpointError."""

import json
import struct

import numpy as np
import pytest
from helpers.refusals import refused

from formats.onnx_file import load_onnx
from formats.safetensors_file import load_safetensors
from runtime.errors import MissingDependencyError

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
