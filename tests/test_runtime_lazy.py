"""Command lines are read before anything large is loaded."""

import glob
import json
import os
import pathlib
import subprocess
import sys
import types

import pytest

from optimizers.rules import RULES
from runtime.lazy import LazyModule
from train.arguments import LAMBDA_RULES

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SCRIPTS = sorted(
    os.path.relpath(path, ROOT)
    for folder in ('train', 'tools')
    for path in glob.glob(os.path.join(ROOT, folder, '*.py'))
    if not path.endswith('__init__.py') and "__name__ == '__main__'" in pathlib.Path(path).read_text(encoding='utf-8')
)
LARGE = ('mxnet', 'torch', 'gluoncv', 'matplotlib', 'cv2', 'onnx', 'onnxruntime', 'scipy', 'sklearn', 'requests', 'PIL')
# make_record.py pastes and turns images by PIL's classes.
ALLOWED = {'tools/make_record.py': {'PIL'}, 'tools/benchmark.py': {'PIL'}}
# Runs a script as `python SCRIPT ARGUMENT` does, for each argument; says the exit codes, and which of LARGE are loaded.
CODE = """
import json, runpy, sys
script, arguments, large = sys.argv[1], *map(json.loads, sys.argv[2:])
codes = []
for argument in arguments:
    sys.argv = [script, argument]
    try:
        runpy.run_path(script, run_name='__main__')
    except SystemExit as end:
        codes.append(end.code or 0)
print()
print(json.dumps([codes, [name for name in large if name in sys.modules]]))
"""


@pytest.mark.parametrize('script', SCRIPTS)
def test_help_and_errors_load_nothing_large(script):
    words = [script, json.dumps(['--help', '--no-such-flag']), json.dumps(LARGE)]
    ended = subprocess.run([sys.executable, '-c', CODE, *words], cwd=ROOT, capture_output=True, text=True, check=True)
    codes, loaded = json.loads(ended.stdout.splitlines()[-1])
    assert (codes, set(loaded) - ALLOWED.get(script, set())) == ([0, 2], set())
    assert ended.stderr.startswith('error: ')
    assert 'default: None' not in ended.stdout
    assert 'default: False' not in ended.stdout


def test_a_lazy_module_is_the_module_once_something_is_used(monkeypatch):
    calls = []

    def load(name):
        calls.append(name)
        return made

    made = types.ModuleType('large')
    made.number = 1
    lazy = LazyModule('large', load)
    assert isinstance(lazy, types.ModuleType)
    assert calls == []
    assert lazy.number == 1
    monkeypatch.setattr(lazy, 'number', 2)
    assert made.number == 2
    monkeypatch.undo()
    assert (lazy.number, made.number) == (1, 1)
    lazy.other = 3
    assert 'other' in dir(lazy)
    del lazy.other
    assert not hasattr(made, 'other')
    assert calls == ['large']


def test_a_package_that_is_not_there_is_an_import_error_when_it_is_used():
    with pytest.raises(ImportError, match='no_such_package'):
        LazyModule('no_such_package').anything  # noqa: B018


def test_the_names_of_the_rules_are_those_of_their_classes():
    assert tuple(RULES) == LAMBDA_RULES
