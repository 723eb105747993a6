"""The MACs that ONNX's own shapes give, against those that are counted in MXNet's graph."""

import numpy as np
import pytest
from helpers.strip_networks import random_parameters

from graphs.complexity import complexity
from interop.onnx_export import export_onnx
from symbols import get_symbol

onnx = pytest.importorskip('onnx')

from interop.onnx_macs import onnx_macs  # noqa: E402


@pytest.mark.parametrize(('network', 'depth'), [('resnet', 20), ('resnext', 20), ('resnet-v1', 20), ('vgg', 16)])
def test_a_family_has_the_macs_of_its_symbol(network, depth, tmp_path):
    shape = (3, 32, 32)
    symbol = get_symbol(network, depth, 10, shape, 'none')
    args, aux = random_parameters(symbol, {'data': (1, *shape)})
    path = str(tmp_path / 'n.onnx')
    export_onnx(symbol, args, aux, shape, path)
    assert onnx_macs(onnx.load(path)) == complexity(symbol, {'data': (1, *shape)}).macs


def test_a_shape_that_is_not_known_gives_no_number():
    weight = onnx.numpy_helper.from_array(np.ones((4, 3, 3, 3), 'float32'), 'w')
    ends = [onnx.helper.make_tensor_value_info(name, 1, ['N', None, None, None]) for name in 'xy']
    node = onnx.helper.make_node('Conv', ['x', 'w'], ['y'])
    assert onnx_macs(onnx.helper.make_model(onnx.helper.make_graph([node], 'g', ends[:1], ends[1:], [weight]))) is None
