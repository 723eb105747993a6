"""Training with PyTorch on the CPU: process settings that decide the speed, and ``torch.compile`` for the body of a
step.

Measured with ResNet-20, batch 64, bfloat16, channels last, on two cores: 480 images/s without any of this, 860 with all
of it.
"""

import ctypes
import logging
import os
import shutil
import time
from typing import Any, Callable, Optional

import torch

from runtime import mx
from runtime.errors import UserError

# Compiling takes up to 75 seconds. It makes a bfloat16 step about a third faster, so a shorter run than this does not
# get the time back.
WORTH_COMPILING_SECONDS = 600
# Multiply-adds per second of an uncompiled bfloat16 training step on two cores: an estimate that only has to be right
# within a factor of two.
EAGER_MACS_PER_SECOND = 6e10


def configure_process() -> None:
    """Set what PyTorch needs on a CPU: one pool of threads, and memory that is kept instead of being returned to the
    system and faulted in again.

    MXNet's engine computes in a thread of its own. Where it has computed with OpenMP, there is a second pool of
    threads; GNU OpenMP then counts more threads than cores, stops waiting actively, and each parallel loop costs two
    context switches. MXNet's synchronous engine computes in the calling thread instead. It takes effect where MXNet has
    not computed yet; otherwise nothing changes but speed.
    """
    if 'MXNET_ENGINE_TYPE' not in os.environ:
        os.environ['MXNET_ENGINE_TYPE'] = 'NaiveEngine'
        # MXNet reads the variable once, when its engine starts; other processes that we start must not read it
        mx.nd.waitall()
        del os.environ['MXNET_ENGINE_TYPE']
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # not glibc
        return
    trim_threshold, mmap_max, arena_max = -1, -4, -8
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(arena_max, 1)


def compiler() -> Optional[str]:
    """The path of a C++ compiler, or None."""
    return shutil.which(os.environ.get('CXX', 'g++')) or shutil.which('clang++')


def check_compile(choice: str, device: torch.device) -> None:
    """Raise UserError where ``--compile on`` is not possible."""
    if choice == 'on' and device.type != 'cpu':
        raise UserError(
            '--compile on is for the CPU; on a card, leave it out: steps are recorded as CUDA graphs (--cuda-graphs)'
        )
    if choice == 'on' and not compiler():
        raise UserError('--compile on needs a C++ compiler; install g++, or set CXX to one, or leave --compile out')


def should_compile(choice: str, dtype: str, device: torch.device, macs_in_run: float) -> bool:
    """Whether ``--compile choice`` ('auto', 'on', 'off') compiles a run of ``macs_in_run`` multiply-adds. Where 'auto'
    does not, the log says why.
    """
    if choice != 'auto' or device.type != 'cpu':
        return choice == 'on'
    if dtype != 'bfloat16':
        return _not_compiled(f'{dtype} gains nothing from it on a CPU')
    if not compiler():
        return _not_compiled('no C++ compiler was found; install g++ to train faster')
    if macs_in_run / EAGER_MACS_PER_SECOND < WORTH_COMPILING_SECONDS:
        return _not_compiled('the run is too short to gain from it')
    return True


def _not_compiled(reason):
    logging.info('Steps are not compiled: %s', reason)
    return False


class Compiled:
    """``function`` of tensors through ``torch.compile``, or itself where that fails.

    Parameters
    ----------
    function : from tensors to tensors.
    name : what it is, for the log.
    trial : called once with the compiled function before its first real use. Compiling happens inside it, so it must
    leave no trace in the parameters.
    """

    def __init__(self, function: Callable, name: str, trial: Callable[[Callable], Any]) -> None:
        self._function, self._name, self._trial = function, name, trial
        self._compiled: Optional[Callable] = None

    def __call__(self, *tensors: torch.Tensor) -> Any:
        function = self._compiled or self._compile()
        return function(*tensors)

    def _compile(self) -> Callable:
        import torch._dynamo  # slow to import, so only here

        started = time.time()
        compiled: Callable = torch.compile(self._function, dynamic=False)
        try:
            self._trial(compiled)
        except (RuntimeError, torch._dynamo.exc.TorchDynamoException, OSError) as error:
            logging.warning(
                'The %s could not be compiled, so it runs uncompiled: %s', self._name, str(error).partition('\n')[0]
            )
            compiled = self._function
        else:
            logging.info('Compiled the %s in %.0f seconds', self._name, time.time() - started)
        self._compiled = compiled
        return compiled
