"""Measure a training step with λ and without, APG and MXNet's own optimizers, inference of full and stripped
networks, the data pipeline, record files, workers and parameter servers.

    python tools/benchmark.py train --network resnet --num-layers 20 --image-shape 3,32,32 --batch-size 64
    python tools/benchmark.py inference run/resnet50 run/stripped --plot speed.png
    python tools/benchmark.py inference imagenet-resnet/resnet-50 imagenet-resnet/sss-resnet-41
    python tools/benchmark.py io --synthetic 100000 --steps 200

Candidates alternate, each in a process of its own with all cores, and are compared round by round; times are medians.
"""

import argparse
import os
import sys
from typing import Optional, Sequence

from runtime import usable_cores
from runtime.argument_types import picture, positive, processes, seed
from runtime.checkpoint_argument import checkpoint_name
from runtime.cli import Parser, run
from runtime.errors import UserError
from symbols import NETWORKS, get_symbol
from tools.benchmarks import data_pipeline, inference, optimizer, record_files, scaling, training
from tools.benchmarks.alternating import CLOCKS, ROUNDS, STEPS
from tools.benchmarks.report import report
from train.compute_arguments import SERVER_STORES
from train.data.datasets import add_data_args


def parser() -> Parser:
    """The parser of this script."""
    made = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = made.add_subparsers(dest='what', required=True)
    for add in (_add_train, _add_optimizer, _add_inference, _add_io, _add_records, _add_scaling):
        add(commands).add_argument(
            '--json',
            metavar='FILE',
            help='also write everything that was measured, with command, machine and versions, to FILE',
        )
    return made


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Measure as the command line ``argv`` says; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    args = parser().parse_args(argv)
    _check(args)
    report(args.title, argv, args.measure(args), args.json)
    return 0


def _check(args: argparse.Namespace) -> None:
    """Raise UserError, before anything is measured, for arguments with which the measurement would fail later."""
    if args.json and os.path.isdir(args.json):
        raise UserError(f'--json {args.json} is a folder; name a file')
    if args.what in ('train', 'optimizer', 'scaling'):
        get_symbol(args.network, args.num_layers, args.num_classes, args.image_shape)


def _add_train(commands):
    command = _command(commands, 'train', training.measure, 'A whole training step: what λ costs, in each placement')
    _add_network(command)
    command.add_argument(
        '--batch-size',
        type=positive,
        default=32,
        help='images a step: small batches show the cost of λ on the parameters most',
    )
    command.add_argument(
        '--lambdas',
        type=_choices(training.LAMBDAS),
        default=list(training.LAMBDAS),
        metavar='NAMES',
        help="which to compare, 'off,weight,output': no λ, λ folded into the parameters, the authors' λ on feature "
        'maps (default: all)',
    )
    command.add_argument(
        '--engines',
        type=_choices(training.ENGINES),
        default=['mxnet'],
        metavar='NAMES',
        help="what computes, 'mxnet,torch' (default: mxnet)",
    )
    command.add_argument(
        '--dtypes',
        type=_choices(training.DTYPES['mxnet'] + training.DTYPES['torch']),
        default=['float32'],
        metavar='NAMES',
        help="what products compute in, 'float32,bfloat16,float16' (default: float32): each engine takes those that it "
        'has; bfloat16 is of '
        'torch, and a CPU emulates float16 slowly',
    )
    command.add_argument(
        '--compile',
        type=_choices(('off', 'on')),
        default=['off'],
        metavar='NAMES',
        help="'off,on': also with torch's step compiled, on the CPU (default: off)",
    )
    command.add_argument(
        '--blocks',
        type=_patterns,
        default=[],
        metavar='PATTERN,PATTERN',
        help='also the network that is left when some of its blocks have died: a digit for each block, 0 where it is '
        'dead, for example 000101',
    )
    command.add_argument(
        '--memonger',
        type=_choices(('0', '1')),
        default=['0'],
        metavar='N,N',
        help='0,1: also with feature maps that are computed twice, to see what memory costs in time (default: 0)',
    )
    return _add_turns(command)


def _add_optimizer(commands):
    command = _command(commands, 'optimizer', optimizer.measure, "The optimizer's step alone")
    _add_network(command)
    command.add_argument(
        '--optimizers',
        type=_choices(('apg', 'nag', 'sgd')),
        default=['apg', 'sgd'],
        metavar='NAMES',
        help="which to measure beside MXNet's nag (default: apg,sgd)",
    )
    return _add_turns(command)


def _add_inference(commands):
    command = _command(commands, 'inference', inference.measure, 'Inference of full and stripped networks')
    command.add_argument(
        'models',
        nargs='+',
        metavar='CHECKPOINT',
        type=checkpoint_name,
        help='PREFIX:EPOCH, or PREFIX for the last whole one; .onnx files; or rows of the published tables (random '
        'weights); the first is what the others are measured by',
    )
    command.add_argument(
        '--runtimes',
        type=_choices(inference.RUNTIMES),
        default=list(inference.RUNTIMES),
        metavar='NAMES',
        help="where to run them, 'mxnet,onnxruntime,torch'; what is not installed is left out (default: all)",
    )
    command.add_argument(
        '--batch-sizes',
        type=_numbers,
        default=[1, 8, 32],
        metavar='N,N',
        help='1 is latency, large ones are throughput (default: 1,8,32)',
    )
    command.add_argument('--image-shape', help='channels,height,width, where the symbol does not say it')
    command.add_argument(
        '--plot', type=picture, metavar='FILE', help='draw speed-up against the ratio of MACs: png, svg, pdf'
    )
    return _add_turns(command)


