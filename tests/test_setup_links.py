"""The links that let MXNet's CUDA build find the CUDA libraries of pip."""

import os
import shutil

import pytest

from bootstrap import cuda_links


@pytest.fixture
def environment(tmp_path):
    packages = tmp_path / 'venv' / 'lib' / 'python3.11' / 'site-packages'
    for name in (
        'mxnet/libmxnet.so',
        'nvidia/cudnn/lib/libcudnn.so.8',
        'nvidia/cudnn/lib/libcudnn_ops_infer.so.8',
        'nvidia/cublas/lib/libcublas.so.11',
    ):
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        (packages / name).write_text(name)
    return tmp_path / 'venv'


def test_every_library_is_linked_and_the_environment_may_move(environment, tmp_path):
    names = cuda_links.link(cuda_links.site_packages(str(environment)))
    assert names == ['libcublas.so.11', 'libcudnn.so.8', 'libcudnn_ops_infer.so.8']
    shutil.move(str(environment), str(tmp_path / 'moved'))
    beside = tmp_path / 'moved' / 'lib' / 'python3.11' / 'site-packages' / 'mxnet'
    assert (beside / 'libcudnn.so.8').read_text() == 'nvidia/cudnn/lib/libcudnn.so.8'
    assert not os.path.isabs(os.readlink(str(beside / 'libcublas.so.11')))


def test_linking_again_replaces_what_dangles(environment):
    packages = cuda_links.site_packages(str(environment))
    os.symlink('/nowhere', os.path.join(packages, 'mxnet', 'libcudnn.so.8'))
    assert cuda_links.link(packages) == cuda_links.link(packages)
    assert os.path.exists(os.path.join(packages, 'mxnet', 'libcudnn.so.8'))


def test_no_environment_is_an_error_that_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match='no site-packages in'):
        cuda_links.site_packages(str(tmp_path))
