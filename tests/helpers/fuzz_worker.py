"""One fuzzing process: reads damaged files one after another, and may die of it.

It leaves its place in a small file before each case, so that whoever started it knows what killed it.
"""

import contextlib
import faulthandler
import json
import math
import os
import resource
import struct
import sys
import time

import numpy as np

from formats.manifest import read_manifest
from formats.matlab_file import read_table
from formats.metrics_file import read_metrics
from formats.onnx_file import load_onnx
from formats.params_file import load_params
from formats.recipe_file import read_recipe
from formats.record_index import read_index
from formats.safetensors_file import load_safetensors
from formats.symbol_file import load_symbol
from formats.symbol_fit import check_fit, expected_shapes
from formats.symbol_shapes import check_shapes
from formats.tar_files import read_members
from formats.torch_file import load_torch_state
from graphs.for_training import normalised_alone
from helpers.fuzz_cases import Corpus
from runtime import mx
from runtime.errors import UserError
from runtime.reading import read_bytes
from tools.records.manifest import read_manifest as record_manifest
from tools.records.sources import find_images
from tools.tables.results import read_result

LOADERS = {
    'params': load_params,
    'symbol': load_symbol,
    'torch': load_torch_state,
    'safetensors': load_safetensors,
    'onnx': load_onnx,
    'metrics': read_metrics,
    'result': read_result,
    'record manifest': lambda path: record_manifest(path[: -len('.json')]),
    'manifest': read_manifest,
    'recipe': read_recipe,
    'idx': read_index,
    'tar': find_images,
    'packed tar': lambda path: read_members(path, str, MEMORY >> 4, MEMORY >> 4, 'fetch it again'),
    'matlab': lambda path: read_table(read_bytes(path, MEMORY), path, 'synsets', ('ID', 'WNID')),
}
ENDINGS = {
    'params': '.params',
    'symbol': '-symbol.json',
    'torch': '.pth',
    'safetensors': '.safetensors',
    'onnx': '.onnx',
    'metrics': '-metrics.jsonl',
    'result': '.json',
    'record manifest': '.json',
    'manifest': '.json',
    'recipe': '.args',
    'idx': '.idx',
    'tar': '.tar',
    'packed tar': '.tar.gz',
    'matlab': '.mat',
}
MEMORY = 1 << 30
CASE = 'case-'
# Seconds of this process's own time for reading one file: the promise is one second, on a machine of its own.
TIME_TO_READ = 1.0
TIME_TO_HANG = 20
# A network within this many values is also run.
MAX_VALUES = 1 << 22
VALUES = np.random.RandomState(0)
# What inputs and weights are set to: operators that take them for indices or lengths must survive all of it.
EXTREMES = np.array([0, 1, 1, 2, 3, -1, 0.5, -100, 1000, 1e9, np.nan])
SHAPES = [{'data': (2, 3, 32, 32)}, {'data': (3, 2), 'state': (1, 2, 5), 'cell': (1, 2, 5)}, {}]


def limit_memory():
    """Let this process take 1 GB more than it has now, and no more."""
    with open('/proc/self/statm') as status:
        pages = int(status.read().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def judge(kind, path, run):
    """Read one file; what is wrong with how that went, or None. A symbol that was accepted is also bound and run."""
    start = time.process_time()
    try:
        loaded = LOADERS[kind](path)
    except UserError as error:
        loaded = None
        if path not in str(error):
            return f'the error does not name the file: {error}'
    except Exception as error:
        return f'{type(error).__name__}: {str(error)[:200]}'
    if time.process_time() - start > TIME_TO_READ:
        return f'took {time.process_time() - start:.1f} s'
    if loaded is not None and kind == 'symbol' and run:
        exercise(loaded)
    return None


def exercise(symbol):
    """Infer, bind, run and train a symbol once; MXNet's own errors are fine, the death of the process is not."""
    check_parameters(symbol)
    symbol = normalised_alone(symbol)  # as the trainer has it; the operator would wait for other devices
    for shapes in SHAPES:
        try:
            known = {name: shape for name, shape in shapes.items() if name in symbol.list_arguments()}
            check_shapes(symbol, known, 'file')
            _, outputs, _ = symbol.get_internals().infer_shape_partial(**known)
            if not outputs or any(np.prod(shape, dtype=float) > MAX_VALUES for shape in outputs):
                continue
            for training in (False, True):
                executor = symbol.simple_bind(mx.cpu(), grad_req='write' if training else 'null', **known)
                for array in executor.arg_arrays:
                    array[:] = VALUES.choice(EXTREMES, array.shape)
                executor.forward(is_train=training)
                if training:
                    executor.backward([mx.nd.ones(output.shape, dtype=output.dtype) for output in executor.outputs])
                mx.nd.waitall()
        # simple_bind raises RuntimeError, an index out of range IndexError, and MXNet's Python side TypeError or
        # ValueError for types it does not know.
        except (mx.MXNetError, RuntimeError, TypeError, ValueError, LookupError, AttributeError):
            continue


def check_parameters(symbol):
    """Hold a symbol against parameters that fit it as far as can be told, then against some of which one does not."""
    expected = expected_shapes(symbol, symbol.list_arguments())
    shapes = {
        name: tuple(max(side, 2) for side in expected.get(name) or (2, 2))
        for name in symbol.list_arguments() + symbol.list_auxiliary_states()
    }
    for name in (None, *list(shapes)[::5]):
        arrays = {
            key: np.empty(shape + (2,) if key == name else shape, 'int8')
            for key, shape in shapes.items()
            if math.prod(shape) <= MAX_VALUES
        }
        states = {key: arrays.pop(key) for key in symbol.list_auxiliary_states() if key in arrays}
        with contextlib.suppress(UserError):
            check_fit(symbol, arrays, states, 'file')


def main(folder, seed, first, step, count, run_share):
    """Judge the cases ``first``, ``first + step``, … below ``count``; a file that found something, or killed the
    process, stays in ``folder``.
    """
    os.makedirs(folder, exist_ok=True)
    corpus = Corpus(folder)
    limit_memory()
    with open(os.path.join(folder, 'place'), 'wb', buffering=0) as place, open(
        os.path.join(folder, 'findings.jsonl'), 'a'
    ) as findings:
        for index in range(first, count, step):
            place.seek(0)
            place.write(struct.pack('<q', index))
            kind, data = corpus.case(seed, index)
            path = os.path.join(folder, f'{CASE}{index}{ENDINGS[kind]}')
            with open(path, 'wb') as out:
                out.write(data)
            faulthandler.dump_traceback_later(TIME_TO_HANG, exit=True)
            finding = judge(kind, path, index % 100 < run_share)
            faulthandler.cancel_dump_traceback_later()
            if not finding:
                os.remove(path)
            else:
                findings.write(json.dumps({'index': index, 'kind': kind, 'reason': finding}) + '\n')
                findings.flush()
        place.seek(0)
        place.write(struct.pack('<q', -1))


if __name__ == '__main__':
    main(sys.argv[1], *map(int, sys.argv[2:]))
