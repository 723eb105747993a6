"""What train/launch.py does with processes, shown on scripts of a line: who dies, who is killed, what is said, and that
nothing stays.
"""

import os
import shlex
import signal
import subprocess
import sys
import time

import pytest
from helpers.clustered_runs import Launched, kill, read

from runtime.errors import AnotherEndedError
from train import launch
from train.distributed import supervisor
from train.distributed.secret import VARIABLE

SERVES = "import os, time, sys; role = os.environ['DMLC_ROLE']\nif role != 'worker': time.sleep(3600)\n"
WAITS = SERVES + "print(role, 'is here', flush=True); time.sleep(3600)"


def script(text):
    return [sys.executable, '-S', '-c', text]


def launched(text, workers=2, servers=1, options=(), **environment):
    return Launched(['-n', workers, '-s', servers, *options], script(text), **environment)


@pytest.fixture(autouse=True)
def impatient(monkeypatch, tmp_path):
    """launch.py in a process of its own that waits for nobody long."""
    patience = tmp_path / 'impatient.py'
    patience.write_text(
        'import sys\nfrom train import launch\n'
        'launch.GRACE_SECONDS, launch.TIME_TO_SAVE, launch.TIME_TO_CLOSE = .5, 1.5, .5\nsys.exit(launch.main())\n'
    )
    monkeypatch.setattr(launch, '__file__', str(patience))


def test_every_process_gets_its_role_and_the_address_and_what_it_says_appears_behind_its_name():
    says = (
        "import os, sys; names = ('ROLE', 'NUM_WORKER', 'NUM_SERVER', 'PS_ROOT_URI'); "
        "print(*(os.environ['DMLC_' + x] for x in names), file=sys.stderr)"
    )
    with launched(says, 2, 3) as run:
        assert run.ends() == 0
        lines = sorted(run.said.splitlines())
    named = [
        ('scheduler', 0),
        *(('server', number) for number in range(3)),
        *(('worker', number) for number in range(2)),
    ]
    assert lines == [f'[{role} {number}] {role} 2 3 127.0.0.1' for role, number in named]


def test_the_end_of_the_workers_is_the_end_of_all():
    with launched(SERVES) as run:
        assert run.ends() == 0
        assert not run.outlived_by()


@pytest.mark.parametrize('role', ['worker', 'server'])
def test_a_death_ends_all_with_its_message_and_code(role):
    dies = (
        'import os, sys, time\n'
        f"if os.environ['DMLC_ROLE'] == {role!r}: print('error: out of luck', file=sys.stderr); "
        'sys.exit(7)\ntime.sleep(3600)'
    )
    with launched(dies, workers=1) as run:
        assert run.ends() == 7
        assert not run.outlived_by()
        assert (
            run.said.splitlines()[-1]
            == f'error: {role} 0 ended with exit code 7 (error: out of luck); all others were ended'
        )


def test_who_ends_because_another_did_is_not_blamed():
    follows = (
        "import os, sys, time\nif os.environ['DMLC_ROLE'] == 'server': time.sleep(.2); sys.exit(9)\n"
        "if os.environ['DMLC_ROLE'] == 'worker': sys.exit(3)\ntime.sleep(3600)"
    )
    with launched(follows) as run:
        assert run.ends() == 9
        assert 'error: server 0 ended with exit code 9' in run.said


def test_a_killed_worker_is_named_with_the_signal():
    with launched(WAITS) as run:
        run.wait_for('[worker 1] worker is here')
        run.wait_for('[worker 0] worker is here')
        kill(run.alive('worker')[0], signal.SIGKILL)
        assert run.ends() == 128 + signal.SIGKILL
        assert not run.outlived_by()
        assert 'was killed by signal 9 (worker is here); all others were ended' in run.said


def test_a_command_that_is_not_there():
    with Launched(['-n', 1], ['/no/such/program']) as run:
        assert run.ends() == 127
        assert 'error: /no/such/program: No such file or directory' in run.said


SAVES = (
    SERVES
    + """
import signal
def save(number, frame):
    print('saved', flush=True); sys.exit(128 + number)
for number in (2, 15): signal.signal(number, save)
print('training', flush=True)
time.sleep(3600)
"""
)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_workers_save(number):
    with launched(SAVES) as run:
        run.wait_for('[worker 0] training')
        run.wait_for('[worker 1] training')
        run.process.send_signal(number)
        assert run.ends() == 128 + number
        assert not run.outlived_by()
        assert run.said.count('saved') == 2


DEAF = SERVES + "import signal; signal.signal(2, signal.SIG_IGN); print('deaf', flush=True); time.sleep(3600)"


def test_a_second_signal_kills():
    with launched(DEAF) as run:
        run.wait_for('[worker 0] deaf')
        run.wait_for('[worker 1] deaf')
        run.process.send_signal(signal.SIGINT)
        run.wait_for('signal 2: the workers save and end')
        run.process.send_signal(signal.SIGINT)
        assert run.ends(20) == 128 + signal.SIGINT
        assert not run.outlived_by()


def test_workers_that_do_not_listen_are_killed_in_the_end():
    with launched(DEAF) as run:
        run.wait_for('[worker 0] deaf')
        run.wait_for('[worker 1] deaf')
        run.process.send_signal(signal.SIGINT)
        assert run.ends(20) == 128 + signal.SIGKILL
        assert 'worker 0, worker 1 did not end within 1.5 seconds' in run.said
        assert not run.outlived_by()


def parent(pid):
    return int(read(pid, 'stat').rpartition(')')[2].split()[1])


