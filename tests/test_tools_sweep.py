"""Sweeps: a run from its recipe to its result, what is done again and what is not, and failures that are told."""

import contextlib
import importlib
import io
import json
import os
import sys
import threading
import time

import pytest
from helpers.tiny_runs import save_network, save_plain_network

from formats.checkpoint_files import load_checkpoint
from runtime.errors import UserError
from tools import sweep
from tools.sweeps.one_run import ROOT, Plan, StepError, run_command, run_plan, stop, write_plan
from tools.tables.results import read_results

DATA = '--dataset digits --image-shape 3,8,8 --num-epochs 2 --lr-step-epochs 1'


def in_process(command, log):
    """A step of a run without a process of its own: Python and MXNet need seconds to start."""
    module = importlib.import_module(os.path.relpath(command[1], ROOT)[: -len('.py')].replace(os.sep, '.'))
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        try:
            code = module.main(command[2:])
        except UserError as error:
            log.write(f'error: {error}\n')
            code = 2
    return code, output.getvalue()


def recipe(folder, network, name='tiny', flags=DATA):
    path = os.path.join(str(folder), f'{name}.args')
    with open(path, 'w') as out:
        out.write(f'# python train/train_cifar.py @{path}\n--network {network} {flags}\n')
    return path


def plan(tmp_path, network, *overrides, strip=(), **options):
    made = Plan(str(tmp_path / 'out' / 'tiny'), recipe(tmp_path, network), overrides, strip, **options)
    write_plan(made)
    return made


def test_a_run_ends_with_all_that_is_said_about_it(tmp_path):
    made = plan(tmp_path, save_network(tmp_path), '--gamma', '100')
    run_plan(made, in_process)
    (result,) = read_results(str(tmp_path / 'out'))
    assert result['overrides'] == ['--gamma', '100']
    assert result['arguments']['gamma'] == 100
    assert result['alive'] == {'block': {'alive': 0, 'total': 2}}
    assert result['blocks'] == [0, 0]
    assert result['images'] == 360
    assert result['left']['macs'] < result['full']['macs']
    assert result['error']['unstripped'] == pytest.approx(result['error']['top1'], abs=0.3)
    assert f'--gamma 100 --model-prefix {made.folder}/run' in result['commands']['train']
    assert result['commands']['train'].startswith('OMP_NUM_THREADS=')
    symbol, _, _ = load_checkpoint(f'{made.folder}/stripped', 0)
    assert not any('stage1_unit1_conv1' in name for name in symbol.list_arguments())
    assert {'training.png', 'run.log', 'run-metrics.jsonl', 'stripped-structure.json', 'plan.json'} <= set(
        os.listdir(made.folder)
    )
    with open(f'{made.folder}/run-metrics.jsonl') as lines:
        assert 100 * (1 - json.loads(lines.readlines()[-1])['validation']['accuracy']) == pytest.approx(
            result['error']['unstripped'], abs=1e-4
        )


def test_a_threshold_decides_where_no_lambda_is_zero(tmp_path):
    made = plan(
        tmp_path, save_network(tmp_path), '--lambda-rule', 'subgradient', '--gamma', '0.3', strip=('--threshold', '50')
    )
    run_plan(made, in_process)
    (result,) = read_results(str(tmp_path / 'out'))
    assert result['alive'] == {'block': {'alive': 0, 'total': 2}}
    assert result['threshold_cost']['relative'] > 0


def test_a_baseline_has_nothing_to_strip_and_is_scored_all_the_same(tmp_path):
    run_plan(plan(tmp_path, save_plain_network(tmp_path), '--optimizer', 'nag'), in_process)
    (result,) = read_results(str(tmp_path / 'out'))
    assert result['alive'] == {}
    assert result['left']['macs'] == result['full']['macs']
    assert result['error']['top1'] == pytest.approx(result['error']['unstripped'], abs=0.3)


def test_a_run_from_trained_weights_is_shown_beside_their_error(tmp_path):
    network = save_network(tmp_path)
    for name, flags in (('first', ()), ('second', ('--finetune', f'{tmp_path}/out/first/run:2'))):
        made = Plan(str(tmp_path / 'out' / name), recipe(tmp_path, network, name), flags, ())
        write_plan(made)
        run_plan(made, in_process)
    first, second = read_results(str(tmp_path / 'out'))
    assert 'start' not in first['error']
    assert second['error']['start'] == pytest.approx(first['error']['unstripped'], abs=0.3)


def test_a_run_that_was_stopped_goes_on(tmp_path):
    made = plan(tmp_path, save_network(tmp_path))
    commands = []

    def fails_at_stripping(command, log):
        commands.append(command)
        if 'strip_params' in command[1]:
            log.write('error: the disk is full\n')
            return 2, ''
        return in_process(command, log)

    with pytest.raises(StepError, match='strip ended with exit code 2: error: the disk is full'):
        run_plan(made, fails_at_stripping)
    assert '--resume' not in commands[0]
    with open(os.path.join(made.folder, 'run-0002.params'), 'rb') as trained:
        before = trained.read()
    run_plan(made, lambda command, log: commands.append(command) or in_process(command, log))
    assert '--resume' in commands[2]
    with open(os.path.join(made.folder, 'run-0002.params'), 'rb') as trained:
        assert trained.read() == before
    assert '--resume' not in read_results(str(tmp_path / 'out'))[0]['commands']['train']


