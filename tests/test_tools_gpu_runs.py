"""The runs for a card: what they are, what schedule fits, and when the clock stops them. The runs themselves are
tools/sweep.py's.
"""

import json
import os
import time

import pytest

from tools import gpu_runs
from tools.gpu_runs import EPOCHS, IMAGES, RESERVE
from train.arguments import training_parser
from train.data.datasets import add_data_args


@pytest.fixture
def args():
    return gpu_runs.parser().parse_args(['--gamma', '0.01,0.1', '--', '--channels-last'])


def parsed(plan):
    parser = training_parser('')
    add_data_args(parser)
    return parser.parse_args([f'@{plan.recipe}', *plan.overrides])


def test_a_baseline_and_each_gamma_at_the_papers_schedule(args, tmp_path):
    plans = gpu_runs.plans(args, str(tmp_path), 20, args.gamma)
    runs = [parsed(plan) for plan in plans]
    assert [(run.optimizer, run.gamma) for run in runs[1:]] == [('apg', 0.01), ('apg', 0.1)]
    assert runs[0].optimizer == 'nag'
    for run in runs:
        assert (run.num_layers, run.num_epochs, run.lr_step_epochs, run.batch_size) == (20, EPOCHS, [120, 160], 64)
        assert (run.engine, run.gpus, run.channels_last, run.allow_tf32, run.dtype) == (
            'torch',
            '0',
            True,
            False,
            'float32',
        )
    assert sorted(os.listdir(str(tmp_path))) == ['resnet20-baseline', 'resnet20-sss-gamma0.01', 'resnet20-sss-gamma0.1']


@pytest.mark.parametrize(('minutes', 'speed', 'epochs'), [(20, 10000, 102), (60, 100000, EPOCHS)])
def test_a_schedule_of_the_papers_proportions_fits_into_the_time(args, tmp_path, monkeypatch, minutes, speed, epochs):
    monkeypatch.setattr(gpu_runs, 'measured_speed', lambda args, depth: speed)
    plans = gpu_runs.deep_plans(args, str(tmp_path), time.monotonic() + 60 * minutes)
    runs = [parsed(plan) for plan in plans]
    assert [run.gamma for run in runs[1:]] == [0.001]
    for run in runs:
        assert run.num_layers == 164
        assert run.num_epochs == pytest.approx(epochs, abs=1)
        assert run.lr_step_epochs == [run.num_epochs // 2, run.num_epochs * 2 // 3]
    assert epochs * len(runs) * IMAGES / speed <= 60 * (minutes - RESERVE) + 1
    # Begun with one schedule, it goes on with it, however much time there is.
    assert gpu_runs.deep_plans(args, str(tmp_path), time.monotonic()) == plans


def test_too_little_time_for_the_deep_one(args, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_runs, 'measured_speed', lambda args, depth: 1000)
    assert gpu_runs.deep_plans(args, str(tmp_path), time.monotonic() + 300) == []
    assert os.listdir(str(tmp_path)) == []


def test_the_clock_stops_what_is_under_way(tmp_path, monkeypatch, capsys):
    pytest.importorskip('torch')
    started = []

    def endless(plans, jobs):
        started.extend(plans)
        assert jobs == len(plans)
        with open(os.path.join(plans[0].folder, 'run-metrics.jsonl'), 'w') as lines:
            for speed in (100.0, 300.0, 200.0):
                lines.write(json.dumps({'samples_per_second': speed, 'validation': {'accuracy': 0.75}}) + '\n')
        time.sleep(60)

    monkeypatch.setattr(gpu_runs, 'run_plans', endless)
    assert gpu_runs.main(['--reduced', '--minutes', '0.01', '--out', str(tmp_path)]) == 130
    assert [plan.name for plan in started] == [
        'resnet20-baseline',
        *(f'resnet20-sss-gamma{gamma}' for gamma in (0.0003, 0.001, 0.003, 0.01)),
    ]
    assert '| resnet20-baseline | 3 | 25.00 | 200 |' in capsys.readouterr().out
    throughput = json.loads((tmp_path / 'throughput.json').read_text())
    assert (throughput['engine'], throughput['card']) == ('torch', None)


def test_an_alarm_in_time_is_taken_back():
    with gpu_runs.alarm(time.monotonic() + 0.2):
        pass
    time.sleep(0.4)
