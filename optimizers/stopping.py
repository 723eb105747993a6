"""Errors of an optimizer that a kvstore would swallow.

An optimizer set on a kvstore is called back from C++, where Python can only print an exception ("Exception ignored on
calling ctypes callback function") and go on: the weights stay as they are or, on a parameter server, are overwritten by
raw gradients, and training ends with exit code 0.
"""

import functools
import os
import sys
import traceback
from typing import Any, Callable, TypeVar, cast

from runtime.errors import TrainingError

Method = TypeVar('Method', bound=Callable[..., Any])
KVSTORE_CALLBACK = 'updater_handle'  # the function of mxnet.kvstore that C++ calls


def stops_training(method: Method) -> Method:
    """Decorate a method of an optimizer so that its errors end the training, from wherever it is called.

    Called from Python, the error is raised as it is. Called back by a kvstore, the Python function that called the
    kvstore raises a TrainingError as soon as C++ has returned to it. A parameter server, which no Python function
    called, ends with exit code 2.
    """

    @functools.wraps(method)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except Exception as error:
            callback = _kvstore_callback(sys._getframe())
            if callback:
                _fail_behind(callback, error)
            raise

    return cast(Method, guarded)


def _kvstore_callback(frame):
    """The frame that a kvstore called, if ``frame`` runs inside one."""
    while frame and frame.f_code.co_name != KVSTORE_CALLBACK:
        frame = frame.f_back
    return frame


def _fail_behind(callback, error):
    """Raise a TrainingError in the frame on the other side of C++; end the process where there is none that trains."""
    trains = callback.f_back
    if trains is None or os.environ.get('DMLC_ROLE') == 'server':
        traceback.print_exc()
        print(f'error: the optimizer failed on this parameter server: {error}', file=sys.stderr, flush=True)
        os._exit(2)
    # As a debugger would, by the function that Python calls before a traced frame goes on to its next line or returns.
    if trains.f_trace is None:  # the first of several errors counts

        def stop(*_):
            raise TrainingError(f'the optimizer failed inside the kvstore: {error}')

        trains.f_trace = stop
        sys.settrace(lambda *_: None)  # switches tracing on, and leaves alone what is called from now on
