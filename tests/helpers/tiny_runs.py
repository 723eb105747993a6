"""Training runs that take a second: a network of two residual blocks, 8×8 images, and the whole command line around
them.
"""

import json
import os
import re

import pytest

from runtime import mx
from runtime.cli import run
from symbols import resnet
from symbols.layers import batch_norm, classifier, convolution, input_images, relu
from train import train_cifar

IMAGE_SHAPE = (3, 8, 8)
DIGITS = ['--dataset', 'digits', '--image-shape', '3,8,8']
# 8 batches an epoch; the last batch of the 64 test images is full, those of the digits are not.
NOISE = ['--dataset', 'synthetic', '--image-shape', '3,8,8', '--num-examples', '256', '--batch-size', '32']
BATCHES = 8
LOG_LINE = re.compile(r'\d{4}-\d\d-\d\d [\d:,]+ Node\[0\] .+')


def save_network(folder, name='net', kinds=('block',), placement='weight', width=16, dropout=0.0):
    """Write a pre-activation ResNet of two blocks; returns the path that ``--network`` takes."""
    with mx.name.NameManager():
        symbol = resnet.network(
            (1, 1), (width, 2 * width), resnet.bottleneck_unit, True, 10, IMAGE_SHAPE, kinds, placement
        )
        if dropout:
            data = mx.sym.Dropout(symbol.get_internals()['pool1_output'], p=dropout)
            symbol = mx.sym.SoftmaxOutput(
                mx.sym.FullyConnected(mx.sym.Flatten(data), num_hidden=10, name='fc1'), name='softmax'
            )
    path = os.path.join(str(folder), f'{name}-symbol.json')
    symbol.save(path)
    return path


def save_plain_network(folder):
    """Write a network without λ and without residual blocks; returns its path."""
    with mx.name.NameManager():
        symbol = classifier(
            relu(batch_norm(convolution(input_images(IMAGE_SHAPE), 3, 8, 3, 'conv0'), 8, 'bn0'), 'relu0'), 10
        )
    path = os.path.join(str(folder), 'plain-symbol.json')
    symbol.save(path)
    return path


def train(network, prefix, *flags, data=NOISE):
    """Run train_cifar's main in this process; returns its exit code."""
    return train_cifar.main(['--network', network, '--model-prefix', str(prefix), *data, *map(str, flags)])


def refused(capfd, folder, *flags, script=train_cifar, is_unchanged=True):
    """Run a script that must end with exit code 2 and a single line of error, and leave ``folder`` as it was; returns
    the line.
    """
    before = contents(folder)
    capfd.readouterr()
    with pytest.raises(SystemExit) as end:
        run(script.main, [str(flag) for flag in flags])
    assert end.value.code == 2
    *others, line = capfd.readouterr().err.splitlines()
    assert line.startswith('error: ')
    assert all(LOG_LINE.match(other) for other in others)
    assert not is_unchanged or contents(folder) == before
    return line


def contents(folder):
    """Every file below ``folder`` by path, as bytes."""
    paths = [os.path.join(where, name) for where, _, names in os.walk(str(folder)) for name in names]
    return {os.path.relpath(path, str(folder)): open_bytes(path) for path in sorted(paths)}


def open_bytes(path):
    with open(path, 'rb') as source:
        return source.read()


def checkpoint(prefix, epoch):
    """The bytes of what a checkpoint computes with: (.params, .states)."""
    return tuple(open_bytes(f'{prefix}-{epoch:04d}.{ending}') for ending in ('params', 'states'))


def manifests(folder):
    """The labels of the checkpoints in ``folder``: '0003', 'stopped-0002-4'."""
    found = (re.fullmatch(r'.+?-(\d{4}|stopped-\d{4}-\d+)\.json', name) for name in os.listdir(str(folder)))
    return sorted(match.group(1) for match in found if match)


def metrics(prefix):
    """The lines of PREFIX-metrics.jsonl."""
    with open(f'{prefix}-metrics.jsonl', encoding='utf-8') as lines:
        return [json.loads(line) for line in lines]


def log_lines(prefix):
    with open(f'{prefix}.log', encoding='utf-8') as lines:
        return lines.read().splitlines()
