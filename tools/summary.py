"""Print a network's or a checkpoint's layers, parameters and MACs, exactly.

Examples:
    python tools/summary.py --network resnet --num-layers 50
    python tools/summary.py run/resnet50 --json
"""

import json
from typing import Optional, Sequence

from formats.checkpoint_files import find_checkpoint, load_checkpoint, symbol_path
from formats.symbol_file import load_symbol
from graphs.complexity import Complexity, complexity
from graphs.graph import data_shape_of
from runtime.argument_types import positive
from runtime.checkpoint_argument import add_checkpoint
from runtime.cli import Parser, run
from runtime.errors import UserError
from symbols import NETWORKS, get_symbol, parse_image_shape

CIFAR_DEPTHS = {'resnet': (20, 164), 'resnext': (20, 164), 'resnet-v1': (20, 32, 44, 56, 110)}


def parser() -> Parser:
    """The parser of this script."""
    made = Parser(description=__doc__.splitlines()[0])
    add_checkpoint(
        made,
        'count a checkpoint, PREFIX:EPOCH, or PREFIX for the last whole one; or a -symbol.json file without parameters',
        required=False,
    )
    built = made.add_argument_group('a network of ours')
    built.add_argument(
        '--network', choices=sorted(NETWORKS), help='count one of our networks, as training would build it'
    )
    built.add_argument('--num-layers', type=positive, help='its depth')
    built.add_argument(
        '--num-classes', type=positive, help='width of its classifier (default: 1000, or 10 for a CIFAR depth)'
    )
    built.add_argument(
        '--scale',
        help="what has scaling factors: 'block,group', 'none', ... (default: the paper's choice); they count as "
        'lambdas only',
    )
    count = made.add_argument_group('what is counted')
    count.add_argument(
        '--image-shape',
        help="channels,height,width: MACs depend on it (default: what the symbol says, or the network's own data set)",
    )
    count.add_argument(
        '--lambda-name', default='lambda', help='what the names of scaling factors contain (default: lambda)'
    )
    count.add_argument(
        '--json',
        action='store_true',
        help='print one object with params, params_without_bn, macs, bias_adds and lambdas',
    )
    return made


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Count as the command line ``argv`` says; returns the exit code."""
    args = parser().parse_args(argv)
    symbol = _checkpoint(args.checkpoint) if args.checkpoint else _network(args)
    shape = parse_image_shape(args.image_shape) if args.image_shape else data_shape_of(symbol)
    if not shape:
        raise UserError('this symbol does not say which images it takes: give --image-shape channels,height,width')
    found = complexity(symbol, {'data': (1, *shape)}, args.lambda_name)
    print(json.dumps(found.totals()) if args.json else table(found))
    return 0


def table(found: Complexity) -> str:
    """The layers of a ``Complexity`` and its totals, as text."""
    rows = [('layer', 'operator', 'output', 'params', 'MACs')]
    rows += [
        (layer.name, layer.op, '×'.join(map(str, layer.output)), f'{layer.params:,}', f'{layer.macs:,}')
        for layer in found.layers
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [
        '  '.join(
            [cell.ljust(width) for cell, width in zip(row[:3], widths)]
            + [cell.rjust(width) for cell, width in zip(row[3:], widths[3:])]
        )
        for row in rows
    ]
    lines.insert(1, '  '.join('-' * width for width in widths))
    return '\n'.join(
        [
            *lines,
            '',
            f'parameters           {found.params:>15,}  ({found.params_without_bn:,} without batch normalisation)',
            f'MACs per image       {found.macs:>15,}  (convolutions and fully connected layers; {found.bias_adds:,} '
            'bias additions not among them)',
            f'scaling factors      {found.lambdas:>15,}  (not among the parameters)',
        ]
    )


def _network(args):
    if not args.network or args.num_layers is None:
        raise UserError('say what to count: --network and --num-layers, or a checkpoint')
    small = args.num_layers in CIFAR_DEPTHS.get(args.network, ())
    shape = args.image_shape or ('3,32,32' if small else '3,224,224')
    classes = args.num_classes or (10 if small else 1000)
    return get_symbol(args.network, args.num_layers, classes, shape, args.scale)


def _checkpoint(name):
    """The symbol of a checkpoint, whose parameters fit where there are any."""
    checkpoint = find_checkpoint(name)
    if checkpoint:
        return load_checkpoint(*checkpoint)[0]
    return load_symbol(name if name.endswith('.json') else symbol_path(name))


if __name__ == '__main__':
    run(main)
