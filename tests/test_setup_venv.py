"""When set-up makes .venv anew, when it only installs, and when it leaves things alone. The commands it would run are
recorded, not run.
"""

import json
import os
import pathlib
import shutil
import sys

import pytest

from bootstrap import cards, venv

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent


class Commands:
    """Takes the place of ``venv._run``: remembers commands, and makes the one file that a real environment would have
    to have.
    """

    def __init__(self):
        self.seen = []
        self.interrupt_at = None

    def __call__(self, *command):
        if self.interrupt_at and self.interrupt_at in command:
            raise KeyboardInterrupt
        self.seen.append(command)
        if 'venv' in command:
            shutil.rmtree(venv.VENV, ignore_errors=True)
            os.makedirs(os.path.dirname(venv.PYTHON))
            os.symlink(sys.executable, venv.PYTHON)

    def take(self):
        """What was done since the last time: 'venv' for an environment made anew, and the arguments of the last `pip
        install`.
        """
        seen, self.seen = self.seen, []
        return any('venv' in command for command in seen), [
            word for command in seen for word in command if word.startswith(('requirements', '.['))
        ]


@pytest.fixture
def commands(tmp_path, monkeypatch):
    for name in ('requirements.txt', 'requirements-cpu.txt', 'pyproject.toml'):
        shutil.copy(str(REPOSITORY / name), str(tmp_path))
    monkeypatch.chdir(tmp_path)
    recorder = Commands()
    monkeypatch.setattr(venv, '_run', recorder)
    monkeypatch.setattr(cards, 'driver', lambda: None)
    return recorder


def test_first_time_makes_all_of_it(commands, capsys):
    assert venv.main([]) == 0
    assert commands.take() == (True, ['requirements-cpu.txt', '.[onnx,test]'])
    said = capsys.readouterr().out
    assert 'the CPU build, because no NVIDIA driver' in said
    assert '.venv is ready' in said


def test_second_time_does_nothing(commands, capsys):
    venv.main([])
    commands.take()
    assert venv.main([]) == 0
    assert commands.take() == (False, [])
    assert '.venv is up to date' in capsys.readouterr().out


def test_new_pins_are_installed_in_place(commands):
    venv.main([])
    commands.take()
    pathlib.Path('requirements-cpu.txt').write_text('mxnet==1.9.1\n')
    venv.main([])
    assert commands.take() == (False, ['requirements-cpu.txt', '.[onnx,test]'])
    venv.main([])
    assert commands.take() == (False, [])


@pytest.mark.parametrize('where', ['venv', venv.PIP, '-r'])
def test_an_interrupted_run_is_finished_by_the_next(commands, capsys, where):
    commands.interrupt_at = where
    assert venv.main([]) == 2
    assert 'run the same command again to finish it: interrupted' in capsys.readouterr().err
    commands.take()
    commands.interrupt_at = None
    assert venv.main([]) == 0
    assert commands.take() == (True, ['requirements-cpu.txt', '.[onnx,test]'])


def test_an_interrupted_update_is_finished_by_the_next(commands):
    venv.main([])
    pathlib.Path('requirements-cpu.txt').write_text('mxnet==1.9.1\n')
    commands.interrupt_at = '-r'
    assert venv.main([]) == 2
    commands.interrupt_at = None
    commands.take()
    assert venv.main([]) == 0
    assert commands.take()[0]


def test_another_build_of_mxnet_starts_afresh_and_stays(commands, monkeypatch):
    linked = []
    monkeypatch.setattr(venv.cuda_links, 'site_packages', lambda folder: folder)
    monkeypatch.setattr(venv.cuda_links, 'link', linked.append)
    venv.main([])
    commands.take()
    venv.main(['--mxnet', 'cu112'])
    assert commands.take() == (True, ['requirements.txt', '.[onnx,test]'])
    assert linked == [venv.VENV]
    venv.main([])
    assert commands.take() == (False, [])
    venv.main(['--mxnet', 'auto'])
    assert commands.take() == (True, ['requirements-cpu.txt', '.[onnx,test]'])


def test_a_card_with_kernels_gets_the_cuda_build(commands, monkeypatch, capsys):
    monkeypatch.setattr(cards, 'driver', lambda: cards.Driver((12, 2), [cards.Card('NVIDIA A100', (8, 0))]))
    monkeypatch.setattr(venv.cuda_links, 'site_packages', lambda folder: folder)
    monkeypatch.setattr(venv.cuda_links, 'link', lambda packages: None)
    venv.main([])
    assert commands.take() == (True, ['requirements.txt', '.[onnx,test]'])
    assert 'because found NVIDIA A100 (sm_80)' in capsys.readouterr().out


def test_extras_once_asked_for_stay(commands):
    venv.main([])
    commands.take()
    venv.main(['--extras', 'torch'])
    assert commands.take() == (False, ['requirements-cpu.txt', '.[onnx,test,torch]'])
    venv.main(['--extras'])
    assert commands.take() == (False, [])


def test_a_broken_interpreter_or_stamp_starts_afresh(commands):
    venv.main([])
    commands.take()
    os.remove(venv.PYTHON)
    venv.main([])
    assert commands.take()[0]
    pathlib.Path(venv.STAMP).write_text('{"mxnet": "cp')
    venv.main([])
    assert commands.take()[0]


def test_another_interpreter_or_place_starts_afresh(commands):
    for key in ('interpreter', 'place'):
        venv.main([])
        commands.take()
        made_from = json.loads(pathlib.Path(venv.STAMP).read_text())
        pathlib.Path(venv.STAMP).write_text(json.dumps({**made_from, key: '/elsewhere'}))
        venv.main([])
        assert commands.take()[0]


def test_an_unknown_extra_is_refused(commands, capsys):
    with pytest.raises(SystemExit) as refused:
        venv.main(['--extras', 'tensorflow'])
    assert refused.value.code == 2
    assert 'tensorflow' in capsys.readouterr().err
    assert commands.take() == (False, [])
