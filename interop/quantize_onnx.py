"""An ONNX network in 8 bits, by ONNX Runtime's own quantisation."""

import importlib
import logging
import os
import tempfile
from typing import Any, Iterator, List, Optional, Tuple

import numpy as np

from graphs.comparison import spread
from runtime.errors import MissingDependencyError
from runtime.files import written_whole

from .runners import OnnxRunner

BATCH = 32


def quantize_onnx(source: str, path: str, images: np.ndarray) -> None:
    """Write the ONNX file ``source`` in 8 bits to ``path``: weights as int8 with a scale for each channel, feature maps
    as uint8 whose ranges are those on ``images``, float32 (N, C, H, W), preprocessed.

    Full connections stay in float32 where that halves the difference from ``source`` on these images. Metadata is kept.
    Raises MissingDependencyError where ``onnxruntime.quantization`` cannot be used.
    """
    onnx_quantization()
    onnx = importlib.import_module('onnx')
    model = onnx.load(source)
    expected = OnnxRunner(model, source)(images)
    connections = [node.name for node in model.graph.node if node.op_type in ('Gemm', 'MatMul')]
    with written_whole(path) as scratch, tempfile.TemporaryDirectory() as folder:
        tried: List[Tuple[float, Any]] = []
        for kept in [[], connections] if connections else [[]]:
            made = os.path.join(folder, f'{len(tried)}.onnx')
            _quantise(source, made, model.graph.input[0].name, images, kept)
            quantised = onnx.load(made)
            tried.append((_difference(expected, OnnxRunner(quantised, path)(images)), quantised))
        chosen = tried[0][1] if tried[0][0] <= 2 * tried[-1][0] else tried[-1][1]
        onnx.helper.set_model_props(chosen, {entry.key: entry.value for entry in model.metadata_props})
        onnx.save(chosen, scratch)


def _quantise(source, path, name, images, kept):
    """Write ``source`` in 8 bits to ``path``, but for the nodes called ``kept``."""
    quantization = onnx_quantization()
    level = logging.root.level
    try:
        logging.root.setLevel(logging.ERROR)  # it advises what was done already
        quantization.quantize_static(
            source,
            path,
            _Batches(name, images),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=kept,
        )
    finally:
        logging.root.setLevel(level)


def _difference(expected, found):
    """The root mean square of the differences, as a part of each output's spread: the largest of the outputs."""
    return max(float(np.sqrt(np.mean((one - other) ** 2))) / spread(one) for one, other in zip(expected, found))


def onnx_quantization() -> Any:
    """The module ``onnxruntime.quantization``. Raises MissingDependencyError where it cannot be imported."""
    try:
        return importlib.import_module('onnxruntime.quantization')
    except ImportError as error:
        reason = str(error)
    except AttributeError:  # onnx 1.13 lacks number types that it asks for
        reason = f'it does not work with onnx {importlib.import_module("onnx").__version__}'
    raise MissingDependencyError(
        f'onnxruntime.quantization cannot be used ({reason}): pip install onnx==1.14.1 protobuf==3.20.3 '
        'onnxruntime==1.18.1'
    )


class _Batches:
    """Calibration images as ``quantize_static`` reads them."""

    def __init__(self, name: str, images: np.ndarray) -> None:
        self._feeds: Iterator[dict] = ({name: images[start : start + BATCH]} for start in range(0, len(images), BATCH))

    def get_next(self) -> Optional[dict]:
        """The next batch, None behind the last one."""
        return next(self._feeds, None)
