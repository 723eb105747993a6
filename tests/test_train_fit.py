"""A run from its command line to its log: it learns, it selects, it says so, and every number it says is true."""

import json
import math
import os
import re
import shlex
import subprocess
import sys

import mxnet
import numpy as np
import pytest
from helpers.tiny_runs import (
    BATCHES,
    DIGITS,
    NOISE,
    checkpoint,
    log_lines,
    metrics,
    save_network,
    save_plain_network,
    train,
)

from graphs.complexity import complexity
from runtime import mx
from runtime.errors import TrainingError
from train import fit as fit_module
from train import train_cifar
from train.data.digits import load_digits_split
from train.engines.mxnet import MXNetEngine

# What MXNet's tools/parse_log.py looks for, metric by metric.
PARSED = {
    name: re.compile(rf'.*Epoch\[(\d+)\] {name}.*=([.\d]+)')
    for name in ('Train-accuracy', 'Validation-accuracy', 'Time')
}
EPOCHS = 4


@pytest.fixture(scope='module')
def network(tmp_path_factory):
    return save_network(tmp_path_factory.mktemp('network'))


@pytest.fixture(scope='module')
def digits_run(network, tmp_path_factory):
    """The prefix of a run that learns the digits."""
    prefix = str(tmp_path_factory.mktemp('digits') / 'run')
    assert train(network, prefix, '--num-epochs', EPOCHS, '--gamma', 0.03, '--disp-batches', 10, data=DIGITS) == 0
    return prefix


def test_a_short_run_learns(digits_run):
    epochs = metrics(digits_run)
    losses = [epoch['train']['cross-entropy'] for epoch in epochs]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] * 0.7
    assert epochs[-1]['validation']['accuracy'] > 0.4, 'chance is 0.1'


def test_the_log_can_be_parsed_as_mxnets(digits_run):
    found = {
        name: dict(match.groups() for match in map(pattern.match, log_lines(digits_run)) if match)
        for name, pattern in PARSED.items()
    }
    for epoch in metrics(digits_run):
        number = str(epoch['epoch'])
        assert float(found['Train-accuracy'][number]) == pytest.approx(epoch['train']['accuracy'], abs=1e-6)
        assert float(found['Validation-accuracy'][number]) == pytest.approx(epoch['validation']['accuracy'], abs=1e-6)
        assert float(found['Time'][number]) == pytest.approx(epoch['seconds'], abs=1e-3)
    speeds = [
        line
        for line in log_lines(digits_run)
        if re.search(r'Epoch\[0\] Batch \[\d+-\d+\]\tSpeed: [.\d]+ samples/sec\taccuracy=[.\d]+', line)
    ]
    assert [re.search(r'\[(\d+-\d+)\]', line).group(1) for line in speeds] == ['0-10', '10-20']


def test_each_epoch_tells_what_is_alive(network, tmp_path):
    prefix = str(tmp_path / 'run')
    assert train(network, prefix, '--num-epochs', 5, '--gamma', 0.3) == 0
    full = complexity(mxnet.sym.load(network), {'data': (1, 3, 8, 8)})
    epochs = metrics(prefix)
    assert [epoch['epoch'] for epoch in epochs] == list(range(5))
    assert len({epoch['lambda']['block']['alive'] for epoch in epochs}) > 1, (
        'choose another γ, so that there is something to tell'
    )
    for epoch in epochs:
        values, block = epoch['lambda_values']['lambda_block']['values'], epoch['lambda']['block']
        assert (block['alive'], block['total']) == (np.count_nonzero(values), 2)
        assert block['stages'] == {'1': [int(values[0] != 0), 1], '2': [int(values[1] != 0), 1]}
        assert [block['min'], block['median'], block['max']] == pytest.approx(
            [min(values), np.median(values), max(values)], rel=1e-5
        )
        assert epoch['full'] == {'params': full.params, 'macs': full.macs}
        assert (epoch['alive']['macs'] == full.macs) == (block['alive'] == 2)
        text = '\n'.join(line for line in log_lines(prefix) if f'Epoch[{epoch["epoch"]}]' in line)
        assert (
            f'Lambda block alive={block["alive"]}/2 (stage1 {int(values[0] != 0)}/1, stage2 {int(values[1] != 0)}/1) '
            'min=' in text
        )
        assert f'Structure alive params={epoch["alive"]["params"]} (' in text
        assert f'macs={epoch["alive"]["macs"]} ({100 * epoch["alive"]["macs"] / full.macs:.2f}%)' in text


