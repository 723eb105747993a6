"""Let MXNet's CUDA build find the CUDA libraries that pip installed, with no system CUDA and no LD_LIBRARY_PATH.

``libmxnet.so`` looks for libraries in its own folder (its RPATH is ``$ORIGIN``), pip puts them into ``nvidia/*/lib``:
so each gets a link beside ``libmxnet.so``. The links are relative: they live and move with the environment. All
libraries are linked, not only those that MXNet names, because they load one another by name while they run (cuDNN its
parts, cuBLAS its Lt half). ``libcuda.so.1`` comes with the driver and from nowhere else.

``bootstrap.venv`` calls this; ``python -m bootstrap.cuda_links`` does it after a ``pip install -r requirements.txt`` by
hand.
"""

import glob
import os
from typing import List


def site_packages(venv: str) -> str:
    """The folder that pip installs into, for the environment in the folder ``venv``. Raises FileNotFoundError where it
    does not exist.
    """
    found = glob.glob(os.path.join(venv, 'lib', 'python3*', 'site-packages'))
    if not found:
        raise FileNotFoundError(f'no site-packages in {venv}')
    return found[0]


def link(packages: str) -> List[str]:
    """Link every CUDA library of the pip packages in the folder ``packages`` beside its ``mxnet/libmxnet.so``; returns
    their names.
    """
    beside = os.path.join(packages, 'mxnet')
    libraries = sorted(glob.glob(os.path.join(packages, 'nvidia', '*', 'lib', '*.so*')))
    for library in libraries:
        _replace_link(os.path.relpath(library, beside), os.path.join(beside, os.path.basename(library)))
    return [os.path.basename(library) for library in libraries]


def _replace_link(target, name):
    if os.path.lexists(name):
        os.remove(name)
    os.symlink(target, name)


if __name__ == '__main__':
    print('linked:', *link(site_packages('.venv')))
