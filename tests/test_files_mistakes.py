"""Natural mistakes on the command line of every script: one line on stderr that names the flag or the thing, exit code
2, no traceback, in bounded time and in 1 GB of memory.

The cases are made from the flags that each parser has, so that a new flag is covered at once.
"""

import argparse
import contextlib
import multiprocessing.process
import os
import re
import shutil
import socket
import subprocess

import pytest
from helpers.command_lines import SCRIPTS, flags_of, parser_of, place, prepare
from helpers.limits import limited
from helpers.tiny_runs import LOG_LINE

from runtime import cli
from train import fit

# What people write by mistake where something else belongs. Whether it is wrong depends on the flag.
VALUES = {
    'nothing': '',
    'a word': 'x',
    'negative': '-1',
    'zero': '0',
    'huge': '1000000000000',
    'no number': 'nan',
    'a fraction': '1.5',
    'too few numbers': '3,8',
    'a folder': 'images',
    'another kind of file': 'note.txt',
}
# A line that says something of the whole command line and so need not name the flag.
OF_ALL = ('not both', 'give SOURCE and PREFIX', 'no such file')


class Begun(BaseException):
    """The script has begun to work: it has found nothing wrong. Not an Exception, so that no script catches it."""


def begin(*_, **__):
    raise Begun


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp('prepared'))
    prepare(folder)
    return folder


@pytest.fixture
def where(prepared, tmp_path, monkeypatch):
    """The folder in which a script runs. It may read files, but start neither training nor processes, nor ask the
    network.
    """
    place(prepared, str(tmp_path / 'here'))
    monkeypatch.chdir(tmp_path / 'here')
    monkeypatch.setattr(fit.Run, 'train', begin)
    monkeypatch.setattr(subprocess.Popen, '__init__', begin)
    monkeypatch.setattr(subprocess.Popen, '__del__', lambda process: None)
    monkeypatch.setattr(multiprocessing.process.BaseProcess, 'start', begin)
    monkeypatch.setattr(socket, 'create_connection', begin)
    with limited():
        yield tmp_path


def outcome(capfd, name, argv):
    """The exit code of a script, None if it has begun to work; and the lines of its stderr."""
    capfd.readouterr()
    code = None
    with contextlib.suppress(Begun):
        try:
            cli.run(SCRIPTS[name].module.main, argv)
        except SystemExit as end:
            code = end.code
    return code, capfd.readouterr().err.splitlines()


def assert_is_one_line(code, lines):
    *others, line = lines
    assert code == 2, lines
    assert line.startswith('error: '), lines
    assert len(line) < 2000
    assert all(LOG_LINE.match(other) or other.startswith('warning: ') for other in others), others
    return line


def with_flag(name, action, value):
    """The command line of a script with ``value`` for one flag."""
    argv = SCRIPTS[name].argv
    flag = max(action.option_strings, key=len)
    given = [f'{flag}={value}'] if flag.startswith('--') else [flag, value]
    if action.required:
        argv = [word for word, before in zip(argv, ['', *argv]) if not {word, before} & set(action.option_strings)]
    at = 1 if name.startswith('benchmark') else 0
    return argv[:at] + given + argv[at:] if name == 'launch' or at else [*argv, *given]


def values_for(action):
    """The values to try for a flag. A flag that takes any text takes names, for which numbers are words."""
    if action.type or action.choices:
        return VALUES
    return {kind: VALUES[kind] for kind in ('nothing', 'a word', 'a folder', 'another kind of file')}


def is_refused_by_the_parser(action, value):
    """Whether a flag's own type or choices tell that ``value`` is wrong."""
    if action.type is None and not value:
        return True
    try:
        read = action.type(value) if action.type else value
    except (ValueError, TypeError, argparse.ArgumentTypeError):
        return True
    return action.choices is not None and read not in action.choices


def names(line, action, value):
    """Whether an error's line names the flag, or what was given for it."""
    flags = [flag.lstrip('-') for flag in action.option_strings] + [action.dest]
    words = {word for flag in flags for word in (flag, flag.replace('_', ' '), flag.replace('-', ' '))}
    given = re.split('[,:]', value)[0]
    return any(f'-{word}' in line or word in line for word in words) or bool(given) and given in line


FLAGS = [(name, action) for name in SCRIPTS for action in flags_of(name)]
VALUED = [(name, action) for name, action in FLAGS if action.nargs != 0]


def case_id(part):
    return part if isinstance(part, str) else max(part.option_strings, key=len)


@pytest.mark.parametrize('name', SCRIPTS)
def test_the_command_lines_are_sound(name, where, capfd):
    """Otherwise a mistake would hide behind another."""
    code, lines = outcome(capfd, name, SCRIPTS[name].argv)
    assert code in (None, 0), lines


@pytest.mark.parametrize(('name', 'action'), VALUED, ids=case_id)
def test_a_wrong_value_is_one_line(name, action, where, capfd):
    for kind, value in values_for(action).items():
        shutil.rmtree('out')
        os.mkdir('out')
        code, lines = outcome(capfd, name, with_flag(name, action, value))
        if code in (None, 0, 1) and not is_refused_by_the_parser(action, value):
            continue  # the flag takes it, or what it is for is not in use
        line = assert_is_one_line(code, lines)
        assert names(line, action, value) or any(text in line for text in OF_ALL), (kind, line)


@pytest.mark.parametrize('name', SCRIPTS)
def test_misspelt_flags_and_missing_values_are_one_line(name, where, capfd):
    argv = SCRIPTS[name].argv
    known = parser_of(name)._option_string_actions
    for action in flags_of(name):
        flag = max(action.option_strings, key=len)
        at = 1 if name.startswith('benchmark') else 0
        wrong = [flag[:3] + flag[4:] + 'e', flag.replace('-', '_')[0:2].replace('_', '-') + flag[2:] + 'x']
        wrong = [one for one in wrong if not any(other.startswith(one) for other in known)]
        for misspelt in wrong:
            line = assert_is_one_line(*outcome(capfd, name, [*argv[:at], misspelt, *argv[at:]]))
            assert misspelt in line or misspelt.split('=')[0] in line
        if action.nargs is None:
            line = assert_is_one_line(*outcome(capfd, name, [*argv, flag] if name != 'launch' else [flag]))
            assert flag in line


def test_there_are_hundreds_of_mistakes():
    cases = [(action, value) for _, action in VALUED for value in values_for(action).values()]
    assert sum(is_refused_by_the_parser(action, value) for action, value in cases) > 500