def test_the_last_lambda_in_the_metrics_is_the_one_saved(digits_run):
    saved = mxnet.nd.load(f'{digits_run}-{EPOCHS:04d}.params')['arg:lambda_block'].asnumpy()
    np.testing.assert_allclose(metrics(digits_run)[-1]['lambda_values']['lambda_block']['values'], saved, rtol=1e-5)


def probabilities(prefix, epoch, images):
    """Class probabilities by stock MXNet, all images in one batch: nothing of this project takes part."""
    symbol, arguments, states = mxnet.model.load_checkpoint(prefix, epoch)
    module = mxnet.mod.Module(symbol)
    module.bind([('data', images.shape)], [('softmax_label', images.shape[:1])], for_training=False)
    module.set_params(arguments, states)
    module.forward(mxnet.io.DataBatch([mxnet.nd.array(images)]), is_train=False)
    return module.get_outputs()[0].asnumpy()


def digits_to_test():
    _, _, images, labels = load_digits_split(8, 8)
    mean, std = np.array([123.68, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    return (images - mean[:, None, None]) / std[:, None, None], labels


def test_evaluation_counts_every_image_once(digits_run):
    images, labels = digits_to_test()
    assert len(labels) % 64, 'the last batch must have padding, or this test shows nothing'
    found = probabilities(digits_run, EPOCHS, images)
    last = metrics(digits_run)[-1]
    assert last['validation_images'] == len(labels) == 360
    assert last['validation']['accuracy'] == (found.argmax(axis=1) == labels).mean()
    assert last['validation']['cross-entropy'] == pytest.approx(
        -np.log(found[np.arange(len(labels)), labels]).mean(), rel=1e-4
    )
    assert any(line.endswith(f'Epoch[{EPOCHS - 1}] Validation on 360 images') for line in log_lines(digits_run))


def test_the_first_log_line_is_enough_to_repeat_the_run(network, tmp_path, monkeypatch):
    monkeypatch.setattr(
        sys,
        'argv',
        [
            train_cifar.__file__,
            '--network',
            network,
            *NOISE,
            '--num-epochs',
            '2',
            '--seed',
            '7',
            '--mom',
            '0.8',
            '--lr-step-epochs',
            '1',
            '--model-prefix',
            str(tmp_path / 'first run'),
        ],
    )
    assert train_cifar.main() == 0
    said = json.loads(log_lines(tmp_path / 'first run')[0].partition('Run: ')[2])
    assert said['arguments']['seed'] == 7
    command = [word.replace('first run', 'second run') for word in shlex.split(said['command'])]
    threads = {'OMP_NUM_THREADS': said['versions']['threads']}
    subprocess.run(
        [sys.executable, *command],
        check=True,
        env={**os.environ, **threads},
        cwd=str(tmp_path),
        capture_output=True,
        timeout=120,
    )
    assert checkpoint(tmp_path / 'second run', 2) == checkpoint(tmp_path / 'first run', 2)


def test_a_large_gamma_kills_every_block_and_the_network_still_works(network, tmp_path):
    prefix = str(tmp_path / 'run')
    assert train(network, prefix, '--num-epochs', 1, '--gamma', 100, data=DIGITS) == 0
    (record,) = metrics(prefix)
    assert record['lambda']['block']['alive'] == 0
    assert 0 < record['alive']['params'] < record['full']['params']
    images, _ = digits_to_test()
    symbol, arguments, states = mxnet.model.load_checkpoint(prefix, 1)
    assert not arguments['lambda_block'].asnumpy().any()
    before = probabilities(prefix, 1, images)
    assert np.isfinite(before).all()
    # What stands in a dead block no longer matters to anybody.
    arguments['stage1_unit1_conv3_weight'][:] = 77
    mxnet.model.save_checkpoint(prefix, 9, symbol, arguments, states)
    np.testing.assert_array_equal(probabilities(prefix, 9, images), before)


@pytest.mark.parametrize(('gamma', 'is_said'), [(0, True), (100, False)])
def test_a_run_that_selected_nothing_says_so(network, tmp_path, gamma, is_said):
    assert train(network, tmp_path / 'run', '--num-epochs', 1, '--gamma', gamma) == 0
    advice = [line for line in log_lines(tmp_path / 'run') if 'Every λ is alive' in line and '--gamma' in line]
    assert len(advice) == is_said


def test_without_lambda_apg_is_refused_and_nag_works(tmp_path):
    network = save_plain_network(tmp_path)
    with pytest.raises(TrainingError, match='no λ.*--scale.*--optimizer nag'):
        train(network, tmp_path / 'apg')
    assert train(network, tmp_path / 'nag', '--optimizer', 'nag', '--num-epochs', 2, data=DIGITS) == 0
    first, last = metrics(tmp_path / 'nag')
    assert last['train']['cross-entropy'] < first['train']['cross-entropy']
    assert 'lambda' not in last
    assert not any('λ' in line or 'Lambda' in line for line in log_lines(tmp_path / 'nag'))


def test_scale_none_takes_lambda_out_of_a_network_by_name(tmp_path):
    flags = [
        '--network',
        'resnet',
        '--num-layers',
        '20',
        '--scale',
        'none',
        *NOISE,
        '--num-examples',
        '32',
        '--num-epochs',
        '1',
    ]
    with pytest.raises(TrainingError, match='no λ'):
        train_cifar.main(flags)
    assert train_cifar.main([*flags, '--optimizer', 'nag', '--model-prefix', str(tmp_path / 'run')]) == 0
    assert not any('lambda' in name for name in mxnet.sym.load(str(tmp_path / 'run-symbol.json')).list_arguments())


def test_both_placements_follow_the_same_trajectory(tmp_path):
    """The sums of the two are rounded differently, and training magnifies that; a few steps stay together."""
    trajectories = []
    for placement in ('weight', 'output'):
        network = save_network(tmp_path, placement, placement=placement)
        assert (
            train(
                network,
                tmp_path / f'{placement}-run',
                '--num-epochs',
                4,
                '--lr',
                0.05,
                '--gamma',
                0.2,
                '--num-examples',
                64,
            )
            == 0
        )
        trajectories.append(
            [epoch['lambda_values']['lambda_block']['values'] for epoch in metrics(tmp_path / f'{placement}-run')]
        )
    first, second = np.array(trajectories)
    assert np.ptp(first, axis=0).min() > 0.03, 'λ must have moved'
    np.testing.assert_allclose(second, first, atol=2e-4)


def test_nag_is_apg_without_its_penalty(network, tmp_path):
    assert train(network, tmp_path / 'nag', '--num-epochs', 1, '--optimizer', 'nag', '--gamma', 5) == 0
    assert train(network, tmp_path / 'apg', '--num-epochs', 1, '--optimizer', 'apg', '--gamma', 0) == 0
    assert checkpoint(tmp_path / 'nag', 1) == checkpoint(tmp_path / 'apg', 1)


def test_weights_and_gamma_alone_decay(network, tmp_path):
    """After one update, which starts from the same parameters and gradients."""
    for wd in (0, 0.5):
        assert train(network, tmp_path / f'wd{wd}', '--num-epochs', 1, '--num-examples', 32, '--wd', wd) == 0
    without, with_ = (mxnet.nd.load(str(tmp_path / f'wd{wd}-0001.params')) for wd in (0, 0.5))
    decayed = {
        name for name in without if name.startswith('arg:') and (without[name].asnumpy() != with_[name].asnumpy()).any()
    }
    assert decayed == {name for name in without if name.endswith(('_weight', '_gamma'))}


def test_the_learning_rate_warms_up_and_drops(network, tmp_path, monkeypatch):
    rates, make = [], fit_module.make_optimizer

    def watched(*args, **known):
        optimizer = make(*args, **known)
        schedule = optimizer.lr_scheduler
        optimizer.lr_scheduler = lambda count: rates.append((count, schedule(count))) or rates[-1][1]
        return optimizer

    # The first update is tried on a copy, which a function in a function does not allow.
    monkeypatch.setattr(MXNetEngine, '_expected_update', lambda engine: {})
    monkeypatch.setattr(fit_module, 'make_optimizer', watched)
    flags = ['--num-epochs', 4, '--lr', 0.2, '--warmup-epochs', 1, '--lr-step-epochs', '2,3', '--lr-factor', 0.5]
    assert train(network, tmp_path / 'run', *flags) == 0
    by_update = dict(rates)
    assert [by_update[count] for count in range(1, BATCHES)] == pytest.approx(
        [0.2 * count / BATCHES for count in range(1, BATCHES)]
    )
    # The updates of epochs 0 and 1 are 1 … 16; MXNet's scheduler steps after the last of them.
    assert [by_update[count] for count in (8, 16, 17, 24, 25, 32)] == pytest.approx([0.2, 0.2, 0.1, 0.1, 0.05, 0.05])


def test_the_first_rate_may_be_late(network, tmp_path):
    """With the warm-up, the first update of the first parameter is one of rate 0; the proof of that step passes."""
    one_step = ['--num-epochs', 1, '--num-examples', 32, '--warmup-epochs', 8]
    found = {}
    for name, flags in (('late', ['--first-rate-late']), ('plain', [])):
        assert train(network, tmp_path / name, *one_step, *flags) == 0
        found[name] = mxnet.nd.load(str(tmp_path / f'{name}-0001.params'))
    different = {
        name for name in found['late'] if (found['late'][name].asnumpy() != found['plain'][name].asnumpy()).any()
    }
    assert different == {'arg:conv0_weight'}


def test_io_only_reads(network, tmp_path, capfd):
    assert train(network, tmp_path / 'run', '--test-io', 1, '--batch-size', 8) == 0
    assert re.search(r'Speed: [.\d]+ samples/sec', capfd.readouterr().err)
    assert os.listdir(str(tmp_path)) == []


def test_benchmark_trains_on_one_batch_of_noise(network, tmp_path):
    assert train(network, tmp_path / 'run', '--benchmark', 1, '--num-epochs', 2) == 0
    first, last = metrics(tmp_path / 'run')
    assert first['samples_per_second'] > 0
    assert math.isfinite(last['train']['cross-entropy'])


def test_batch_normalisation_over_devices_does_not_wait_for_them(tmp_path):
    x = mx.sym.Convolution(mx.sym.Variable('data'), kernel=(3, 3), num_filter=4, name='conv')
    x = mx.sym.contrib.SyncBatchNorm(x, key='bn', ndev=8, name='bn')
    x = mx.sym.FullyConnected(mx.sym.Pooling(x, global_pool=True, pool_type='avg'), num_hidden=10, name='fc')
    path = str(tmp_path / 'net-symbol.json')
    mx.sym.SoftmaxOutput(x, name='softmax').save(path)
    assert train(path, tmp_path / 'run', '--num-epochs', 1, '--optimizer', 'nag') == 0
    assert 'each device normalises its own images' in '\n'.join(log_lines(tmp_path / 'run'))


def test_an_input_of_any_name_takes_the_images(tmp_path):
    x = mx.sym.Flatten(mx.sym.Variable('images'))
    path = str(tmp_path / 'net-symbol.json')
    mx.sym.SoftmaxOutput(mx.sym.FullyConnected(x, num_hidden=10, name='fc'), name='softmax').save(path)
    assert train(path, tmp_path / 'run', '--num-epochs', 1, '--optimizer', 'nag') == 0
    assert mx.sym.load(str(tmp_path / 'run-symbol.json')).list_arguments()[0] == 'data'
