"""Start a run of several workers, with MXNet's parameter servers and their scheduler, on this machine or over ssh.

    python train/launch.py -n 2 -s 1 python train/train_cifar.py --kv-store dist_sync ...
    python train/launch.py -n 8 -H node1,node2 python train/train_imagenet.py --kv-store dist_device_sync --gpus 0,1 ...

Ctrl-C (or SIGTERM) lets the workers save and end; a second one kills them. When a process dies, all others are ended,
and the exit code is that of the first one that died. Over ssh, the project and its environment must be at the same path
on every machine, and ssh must ask no questions.

Every run has a new secret, by which its processes know each other: docs/distributed.md, Trust.
"""

import argparse
import os
import queue
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Dict, List, NoReturn, Optional, Tuple, Union

# Nothing of the project is imported: runtime sets OMP_NUM_THREADS, which the processes started here would inherit.
AFTER_ANOTHER = 3  # exit code of a process that ended because another one did: as runtime.errors.AnotherEndedError
SUPERVISOR = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'distributed', 'supervisor.py')
PASSED_ON = (
    'OMP_NUM_THREADS',
    'PYTHONPATH',
    'PATH',
    'LD_LIBRARY_PATH',
    'MXNET_',
    'PS_',
    'DMLC_',
    'CUDA_',
    'NCCL_',
)  # to other machines: beginnings of names
GRACE_SECONDS = 3  # in which the others may still log something after one has ended
MAX_HOST_BYTES, MAX_HOST_NAME = 1 << 20, 300
MOST_PROCESSES = 4096
TIME_TO_SAVE = 120  # seconds from a signal to the end
TIME_TO_CLOSE = 20  # seconds that servers have to end after the workers
STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)


def main(argv: Optional[List[str]] = None) -> int:
    """Start the run that the command line ``argv`` says and wait for it; returns the exit code."""
    args = parser().parse_args(argv)
    if not args.command:
        _refuse(
            'give the command that every worker runs, for example: -n 2 python train/train_cifar.py --kv-store '
            'dist_sync'
        )
    hosts: List[Optional[str]] = [None] if args.hosts is None else _hosts(args.hosts)
    with Run(args.num_workers, args.num_servers or args.num_workers, hosts, args.command) as processes:
        return processes.watch()