@pytest.mark.parametrize('victim', ['launcher', 'supervisor'])
def test_nothing_outlives_a_launcher_or_a_supervisor_that_is_killed(victim):
    with launched(WAITS, workers=1) as run:
        run.wait_for('[worker 0] worker is here')
        # The launcher's own: what a supervisor has forked bears its name until it becomes the command.
        supervisors = [
            pid
            for pid in run.alive()
            if any('supervisor.py' in word for word in read(pid, 'cmdline')) and parent(pid) == run.process.pid
        ]
        assert len(supervisors) == 3
        kill(run.process.pid if victim == 'launcher' else supervisors[-1], signal.SIGKILL)
        run.ends(20)
        assert not run.outlived_by()


def test_over_ssh(tmp_path, monkeypatch):
    """An ssh that logs in to this machine, in a shell and a folder of its own and without this environment, as a true
    one does.
    """
    log = tmp_path / 'hosts'
    ssh = tmp_path / 'ssh'
    ssh.write_text(
        f'#!/bin/sh\n[ "$1 $2" = "-o BatchMode=yes" ] || exit 64\necho "$3" >> {log}\ncd /\n'
        'exec env -i "$(env | grep ^CLUSTERED_RUN=)" sh -c "$4"\n'
    )
    ssh.chmod(0o755)
    hosts = tmp_path / 'host file'
    hosts.write_text('127.0.0.1  # the first\n\n127.0.0.2\n')
    says = (
        SERVES + "print(len(os.environ['SSS_SECRET']), os.getcwd(), os.environ['MXNET_MINE'], "
        "os.environ.get('DMLC_NODE_HOST'), "
        "os.environ['OMP_NUM_THREADS'], sys.argv[1:])"
    )
    with Launched(
        ['-n', 2, '-s', 1, '-H', hosts],
        [*script(says), "it's $HOME; here"],
        PATH=f'{tmp_path}:{os.environ["PATH"]}',
        MXNET_MINE='a b',
    ) as run:
        assert run.ends() == 0, run.said
        assert not run.outlived_by()
        for number, host in enumerate(('127.0.0.1', '127.0.0.2')):
            assert f"""[worker {number} on {host}] 64 {os.getcwd()} a b None 1 ["it's $HOME; here"]""" in run.said
    assert sorted(log.read_text().split()) == ['127.0.0.1', '127.0.0.1', '127.0.0.2']


SHOWS_SECRET = (
    SERVES
    + """
import time
print('secret', os.environ['SSS_SECRET'], flush=True)
time.sleep(3600)
"""
)


def test_every_run_has_a_new_secret_that_no_command_line_shows():
    found = []
    for _ in range(2):
        with launched(SHOWS_SECRET) as run:
            run.wait_for('[worker 0] secret')
            run.wait_for('[worker 1] secret')
            (secret,) = {line.split()[-1] for line in run.said.splitlines() if ' secret ' in line}
            processes = run.alive()
            assert len(processes) > 4
            assert not [pid for pid in processes if any(secret in word for word in read(pid, 'cmdline'))]
            assert VARIABLE not in ' '.join(launch.over_ssh('node1', ['python'], {'DMLC_ROLE': 'worker'}))
            found.append(secret)
    assert len(set(found)) == 2


def test_launcher_and_supervisor_name_the_secret_as_the_workers_do():
    assert supervisor.SECRET == VARIABLE


def test_the_command_line_of_ssh_survives_a_shell(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    *_, host, line = launch.over_ssh('node1', ['python', 'a b.py', '$x'], {'DMLC_ROLE': 'worker'})
    assert host == 'node1'
    words = shlex.split(line)
    assert words[:2] == ['cd', str(tmp_path)]
    assert words[-4:] == ['DMLC_ROLE=worker', 'python', 'a b.py', '$x']


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['-n', '0', 'x'], 'not a whole number from 1 to'),
        (['-n', '1'], 'give the command'),
        (['-n', '1', '-H-oProxyCommand=x', 'x'], 'names of machines'),
    ],
)
def test_nonsense_is_refused(options, message):
    with Launched(options, []) as run:
        assert run.ends() == 2
        (line,) = run.said.splitlines()
        assert line.startswith('error: ')
        assert message in line


def test_the_exit_code_of_a_consequence_is_that_of_its_error():
    assert AnotherEndedError.exit_code == launch.AFTER_ANOTHER


def test_cores_are_divided_among_the_workers_of_a_machine(monkeypatch):
    monkeypatch.delenv('OMP_NUM_THREADS')
    cores = len(os.sched_getaffinity(0))
    environment = {name: value for name, value in os.environ.items() if name != 'OMP_NUM_THREADS'}
    assert int(supervisor_says(environment)) == max(1, cores // 2)


def supervisor_says(environment):
    """How many threads a command gets under a supervisor that shares the machine with another one."""
    command = [sys.executable, launch.SUPERVISOR, '2', *script("import os; print(os.environ['OMP_NUM_THREADS'])")]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, universal_newlines=True
    ) as supervisor:
        supervisor.stdin.write('secret\n')
        supervisor.stdin.flush()
        said = supervisor.stdout.read()
        assert supervisor.wait(timeout=20) == 0
    return said


def test_time_is_not_wasted_on_silence():
    """An end that nobody announces is found at once."""
    with launched(SERVES + 'sys.exit(5)', workers=1) as run:
        begin = time.monotonic()
        assert run.ends() == 5
        assert time.monotonic() - begin < 60
