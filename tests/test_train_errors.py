"""What bad input gets: one line that names the thing and the remedy, exit code 2, and a folder that looks as it did
before.
"""

import os
import re

import pytest
from helpers.tiny_runs import NOISE, save_network, save_plain_network, train

from runtime import mx
from train import train_cifar, train_imagenet


@pytest.fixture(scope='module')
def network(tmp_path_factory):
    return save_network(tmp_path_factory.mktemp('network'))


def test_the_fixture_would_notice_a_traceback(refusal, monkeypatch):
    monkeypatch.setattr(train_cifar, 'fit', lambda *args, **group: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        refusal('--network', 'resnet', *NOISE)


# The command line. No data set is read, let alone fetched, for any of these.


@pytest.mark.parametrize(
    ('flags', 'said'),
    [
        ('--network ResNet-50', 'did you mean --network resnet --num-layers 50?'),
        ('--network restnet', 'did you mean --network resnet?'),
        ('--num-layers 32', 'resnet has no depth 32; known: 18, 20, 34, 50, 101, 152, 164; resnet-v1 has 32'),
        ('--dataset cifar-10', 'did you mean cifar10?'),
        ('--gama 0.1', 'unrecognized arguments: --gama 0.1; did you mean --gamma?'),
        ('--network alexnet', "unknown network 'alexnet'; known: resnet, resnet-v1, resnext, vgg"),
        ('--num-layers 21', 'resnet has no depth 21; known: 18, 20, 34, 50, 101, 152, 164'),
        ('--network vgg --num-layers 19', 'vgg has no depth 19; known: 16'),
        ('--scale layer', '--scale layer: resnet-20 has no such structure; it can scale block, channel or none'),
        ('--scale group', '--scale group: resnet-20 has no such structure'),
        ('--scale none', 'no λ'),
        ('--lambda-placement input', "'input'"),
        ('--network missing-symbol.json', 'missing-symbol.json: no such file'),
        ('--network vgg --num-layers 16 --image-shape 3,8,8 --dataset digits', 'cannot take images of 3,8,8'),
        ('--dataset digits --image-shape 3,8', '3,8'),
        ('--dataset digits --image-shape 3,8,x', '3,8,x'),
        ('--dataset mnist', "'mnist' is not one of digits, cifar10, cifar100, synthetic"),
        ('--gamma -0.1', 'gamma is -0.1; the L1 penalty must be 0 or more'),
        ('--gamma nan', 'gamma is nan'),
        ('--gamma much', "--gamma: invalid float value: 'much'"),
        ('--mom 1.0', 'momentum is 1.0; it must be at least 0 and below 1'),
        ('--mom -0.1', 'momentum is -0.1'),
        ('--mom nan', 'momentum is nan'),
        ('--wd -1', "--wd: '-1' is not a number of at least 0"),
        ('--lr -1', "--lr: '-1' is not a number of at least 0"),
        ('--lr inf', "--lr: 'inf'"),
        ('--lr fast', "--lr: 'fast'"),
        ('--first-rate-late --engine torch', '--first-rate-late needs --engine mxnet'),
        ('--lr-factor 10', "--lr-factor: '10' is not a number above 0, and 1 at most"),
        ('--lr-step-epochs 30,20', "--lr-step-epochs: '30,20' is not increasing epochs, for example 30,60,90"),
        ('--lr-step-epochs 5,5', "'5,5' is not increasing"),
        ('--lr-step-epochs 0,5', "'0,5' is not increasing"),
        ('--lr-step-epochs ten', "'ten' is not increasing"),
        ('--lr-step-epochs 1.5', "'1.5' is not increasing"),
        ('--lr-step-epochs=-3', "'-3' is not increasing"),
        ('--clip-gradient 0', "--clip-gradient: '0' is not a number above 0"),
        ('--batch-size 0', "--batch-size: '0' is not a whole number above 0"),
        ('--batch-size many', "--batch-size: 'many' is not a whole number above 0"),
        ('--num-epochs 0.5', "--num-epochs: '0.5' is not a whole number above 0"),
        ('--seed -1', "--seed: '-1' is not a whole number from 0 to 2147483647"),
        ('--seed 2147483648', '--seed'),
        ('--optimizer adam', "--optimizer: 'adam' is not one of apg, nag"),
        ('--kv-store dust', "--kv-store: 'dust' is not one of"),
        ('--gama 0.1', 'unrecognized arguments: --gama 0.1'),
        ('@no-such-recipe', 'no-such-recipe'),
        ('--gpus none', '--gpus none'),
        pytest.param(
            '--gpus 0',
            '--gpus 0: this MXNet is the CPU build; leave --gpus out',
            marks=pytest.mark.skipif(mx.runtime.Features().is_enabled('CUDA'), reason='this MXNet has CUDA'),
        ),
    ],
)
def test_command_line(refusal, tmp_path, monkeypatch, flags, said):
    monkeypatch.setattr(
        train_cifar, 'dataset_from_args', lambda args: pytest.fail('data was read for a run that cannot start')
    )
    assert said in refusal('--model-prefix', tmp_path / 'run', *flags.split())


@pytest.mark.parametrize(
    ('flags', 'said'),
    [
        (
            '',
            'no images: give --data-train train.rec and --data-val val.rec (tools/make_record.py makes them), or '
            '--data-dir',
        ),
        ('--data-train nowhere.rec --data-val val.rec', 'nowhere.rec: no such file'),
        ('--data-train nowhere.rec', 'no images: give'),
        ('--data-dir nowhere', 'nowhere: no such folder'),
        ('--data-dir here --data-val val.rec', 'not both'),
        ('--max-bad 2', "--max-bad: '2' is not a number from 0 to 1"),
        ('--brightness x', "--brightness: 'x' is not"),
        ('--benchmark 1 --num-layers 21', 'resnet has no depth 21'),
        ('--benchmark 1 --num-classes x', '--num-classes'),
        ('--benchmark 1 --image-shape 3,224', "--image-shape 3,224: give 'channels,height,width'"),
        ('--benchmark 1 --mom 1.0', 'momentum is 1.0'),
        ('--benchmark 1 --exact-pipeline 1 --engine torch', '--exact-pipeline 1 needs --engine mxnet'),
    ],
)
def test_imagenet_command_line(refusal, tmp_path, flags, said):
    assert said in refusal('--model-prefix', tmp_path / 'run', *flags.split(), script=train_imagenet)


# Data


def test_too_few_images_for_a_batch(refusal, network, tmp_path):
    line = refusal('--network', network, '--model-prefix', tmp_path / 'run', *NOISE, '--batch-size', 500)
    assert 'a batch size of 500 on 1 worker(s) does not fit 256 training images' in line


def test_a_missing_data_folder(refusal, tmp_path):
    assert f'{tmp_path}/nowhere' in refusal('--data-dir', tmp_path / 'nowhere', '--model-prefix', tmp_path / 'run')


def test_an_empty_data_folder(refusal, tmp_path):
    (tmp_path / 'data').mkdir()
    line = refusal('--data-dir', tmp_path / 'data', '--model-prefix', tmp_path / 'run')
    assert f'{tmp_path}/data: no cifar10 files here' in line


def test_a_data_folder_that_lacks_a_file(refusal, tmp_path):
    (tmp_path / 'data_batch_1.bin').write_bytes(bytes(3073))
    line = refusal('--data-dir', tmp_path, '--model-prefix', tmp_path / 'run')
    assert 'incomplete' in line
    assert 'test_batch.bin' in line


def test_a_damaged_data_file(refusal, tmp_path):
    folder = tmp_path / 'data'
    folder.mkdir()
    for name in ['test_batch.bin', *(f'data_batch_{number}.bin' for number in range(1, 6))]:
        (folder / name).write_bytes(bytes(3073))
    line = refusal('--data-dir', folder, '--model-prefix', folder / 'run')
    assert re.search('data_batch_1.bin.* sum is [0-9a-f]{32,40}, expected [0-9a-f]{32,40}', line)


# The network's file


def test_a_damaged_network_file(refusal, network, tmp_path):
    with open(network, encoding='utf-8') as source:
        half = source.read()[:2000]
    (tmp_path / 'half-symbol.json').write_text(half)
    assert 'half-symbol.json' in refusal(
        '--network', tmp_path / 'half-symbol.json', '--model-prefix', tmp_path / 'run', *NOISE
    )


def test_a_network_for_other_classes(refusal, network, tmp_path):
    line = refusal('--network', network, *NOISE, '--num-classes', 7, '--model-prefix', tmp_path / 'run')
    assert '(1, 10)' in line
    assert '7 classes' in line


def test_a_network_without_label(refusal, network, tmp_path):
    path = str(tmp_path / 'headless-symbol.json')
    mx.sym.load(network).get_internals()['fc1_output'].save(path)
    assert 'no input softmax_label' in refusal('--network', path, *NOISE, '--model-prefix', tmp_path / 'run')


def test_a_loss_that_takes_no_class(refusal, network, tmp_path):
    scores = mx.sym.load(network).get_internals()['fc1_output']
    path = str(tmp_path / 'many-symbol.json')
    mx.sym.LogisticRegressionOutput(scores, mx.sym.Variable('softmax_label'), name='many').save(path)
    assert 'its loss takes no label of one number' in refusal(
        '--network', path, *NOISE, '--model-prefix', tmp_path / 'run'
    )


def test_a_network_of_two_inputs(refusal, tmp_path):
    both = mx.sym.Concat(mx.sym.Flatten(mx.sym.Variable('images')), mx.sym.Variable('meta'))
    path = str(tmp_path / 'two-symbol.json')
    mx.sym.SoftmaxOutput(mx.sym.FullyConnected(both, num_hidden=10, name='fc'), name='softmax').save(path)
    assert 'exactly one input is expected, the images; without parameters are: images, meta' in refusal(
        '--network', path, *NOISE, '--model-prefix', tmp_path / 'run'
    )


# A run that is there already


@pytest.mark.parametrize(
    ('flags', 'said'),
    [
        (['--gamma', 0.5], '--gamma 0.01 (now 0.5)'),
        (['--batch-size', 64], '--batch-size 32 (now 64)'),
        (['--network', 'resnet'], 'net-symbol.json (now resnet)'),
        (['--lr', 0.2, '--seed', 3], '--lr 0.1 (now 0.2), --seed 0 (now 3)'),
        (['--lr-step-epochs', 1], '--lr-step-epochs [120, 160] (now [1])'),
    ],
)
def test_resuming_another_run(refusal, network, run, flags, said):
    line = refusal('--network', network, '--model-prefix', run, *NOISE, '--num-epochs', 3, '--resume', *flags)
    assert said in line
    assert '--finetune' in line


def test_resuming_with_another_network_under_the_same_name(refusal, tmp_path):
    path = save_network(tmp_path)
    assert train(path, tmp_path / 'run', '--num-epochs', 1) == 0
    save_network(tmp_path, width=24)
    line = refusal('--network', path, '--model-prefix', tmp_path / 'run', *NOISE, '--num-epochs', 2, '--resume')
    assert f'run-symbol.json is not the network that --network {path} is now' in line


def test_resuming_nothing(refusal, network, tmp_path):
    assert 'no checkpoint to resume from' in refusal(
        '--network', network, '--model-prefix', tmp_path / 'run', *NOISE, '--resume'
    )
    assert '--model-prefix' in refusal('--network', network, *NOISE, '--resume')


def test_an_epoch_that_is_not_there(refusal, network, run):
    assert 'run-0007.json: no such checkpoint' in refusal(
        '--network', network, '--model-prefix', run, *NOISE, '--load-epoch', 7
    )


def test_a_damaged_epoch_asked_for(refusal, network, run):
    with open(f'{run}-0002.params', 'r+b') as params:
        params.truncate(1000)
    line = refusal('--network', network, '--model-prefix', run, *NOISE, '--num-epochs', 3, '--load-epoch', 2)
    assert 'run-0002.params: damaged, its sha256 is' in line
    assert '--resume' in line


def test_a_run_is_not_written_over(refusal, network, run):
    line = refusal('--network', network, '--model-prefix', run, *NOISE)
    assert 'exist already; go on with --resume, or take another --model-prefix' in line


def test_a_graph_of_other_parameters_is_not_written_over(refusal, network, tmp_path):
    save_plain_network(tmp_path)
    assert 'exist already' in refusal('--network', network, '--model-prefix', tmp_path / 'plain', *NOISE)


# Weights to start from


@pytest.mark.parametrize(
    ('finetune', 'said'),
    [
        ('rum', 'rum-symbol.json: no such file; there is no rum-NNNN.params at all; did you mean run?'),
        ('run:two', "'two' is no epoch; give PREFIX:EPOCH, epochs of run that exist: 1, 2"),
        ('run:-1', "'-1' is no epoch"),
        ('missing:2', 'missing-symbol.json: no such file'),
        ('run:7', 'epochs of run that exist: 1, 2'),
    ],
)
def test_finetune_from_nothing(refusal, network, run, tmp_path, monkeypatch, finetune, said):
    monkeypatch.chdir(os.path.dirname(run))
    assert said in refusal('--network', network, '--model-prefix', tmp_path / 'new', *NOISE, '--finetune', finetune)


@pytest.mark.parametrize(
    ('kinds', 'width', 'said'),
    [(('block',), 24, 'bn1_beta has shape'), ((), 16, 'lambda_block'), (('block', 'neuron'), 16, None)],
)
def test_finetune_from_another_network(refusal, run, tmp_path, kinds, width, said):
    flags = [
        '--network',
        save_network(tmp_path, 'other', kinds=kinds, width=width),
        '--model-prefix',
        tmp_path / 'new',
        *NOISE,
        '--optimizer',
        'nag',
        '--finetune',
        f'{run}:2',
        '--num-epochs',
        1,
    ]
    if said:
        assert said in refusal(*flags)
    else:
        assert (
            train_cifar.main([str(flag) for flag in flags]) == 0
        )  # more λ than before is another matter: they start at 1


def test_finetune_from_a_truncated_checkpoint(refusal, network, run, tmp_path):
    with open(f'{run}-0002.params', 'r+b') as params:
        params.truncate(1000)
    line = refusal('--network', network, '--model-prefix', tmp_path / 'new', *NOISE, '--finetune', f'{run}:2')
    assert 'run-0002.params' in line