def _add_io(commands):
    command = _command(commands, 'io', data_pipeline.measure, 'The data pipeline: images per second')
    add_data_args(command)
    command.add_argument('--batch-size', type=positive, default=64, help='images a batch')
    command.add_argument(
        '--batches', type=positive, default=500, help='how many batches to read of a data set that fits into memory'
    )
    command.add_argument(
        '--data-train',
        metavar='REC',
        help="a record file of JPEGs: the pipeline of ImageNet, beside MXNet's own and bare decoding",
    )
    command.add_argument(
        '--synthetic',
        type=positive,
        metavar='N',
        help='the same with N JPEGs that look like photographs to a decoder, made first',
    )
    command.add_argument(
        '--scratch',
        metavar='FOLDER',
        help='where to make them, 105 KB each, and to find them next time (default: where scratch files go)',
    )
    command.add_argument('--seed', type=seed, default=0, help='of the order and the augmentation')
    command.add_argument(
        '--network',
        help="also how many images a second this network takes in training, as 'train' measures it, to compare",
    )
    command.add_argument('--num-layers', type=positive, default=50, help='its depth (default: 50)')
    _add_turns(command)
    command.set_defaults(steps=100)  # what is decoded ahead between two turns must not count
    return command


def _add_records(commands):
    command = _command(
        commands, 'records', record_files.measure, 'Making record files and reading them back, on synthetic JPEGs'
    )
    command.add_argument(
        '--images', type=positive, default=2000, help='how many JPEGs of 300 to 500 pixels (default: 2000)'
    )
    command.add_argument(
        '--jobs', type=processes, default=usable_cores(), help='processes (default: the cores of this machine)'
    )
    command.add_argument(
        '--folder',
        help='where the JPEGs are kept for the next time; beside it there must be room for two sets (default: a '
        'scratch folder)',
    )
    return command


def _add_scaling(commands):
    command = _command(commands, 'scaling', scaling.measure, 'Workers and a parameter server on this machine')
    _add_network(command)
    command.add_argument('--batch-size', type=positive, default=32, help='images a step of each worker')
    command.add_argument(
        '--workers',
        type=_processes,
        default=[1, 2, 4],
        metavar='N,N',
        help='how many, one table row each (default: 1,2,4)',
    )
    command.add_argument('--servers', type=processes, default=1, help='parameter servers (default: 1)')
    command.add_argument('--threads', type=processes, default=1, help='threads of each worker (default: 1)')
    command.add_argument(
        '--kv-store', choices=SERVER_STORES, default='dist_sync', help='how they work together (default: dist_sync)'
    )
    command.add_argument(
        '--rounds', type=positive, default=ROUNDS, help=f'how many speeds to take the median of (default: {ROUNDS})'
    )
    command.add_argument(
        '--steps', type=positive, default=STEPS, help=f'steps that a speed is measured over (default: {STEPS})'
    )
    return command


def _command(commands, name, measure, title):
    command = commands.add_parser(name, help=title, description=title)
    command.set_defaults(measure=measure, title=title)
    return command


def _add_network(command):
    command.add_argument('--network', choices=NETWORKS, default='resnet', help='a family (default: resnet)')
    command.add_argument('--num-layers', type=positive, default=50, help='its depth (default: 50)')
    command.add_argument('--num-classes', type=positive, default=1000, help='width of its classifier (default: 1000)')
    command.add_argument('--image-shape', default='3,224,224', help='channels,height,width (default: 3,224,224)')


def _add_turns(command):
    command.add_argument(
        '--rounds',
        type=positive,
        default=ROUNDS,
        help=f'rounds in which each candidate runs once: more on a busy machine (default: {ROUNDS})',
    )
    command.add_argument(
        '--steps',
        type=positive,
        default=STEPS,
        help=f'steps of a round: more for steps of a few milliseconds (default: {STEPS}, of io 100)',
    )
    command.add_argument(
        '--clock',
        choices=CLOCKS,
        default='wall',
        help='processor time is the steadier one where other programs run; take it with '
        'OMP_NUM_THREADS=1, for waiting threads count too; family is that of all processes of a candidate (default: '
        'wall)',
    )
    return command


def _choices(known):
    def names(text):
        found = text.split(',')
        for name in found:
            if name not in known:
                raise argparse.ArgumentTypeError(f'{name!r} is none of {", ".join(known)}')
        return found

    return names


def _numbers(text):
    return [positive(number) for number in text.split(',')]


def _patterns(text):
    patterns = text.split(',')
    for pattern in patterns:
        if not pattern or pattern.strip('01'):
            raise argparse.ArgumentTypeError(f'{pattern!r} is not one digit, 0 or 1, for each block')
    return patterns


def _processes(text):
    return [processes(number) for number in text.split(',')]


if __name__ == '__main__':
    run(main)