def test_a_sweep_trains_what_it_must_and_tells_what_failed(tmp_path, capsys):
    """With true processes, two at a time."""
    good, bad = recipe(tmp_path, save_network(tmp_path), 'good'), recipe(tmp_path, 'no-symbol.json', 'bad')
    argv = ['--recipe', good, bad, '--jobs', '2', '--out', str(tmp_path / 'out'), '--', '--gamma', '0.5']
    assert sweep.main(argv) == 1
    said = capsys.readouterr().out
    assert '| [good](good) |' in said
    assert '| [bad](bad) | train ended with exit code 2: error: no-symbol.json: no such file |' in said
    assert set(os.listdir(str(tmp_path / 'out'))) == {'good', 'bad', 'sweep.md', 'sweep.json', 'sweep.png', 'sweep.svg'}
    with open(str(tmp_path / 'out' / 'sweep.json')) as source:
        assert list(json.load(source)['failures']) == [str(tmp_path / 'out' / 'bad')]
    # What is finished is left alone.
    before = os.stat(str(tmp_path / 'out' / 'good' / 'result.json')).st_mtime_ns
    assert sweep.main([argv[0], good, *argv[3:]]) == 0
    assert os.stat(str(tmp_path / 'out' / 'good' / 'result.json')).st_mtime_ns == before


def test_a_grid_has_a_folder_for_each_gamma():
    args = sweep.parser().parse_args(
        [
            '--recipe',
            'train/recipes/cifar10/resnet20-sss.args',
            '--gamma',
            '0.01,0.3',
            '--strip-threshold',
            '0.02',
            '--',
            '--num-epochs',
            '3',
            '--lambda-init',
            '0.5',
        ]
    )
    plans = sweep.make_plans(args)
    assert [made.folder for made in plans] == [
        'runs/sweep/cifar10/resnet20-baseline',
        'runs/sweep/cifar10/resnet20-sss-gamma0.01',
        'runs/sweep/cifar10/resnet20-sss-gamma0.3',
    ]
    assert plans[0].overrides == ('--num-epochs', '3')
    assert plans[2].overrides == ('--num-epochs', '3', '--lambda-init', '0.5', '--gamma', '0.3')
    assert plans[2].strip_flags == ('--threshold', '0.02')


def test_recipes_share_their_baseline_of_each_seed():
    recipes = [f'train/recipes/cifar10/resnet20-{name}.args' for name in ('sss', 'ista')]
    plans = sweep.make_plans(sweep.parser().parse_args(['--recipe', *recipes, '--seed', '0,1', '--out', 'there']))
    names = ('baseline-seed0', 'baseline-seed1', 'sss-seed0', 'sss-seed1', 'ista-seed0', 'ista-seed1')
    assert [made.folder for made in plans] == [f'there/cifar10/resnet20-{name}' for name in names]
    alone = sweep.make_plans(sweep.parser().parse_args(['--recipe', recipes[0], '--no-baseline', '--out', 'there']))
    assert [made.folder for made in alone] == ['there/cifar10/resnet20-sss']


def test_another_run_does_not_go_on_in_the_same_folder(tmp_path):
    first = plan(tmp_path, 'net-symbol.json')
    write_plan(first)
    with pytest.raises(UserError, match='is of another run.*give another --out'):
        write_plan(first._replace(overrides=('--gamma', '3')))


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (['--recipe', 'nothing.args'], 'nothing.args: no such file; train/recipes'),
        (['--recipe', 'Makefile'], 'says which script it is for'),
        (['--recipe', 'train/recipes/cifar10/resnet20-sss.args', '--jobs', '0'], "argument --jobs: '0'"),
        (['--recipe', 'train/recipes/cifar10/resnet20-sss.args', '--gamma', '1,1'], 'would be the folder of two runs'),
    ],
)
def test_mistakes_are_told_before_anything_is_done(flags, message, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=message):
        sweep.main([*flags, '--out', str(tmp_path / 'out')])
    assert not (tmp_path / 'out').exists()


def test_a_stopped_process_may_save_and_end(tmp_path):
    """The process is told once, and is waited for."""
    script = (
        'import signal, sys, time\n'
        f'signal.signal(signal.SIGTERM, lambda *_: (open({str(tmp_path / "saved")!r}, "w").close(), sys.exit(143)))\n'
        f'open({str(tmp_path / "ready")!r}, "w").close()\n'
        'time.sleep(60)\n'
    )
    running, found = set(), []
    with open(str(tmp_path / 'log'), 'w') as log:
        thread = threading.Thread(
            target=lambda: found.append(run_command([sys.executable, '-c', script], log, 3, running))
        )
        thread.start()
        while not (tmp_path / 'ready').exists():
            time.sleep(0.02)
        stop(running)
        thread.join()
    assert found == [(143, '')]
    assert (tmp_path / 'saved').exists()


def test_each_job_has_its_share_of_threads(tmp_path):
    with open(str(tmp_path / 'log'), 'w') as log:
        code, said = run_command(
            [sys.executable, '-c', 'import os; print(os.environ["OMP_NUM_THREADS"])'], log, 3, set()
        )
    assert (code, said) == (0, '3\n')