def parser() -> 'Parser':
    """The parser of this script."""
    made = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument(
        '-n', '--num-workers', type=_positive, required=True, help='how many workers, each of which runs COMMAND'
    )
    made.add_argument(
        '-s', '--num-servers', type=_positive, help='how many parameter servers (default: as many as workers)'
    )
    made.add_argument(
        '-H',
        '--hosts',
        help='machines to start them on over ssh, in turn: names separated by commas, or a file with one a line '
        '(default: here)',
    )
    made.add_argument(
        'command',
        nargs=argparse.REMAINDER,
        metavar='COMMAND',
        help='for example: python train/train_cifar.py --kv-store dist_sync',
    )
    return made


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Print ``message`` and end the process with exit code 2."""
        _refuse(f'{message} (--help explains)')


class Run:
    """The processes of a run. All of them end with the block, or with this process, even by a kill: each has a
    supervisor that kills it when its stdin closes.
    """

    def __init__(self, num_workers: int, num_servers: int, hosts: List[Optional[str]], command: List[str]) -> None:
        self._command, self._signals = command, 0
        self._events: queue.Queue[Union[int, Process]] = queue.Queue()  # signals, and Processes that have ended
        self._stopping: Optional[int] = None
        scheduler = _own_address(hosts[0]) if hosts[0] else '127.0.0.1'
        self._environment = {
            'DMLC_PS_ROOT_URI': scheduler,
            'DMLC_PS_ROOT_PORT': str(_free_port()),
            'DMLC_NUM_WORKER': str(num_workers),
            'DMLC_NUM_SERVER': str(num_servers),
            'PYTHONUNBUFFERED': '1',
        }
        if not hosts[0]:
            self._environment['DMLC_NODE_HOST'] = scheduler
        placed: List[Tuple[str, int, Optional[str]]] = [('scheduler', 0, None)]
        placed += [
            (role, number, hosts[number % len(hosts)])
            for role, count in (('server', num_servers), ('worker', num_workers))
            for number in range(count)
        ]
        self._shares = -(-num_workers // len(hosts))
        self._placed = placed

    def __enter__(self) -> 'Run':
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: self._events.put(number))
        secret = secrets.token_hex(32)
        self._processes = [
            Process(role, number, host, self._environment, secret, self._shares, self._command, self._events)
            for role, number, host in self._placed
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.end()

    def watch(self) -> int:
        """Wait for the end, and return the exit code."""
        dead: List[Process] = []
        deadline: Optional[float] = None
        while any(process.code is None for process in self._processes):
            try:
                event = self._events.get(timeout=None if deadline is None else max(0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if isinstance(event, int):
                self._signals += 1
                if self._signals > 1:
                    _say('killed by a second signal')
                    return 128 + event
                _say(f'signal {event}: the workers save and end; a second one kills them')
                self._stopping, deadline = event, time.monotonic() + TIME_TO_SAVE
                self._workers('signal', event)
            elif event.code and not (self._stopping and event.code in STOPPED):
                dead.append(event)
                deadline = time.monotonic() + GRACE_SECONDS if len(dead) == 1 else deadline
            elif not dead and all(process.code is not None for process in self._of('worker')):
                deadline = time.monotonic() + TIME_TO_CLOSE
        return self._verdict(dead)

    def _verdict(self, dead):
        if dead:
            # Name a process that did not end because of another one.
            first = next((process for process in dead if process.code != AFTER_ANOTHER), dead[0])
            _say(f'error: {first.exit_summary()}; all others were ended')
            return first.code
        late = [process.name for process in self._of('worker') if process.code is None]
        if late:
            _say(f'error: {", ".join(late)} did not end within {TIME_TO_SAVE} seconds, and was killed')
            return 128 + signal.SIGKILL
        return max(process.code for process in self._of('worker'))

    def _of(self, role):
        return [process for process in self._processes if process.role == role]

    def _workers(self, do, *details):
        for process in self._of('worker'):
            getattr(process, do)(*details)


class Process:
    """One process of the run and its supervisor, here or on another machine. Its output appears on stderr behind its
    name; at its end it is put in ``events``.
    """

    def __init__(
        self,
        role: str,
        number: int,
        host: Optional[str],
        environment: Dict[str, str],
        secret: str,
        shares: int,
        command: List[str],
        events: 'queue.Queue[Union[int, Process]]',
    ) -> None:
        self.role, self.name = role, f'{role} {number}' + (f' on {host}' if host else '')
        self.code: Optional[int] = None  # the exit code, once it has ended
        self._last, self._events = '', events
        supervised = [sys.executable, SUPERVISOR, str(shares), *command]
        environment = {**environment, 'DMLC_ROLE': role}
        here = {**os.environ, **environment}
        self._supervisor = subprocess.Popen(
            over_ssh(host, supervised, environment) if host else supervised,
            env=here,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            universal_newlines=True,
            errors='replace',
        )
        self._tell(f'{secret}\n')  # never on a command line, which every user of the machine can read
        threading.Thread(target=self._follow, daemon=True).start()

    def signal(self, number: int) -> None:
        """Send a signal to the command and to all that it started."""
        self._tell(f'{int(number)}\n')

    def end(self) -> None:
        """Kill it, if it has not ended."""
        try:
            if self._supervisor.stdin:
                self._supervisor.stdin.close()
            self._supervisor.wait(timeout=5)
        except (OSError, subprocess.TimeoutExpired):
            self._supervisor.kill()
            self._supervisor.wait()

    def exit_summary(self) -> str:
        """How it ended, and its last line of output: 'worker 1 ended with exit code 2 (error: …)'."""
        code = self.code or 0
        how = f'was killed by signal {code - 128}' if code > 128 else f'ended with exit code {code}'
        return f'{self.name} {how}' + (f' ({self._last})' if self._last else '')

    def _tell(self, text):
        try:
            self._supervisor.stdin.write(text)
            self._supervisor.stdin.flush()
        except OSError:
            pass  # it has ended

    def _follow(self):
        for line in self._supervisor.stdout:
            if line.strip():
                self._last = line.strip()
                _say(line.rstrip('\n'), f'[{self.name}] ')
        self.code = self._supervisor.wait()
        self._events.put(self)


def over_ssh(host: str, command: List[str], environment: Dict[str, str]) -> List[str]:
    """The command line that runs ``command`` on ``host`` in a folder of the same path as this one, with ``environment``
    and the variables PASSED_ON of this process.
    """
    passed = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
    settings = [f'{name}={value}' for name, value in {**passed, **environment}.items()]
    words = ' '.join(map(shlex.quote, ['exec', 'env', *settings, *command]))
    return ['ssh', '-o', 'BatchMode=yes', host, f'cd {shlex.quote(os.getcwd())} && {words}']


def _hosts(text):
    if os.path.exists(text):
        hosts = [line.split('#')[0].strip() for line in _text_of(text).splitlines()]
    else:
        hosts = text.split(',')
    hosts = [host for host in hosts if host]
    if not hosts or any(host.startswith('-') or len(host) > MAX_HOST_NAME or ' ' in host for host in hosts):
        _refuse(f'-H {text}: give names of machines separated by commas, or a file with one a line')
    return hosts


def _text_of(path):
    """The text of a file of hosts. As ``runtime.reading``, which launch.py does not import."""
    if not os.path.isfile(path) or os.path.getsize(path) > MAX_HOST_BYTES:
        _refuse(f'-H {path}: not a file with one name of a machine a line')
    with open(path, 'rb') as lines:
        data = lines.read(MAX_HOST_BYTES)
    try:
        return data.decode('utf-8-sig')
    except UnicodeDecodeError:
        _refuse(f'-H {path}: not a text file')


def _own_address(host):
    """The address by which ``host`` reaches this machine."""
    name = host.rpartition('@')[2]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((name, 1))  # sends nothing
        except OSError as error:
            _refuse(f'-H {host}: {error.strerror or error}')
        return probe.getsockname()[0]


def _free_port():
    with socket.socket() as probe:
        probe.bind(('', 0))
        return probe.getsockname()[1]


def _refuse(message: str) -> NoReturn:
    _say(f'error: {message}')
    sys.exit(2)


def _say(text, name=''):
    sys.stderr.write(f'{name}{text}\n')
    sys.stderr.flush()


def _positive(text):
    if not text.isdecimal() or not 1 <= int(text) <= MOST_PROCESSES:
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number from 1 to {MOST_PROCESSES}')
    return int(text)


if __name__ == '__main__':
    sys.exit(main())
