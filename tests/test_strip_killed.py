"""What a killed or failing ``strip --force`` leaves: the old files, the new ones, or files that are not taken for a
network; never old and new ones side by side.
"""

import errno
import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from helpers.strip_networks import random_parameters, small, with_dead

from formats.checkpoint_files import load_checkpoint, save_model
from graphs import stripped_files
from runtime import files
from runtime.errors import CheckpointError
from runtime.files import written_together
from tools import strip_params

NAMES = ('net-symbol.json', 'net-0000.params', 'net-structure.json')
# Another process, killed at the Nth time that it removes or puts in place a file.
KILLED = """
import os, signal, sys
from runtime import files

wanted, done = int(sys.argv[1]), [0]

def counted(change):
    def changed(*args):
        done[0] += 1
        if done[0] == wanted:
            os.kill(os.getpid(), signal.SIGKILL)
        return change(*args)
    return changed

with files.written_together(sys.argv[2:]) as scratches:
    for scratch in scratches:
        with open(scratch, 'w') as out:
            out.write('new')
    os.remove, os.replace = counted(os.remove), counted(os.replace)
"""


@pytest.mark.parametrize('moment', [1, 2, 3, 4, 5])
def test_a_killed_process_leaves_no_mixture(tmp_path, moment):
    paths = [tmp_path / name for name in NAMES]
    for path in paths:
        path.write_text('old')
    argv = [sys.executable, '-c', KILLED, str(moment), *map(str, paths)]
    assert subprocess.run(argv).returncode == -9
    found = [path.read_text() if path.exists() else None for path in paths]
    there = [content for content in found if content]
    assert len(set(there)) <= 1, found
    assert found == sorted(found, key=lambda content: content is None), 'the last files are the ones that are missing'
    with written_together(list(map(str, paths))) as scratches:
        for scratch in scratches:
            with open(scratch, 'w') as out:
                out.write('newer')
    assert {path.read_text() for path in paths} == {'newer'}


def save_full(folder, dead):
    symbol = small('resnet-v1', 'weight')
    arg_params, aux_params = random_parameters(symbol)
    save_model(str(folder / 'full'), 3, symbol, with_dead(arg_params, {'lambda_block': np.array(dead)}), aux_params)


def strip_it(folder, *options):
    return strip_params.main([f'{folder / "full"}:3', '--out', str(folder / 'net'), *options])


class Killed(BaseException):
    """As if the process ended here."""


def dying(change, moment, done):
    """``os.remove`` or ``os.replace`` that raises Killed in place of the change number ``moment`` of a file of the
    set.
    """

    def changed(*paths):
        if os.path.basename(paths[-1]) in NAMES:
            done.append(paths[-1])
            if len(done) >= moment:
                raise Killed
        return change(*paths)

    return changed


@pytest.mark.parametrize('moment', range(1, 6))
def test_strip_that_ends_between_its_files(tmp_path, monkeypatch, moment):
    save_full(tmp_path, [True, False, False, False])
    strip_it(tmp_path)
    old = {name: (tmp_path / name).read_bytes() for name in NAMES}
    save_full(tmp_path, [True, False, True, False])
    done = []
    with monkeypatch.context() as patched:
        patched.setattr(files.os, 'remove', dying(os.remove, moment, done))
        patched.setattr(files.os, 'replace', dying(os.replace, moment, done))
        with pytest.raises(Killed):
            strip_it(tmp_path, '--force')
    left = [name for name in NAMES if (tmp_path / name).exists()]
    assert len({(tmp_path / name).read_bytes() == old[name] for name in left}) == 1
    if 'net-0000.params' in left:
        load_checkpoint(str(tmp_path / 'net'), 0)
    else:
        with pytest.raises(CheckpointError, match='no such file'):
            load_checkpoint(str(tmp_path / 'net'), 0)


def test_a_full_disk_changes_nothing(tmp_path, monkeypatch):
    save_full(tmp_path, [True, False, False, False])
    strip_it(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    save_full(tmp_path, [True, False, False, False])

    def full(path, *args):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(stripped_files, 'save_params', full)
    with pytest.raises(OSError, match='No space left'):
        strip_it(tmp_path, '--force')
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    for path in [tmp_path / name for name in NAMES]:
        path.unlink()
    with pytest.raises(OSError, match='No space left'):
        strip_it(tmp_path)
    assert not [path.name for path in tmp_path.iterdir() if 'net' in path.name]


def test_the_structure_file_holds_the_sums_of_the_others(tmp_path):
    save_full(tmp_path, [True, False, False, False])
    strip_it(tmp_path)
    sums = json.loads((tmp_path / NAMES[2]).read_text())['sha256']
    assert sums == {name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in NAMES[:2]}
