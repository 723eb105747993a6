"""A sound command line of every script, and the folder of small files that it runs in."""

import argparse
import json
import os
import shutil
from typing import Dict, Iterator, List, NamedTuple

from helpers.fuzz_texts import EPOCH
from helpers.jpegs import jpeg, save_records
from helpers.tiny_runs import NOISE, save_network, save_plain_network, train
from tools import (
    add_lambda,
    benchmark,
    compare_checkpoints,
    convert,
    evaluate,
    gpu_runs,
    make_record,
    plot,
    predict,
    report,
    reproduce_tables,
    strip_params,
    summary,
    sweep,
)
from train import launch, train_cifar, train_imagenet

SMALL = ['--num-layers', '20', '--image-shape', '3,32,32']


class Script(NamedTuple):
    """A module of a script, and the words behind its name that make it run."""

    module: object
    argv: List[str]


SCRIPTS: Dict[str, Script] = {
    'train_cifar': Script(train_cifar, ['--network', 'net-symbol.json', '--model-prefix', 'out/run', *NOISE]),
    'train_imagenet': Script(
        train_imagenet,
        ['--network', 'net-symbol.json', '--image-shape', '3,8,8', '--num-classes', '10', '--batch-size', '32']
        + ['--benchmark', '1', '--num-examples', '64', '--lr-step-epochs', '1'],
    ),
    'train_imagenet on records': Script(
        train_imagenet,
        ['--network', 'net-symbol.json', '--image-shape', '3,8,8', '--num-classes', '10', '--batch-size', '4']
        + ['--data-train', 'set.rec', '--data-val', 'set.rec'],
    ),
    'launch': Script(launch, ['-n', '1', 'true']),
    'add_lambda': Script(add_lambda, ['plain-symbol.json', '--out', 'out/x']),
    'compare_checkpoints': Script(compare_checkpoints, ['run:1', 'run:1']),
    'convert': Script(convert, ['run:1', '--to', 'onnx', '--out', 'out/x']),
    'evaluate': Script(evaluate, ['run:1', '--dataset', 'digits']),
    'gpu_runs': Script(gpu_runs, ['--reduced', '--out', 'out/runs']),
    'make_record': Script(make_record, ['images', 'out/set']),
    'plot': Script(plot, ['x', '--out', 'out/x.png']),
    'predict': Script(predict, ['run', 'images/a/1.jpg']),
    'report': Script(report, ['run', '--out', 'out/x.html']),
    'reproduce_tables': Script(reproduce_tables, ['runs', '--results', 'results']),
    'strip_params': Script(strip_params, ['run:1', '--out', 'out/x']),
    'summary': Script(summary, ['run']),
    'sweep': Script(sweep, ['--recipe', 'digits.args', '--out', 'out/sweep', '--gamma', '0.1']),
    'benchmark train': Script(benchmark, ['train', *SMALL]),
    'benchmark optimizer': Script(benchmark, ['optimizer', *SMALL]),
    'benchmark inference': Script(benchmark, ['inference', 'run:1']),
    'benchmark io': Script(benchmark, ['io', '--dataset', 'digits', '--batches', '1', '--steps', '1', '--rounds', '1']),
    'benchmark records': Script(benchmark, ['records', '--images', '2']),
    'benchmark scaling': Script(benchmark, ['scaling', *SMALL]),
}


def prepare(folder: str) -> None:
    """Fill ``folder`` with what the command lines read."""
    network = save_network(folder)
    save_plain_network(folder)
    assert train(network, os.path.join(folder, 'run'), '--num-epochs', 1, '--quiet') == 0
    os.makedirs(os.path.join(folder, 'images', 'a'))
    os.makedirs(os.path.join(folder, 'results'))
    with open(os.path.join(folder, 'images', 'a', '1.jpg'), 'wb') as image:
        image.write(jpeg(0))
    save_records(os.path.join(folder, 'set'), [jpeg(number) for number in range(8)])
    for name, text in (
        ('note.txt', 'shopping: bread, milk\n'),
        ('digits.args', '# python train/train_cifar.py @digits.args\n--network resnet --num-layers 20\n'),
        ('x-metrics.jsonl', json.dumps(EPOCH) + '\n'),
    ):
        with open(os.path.join(folder, name), 'w', encoding='utf-8') as out:
            out.write(text)


def place(prepared: str, folder: str) -> None:
    """Let ``folder`` hold what ``prepared`` does, and an empty folder ``out``."""
    shutil.copytree(prepared, folder, copy_function=os.link, dirs_exist_ok=True)
    os.mkdir(os.path.join(folder, 'out'))


def parser_of(name: str) -> argparse.ArgumentParser:
    """The parser that reads the command line of a script; of a subcommand its own."""
    script = SCRIPTS[name]
    parser = script.module.parser()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action.choices[script.argv[0]]
    return parser


def flags_of(name: str) -> Iterator[argparse.Action]:
    """The flags of a script, ``--help`` left out."""
    for action in parser_of(name)._actions:
        if action.option_strings and not isinstance(action, argparse._HelpAction):
            yield action
