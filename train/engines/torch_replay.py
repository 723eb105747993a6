"""Steps as CUDA graphs. The processor needs longer to launch the kernels of a small network's step one by one than the
card needs to compute it. So the step is recorded once, as a CUDA graph, and replayed by a single launch.

What a graph may hold is PyTorch's rule (its notes on CUDA semantics, "CUDA Graphs"): tensors at fixed addresses, no
waiting for the card, warmed up on a stream of its own.
"""

import logging
from typing import Any, Callable, List, Optional, Tuple

import torch


class Replayed:
    """A function of tensors whose shapes never change, recorded at its fourth call.

    The first three calls compute; recording itself computes nothing. The tensors that are returned belong to the
    recording: the next call overwrites them. Where recording fails, a warning says so once, and every call computes as
    the first three.

    Parameters
    ----------
    function : from tensors to tensors; everything else that it reads or writes must stay where it is.
    recorder : a ``CudaRecorder``, or None to compute every call.
    """

    WARM_UP = 3

    def __init__(self, function: Callable, recorder: Optional['CudaRecorder']) -> None:
        self._function, self._recorder = function, recorder
        self._calls = 0
        self._inputs: Optional[List[torch.Tensor]] = None
        self._replay: Optional[Callable[[], None]] = None

    def __call__(self, *tensors: torch.Tensor) -> Any:
        if self._recorder is None:
            return self._function(*tensors)
        self._take(tensors)
        self._calls += 1
        if self._calls <= self.WARM_UP:
            return self._recorder.warm_up(self._on_inputs)
        if self._replay is None and self._recorder:
            self._record()
        if self._replay is None:
            return self._on_inputs()
        self._replay()
        return self._outputs

    def _on_inputs(self):
        return self._function(*self._inputs)

    def _take(self, tensors):
        if self._inputs is None:
            self._inputs = [torch.empty_like(tensor) for tensor in tensors]
        for mine, tensor in zip(self._inputs, tensors):
            mine.copy_(tensor)

    def _record(self):
        try:
            self._replay, self._outputs = self._recorder.record(self._on_inputs)
        except RuntimeError as error:
            logging.warning(
                'This network cannot be recorded as a CUDA graph, so its kernels are launched one by one: %s',
                str(error).partition('\n')[0],
            )
            self._recorder = None


class CudaRecorder:
    """Records on a stream of its own on ``device``, which must be the current one; warm-up takes the same stream, for
    gradients remember theirs.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._stream = device, torch.cuda.Stream(device)

    def warm_up(self, function: Callable[[], Any]) -> Any:
        """What ``function()`` returns, computed on the stream for recording."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            outputs = function()
        current.wait_stream(self._stream)
        return outputs

    def record(self, function: Callable[[], Any]) -> Tuple[Callable[[], None], Any]:
        """(a function that replays ``function()``, the outputs that each replay fills). Raises RuntimeError for what
        cannot be recorded.
        """
        graph = torch.cuda.CUDAGraph()
        # The outer context gives the stream back when recording fails: PyTorch's own does not.
        with torch.cuda.stream(self._stream), torch.cuda.graph(graph, stream=self._stream):
            outputs = function()
        return graph.replay, outputs
