#!/usr/bin/env bash
# Try the CUDA build of MXNet on a machine that may have neither a card nor CUDA: set it up from a clean checkout of what is committed here, import it, count
# cards and compute on the CPU. `make check-cu112` runs this; it takes 5 GB in the temporary folder while it runs, and a C compiler.
set -euo pipefail
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

git clone --quiet . "$scratch/checkout"
cd "$scratch/checkout"
make venv MXNET=cu112 PYTHON="${PYTHON:-}"

# libcuda.so.1 belongs to the driver. Where there is no driver, a stand-in with the functions that MXNet links to, each of which says "no device", will do.
if ! ldconfig -p | grep -q 'libcuda\.so\.1'; then
    echo 'no driver here: MXNet gets a stand-in for libcuda.so.1'
    mkdir driver
    for name in cuDeviceGet cuDevicePrimaryCtxRetain cuGetErrorString cuGraphKernelNodeGetParams cuGraphNodeGetType cuLaunchKernel cuModuleGetFunction \
                cuModuleLoadData cuModuleLoadDataEx cuModuleUnload; do
        echo "int $name(void) { return 100; }"
    done | cc -shared -fPIC -Wl,-soname,libcuda.so.1 -o driver/libcuda.so.1 -x c -
    export LD_LIBRARY_PATH=$PWD/driver
else
    unset LD_LIBRARY_PATH
fi

.venv/bin/python - <<'PYTHON'
import os
from runtime import mx

# Every CUDA library that is in memory must be pip's, none the system's.
with open('/proc/self/maps') as maps:
    loaded = {line.split(None, 5)[5].strip() for line in maps if '/lib' in line}
cuda = sorted(path for path in loaded if os.path.basename(path).startswith(('libcud', 'libcublas', 'libcufft', 'libcurand', 'libcusolver', 'libnccl', 'libnv')))
foreign = [path for path in cuda if not path.startswith(os.getcwd())]
print(len(cuda), 'CUDA libraries loaded; from elsewhere:', foreign or 'none')
assert not [path for path in foreign if 'libcuda.so' not in path and 'libnvidia' not in path], foreign

assert mx.runtime.Features().is_enabled('CUDA')
print('cards:', mx.context.num_gpus())
total = mx.nd.dot(mx.nd.ones((64, 64)), mx.nd.ones((64, 64))).sum().asscalar()
assert total == 64 ** 3, total
print('MXNet', mx.__version__, 'with CUDA computes on the CPU')
PYTHON
