"""The operators that a symbol file may use, and how many inputs and outputs a node of each has.

MXNet has some 1,200 operators, among them ones that take a pointer as an attribute (``_Native``), read a file
(``_cvimread``), call back into Python (``Custom``), overwrite their inputs (``sgd_update``) or reach outside their
memory where a length is 0 (``SequenceLast``). A network needs none of these, so the list names the operators that are
allowed. Other names of a listed operator (``Softmax`` for ``SoftmaxOutput``, ``_Plus`` for ``elemwise_add``) are
resolved by MXNet itself.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Mapping

from runtime import mx
from runtime.errors import GraphError

_LAYERS = """
    Activation BatchNorm BatchNorm_v1 Concat Convolution Convolution_v1 Crop Deconvolution Dropout Embedding Flatten
    FullyConnected GroupNorm InstanceNorm L2Normalization LRN LayerNorm LeakyReLU Pad Pooling Pooling_v1 RNN Reshape
    SliceChannel SoftmaxActivation SwapAxis UpSampling _rnn_param_concat _contrib_AdaptiveAvgPooling2D
    _contrib_BatchNormWithReLU _contrib_BilinearResize2D _contrib_SyncBatchNorm _contrib_div_sqrt_dim
"""
_LOSSES = """
    BlockGrad CTCLoss LinearRegressionOutput LogisticRegressionOutput MAERegressionOutput MakeLoss SVMOutput
    SoftmaxOutput make_loss smooth_l1 softmax_cross_entropy
"""
_VISION = """
    BilinearSampler Correlation GridGenerator ROIPooling SpatialTransformer _contrib_DeformableConvolution
    _contrib_ModulatedDeformableConvolution _contrib_MultiBoxPrior _contrib_ROIAlign _contrib_box_decode
    _contrib_box_iou _contrib_box_nms
"""
_SHAPES = """
    Cast SequenceMask SequenceReverse _copy _split_v2 amp_cast amp_multicast batch_take broadcast_axis broadcast_like
    broadcast_to cast_storage depth_to_space diag expand_dims gather_nd one_hot pick repeat reshape_like reverse
    shape_array size_array slice slice_axis slice_like space_to_depth squeeze stack take tile transpose where
"""
_CONSTANTS = '_arange _contrib_arange_like _full _ones _zeros ones_like zeros_like'
_REDUCTIONS = """
    argmax argmax_channel argmin argsort log_softmax max mean min moments nanprod nansum norm prod softmax softmin sort
    sum topk
"""
_ARITHMETIC = """
    add_n batch_dot broadcast_add broadcast_div broadcast_equal broadcast_greater broadcast_greater_equal
    broadcast_hypot broadcast_lesser broadcast_lesser_equal broadcast_logical_and broadcast_logical_or
    broadcast_logical_xor broadcast_maximum broadcast_minimum broadcast_mod broadcast_mul broadcast_not_equal
    broadcast_power broadcast_sub dot elemwise_add elemwise_div elemwise_mul elemwise_sub khatri_rao _equal _greater
    _greater_equal _grad_add _hypot _lesser _lesser_equal _logical_and _logical_or _logical_xor _maximum _minimum _mod
    _not_equal _power _div_scalar _equal_scalar _greater_equal_scalar _greater_scalar _hypot_scalar _lesser_equal_scalar
    _lesser_scalar _logical_and_scalar _logical_or_scalar _logical_xor_scalar _maximum_scalar _minimum_scalar
    _minus_scalar _mod_scalar _mul_scalar _not_equal_scalar _plus_scalar _power_scalar _rdiv_scalar _rminus_scalar
    _rmod_scalar _rpower_scalar
"""
_FUNCTIONS = """
    abs arccos arccosh arcsin arcsinh arctan arctanh cbrt ceil clip cos cosh degrees erf erfinv exp expm1 fix floor
    gamma gammaln hard_sigmoid log log10 log1p log2 logical_not negative radians rcbrt reciprocal relu rint round rsqrt
    sigmoid sign sin sinh softsign sqrt square tan tanh trunc
"""
KNOWN = frozenset(
    ' '.join((_LAYERS, _LOSSES, _VISION, _SHAPES, _CONSTANTS, _REDUCTIONS, _ARITHMETIC, _FUNCTIONS)).split()
)

# Attributes that belong to the node and not to its operator; before MXNet 0.9.4 they were written without the
# underscores, perhaps after an input's name.
_NODE_ATTRIBUTES = ('ctx_group', 'lr_mult', 'wd_mult', 'force_mirroring', 'mirror_stage')


def lone_node(operator: str, attrs: Mapping[str, str]) -> mx.sym.Symbol:
    """A symbol of one node of ``operator`` with these attributes: its inputs, auxiliary states included, are variables
    of its own.

    ``len`` of the symbol is the number of the node's outputs, ``list_inputs()`` names its inputs. Numbers in the
    attributes must have been checked before (``symbol_limits``), since MXNet makes as many outputs as they say. Raises
    GraphError for an operator that is not ``KNOWN``, or attributes that MXNet rejects.
    """
    return _lone_node(
        operator, tuple(sorted((key, value) for key, value in attrs.items() if not _is_node_attribute(key)))
    )


@functools.lru_cache(maxsize=4096)
def _lone_node(operator, attrs):
    if not is_known(operator):
        raise GraphError(f'operator {operator!r} is not one that networks from files may use')
    if canonical_name(operator) == 'LeakyReLU' and dict(attrs).get('act_type') == 'rrelu':
        # Measured on 1.9.1, for every shape and slope: a training step on the CPU is a segmentation fault.
        raise GraphError("LeakyReLU with act_type 'rrelu' ends MXNet's process in training; use 'leaky' or 'prelu'")
    size = len(attrs)
    keys = (ctypes.c_char_p * size)(*(key.encode() for key, _ in attrs))
    values = (ctypes.c_char_p * size)(*(value.encode() for _, value in attrs))
    handle = ctypes.c_void_p()
    try:
        mx.base.check_call(
            mx.base._LIB.MXSymbolCreateAtomicSymbol(_creator(operator), size, keys, values, ctypes.byref(handle))
        )
        node = mx.sym.Symbol(handle)
        # Composed with nothing, a node gets a variable for each of its inputs.
        node._compose(name='node')
    except mx.MXNetError as error:
        raise GraphError(f'MXNet rejects the attributes of operator {operator}: {first_line(error)}') from None
    return node


def is_known(operator: str) -> bool:
    """Whether networks from files may use this operator."""
    return canonical_name(operator) in KNOWN


def canonical_name(operator: str) -> str:
    """The name that MXNet itself uses for an operator: ``Reshape`` for ``reshape``. Raises GraphError for an operator
    that MXNet does not have.
    """
    name = ctypes.c_char_p()
    mx.base.check_call(mx.base._LIB.MXSymbolGetAtomicSymbolName(_creator(operator), ctypes.byref(name)))
    return (name.value or b'').decode()


@functools.lru_cache(maxsize=4096)
def _creator(operator):
    handle = ctypes.c_void_p()
    if mx.base._LIB.NNGetOpHandle(operator.encode(), ctypes.byref(handle)) != 0:
        raise GraphError(f'there is no operator {operator!r} in MXNet')
    return handle


def _is_node_attribute(key):
    return key.startswith('__') and key.endswith('__') or key.endswith(_NODE_ATTRIBUTES)


def first_line(error: object) -> str:
    """What an MXNetError says, in one line without the C++ stack trace below it."""
    text = str(error).split('MXNetError: ', 1)[-1]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0][:300] if lines else 'unknown reason'
