"""Errors of an optimizer that a kvstore would swallow.

An optimizer set on a kvstore is called back from C++, where Python can only print an exception ("Exception ignored on calling ctypes callback function")
and go on: the weights stay as they are or, on a parameter server, are overwritten by raw gradients, and training ends with exit code 0.
"""
import ctypes
import functools
import os
import sys
import threading
import time
import traceback

from runtime.errors import TrainingError

KVSTORE_CALLBACK = 'updater_handle'  # the function of mxnet.kvstore that C++ calls


def stops_training(method):
    """Decorate a method of an optimizer so that its errors end the training, whoever calls it.

    Called from Python, the error is raised as it is. Called back by a kvstore, the thread that trains gets a TrainingError as soon as it is back in Python;
    a parameter server, which trains nothing, ends with exit code 2.
    """
    @functools.wraps(method)
    def guarded(*args, **kwargs):
        try:
            return method(*args, **kwargs)
        except Exception as error:
            if os.environ.get('DMLC_ROLE') == 'server':
                traceback.print_exc()
                print(f'error: the optimizer failed on this parameter server: {error}', file=sys.stderr, flush=True)
                os._exit(2)
            if _in_callback(sys._getframe()):
                threading.Thread(target=_raise_in, args=(threading.get_ident(), f'the optimizer failed inside the kvstore: {error}'), daemon=True).start()
            raise
    return guarded


def _in_callback(frame):
    while frame:
        if frame.f_code.co_name == KVSTORE_CALLBACK:
            return True
        frame = frame.f_back
    return False


def _raise_in(thread, message):
    """Raise TrainingError(message) in ``thread`` once it has left the callback, within which it would be swallowed like the first."""
    class StoppedTraining(TrainingError):
        def __init__(self, *args):
            super().__init__(message)

    while _in_callback(sys._current_frames().get(thread)):
        time.sleep(0.001)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(StoppedTraining))
