"""Multiply λ = 1 into any network, wherever a structure could be removed, and prove that its function is the same.

NETWORK is a checkpoint (PREFIX:EPOCH, or PREFIX for the last whole one; what Gluon's export writes is one), a
-symbol.json file, or the name of a network of GluonCV, whose weights are taken where they are on disk.

Examples:
    python tools/add_lambda.py mobilenetv2_0.25 --list
    python tools/add_lambda.py runs/mine:30 --scale channel,block --out runs/with-lambda
"""

from __future__ import annotations

import argparse
import contextlib
import os
from typing import Dict, List, Optional, Sequence, Tuple

from formats.checkpoint_files import params_path, save_model, symbol_path
from formats.symbol_file import save_symbol
from graphs.comparison import default_tolerance, noise
from graphs.graph import Graph, Shape
from graphs.insertion import KINDS, Scaled, add_lambda, layers_called, plain_name
from graphs.int8 import require_float
from graphs.lambdas import is_lambda
from graphs.losses import with_loss
from graphs.operator_table import WEIGHTED
from graphs.predictor import Network
from graphs.proof import prove
from graphs.removable import Structures
from interop.networks import NamedNetwork, initialised, read_network
from runtime import mx
from runtime.argument_types import positive
from runtime.checkpoint_argument import checkpoint_name
from runtime.cli import Parser, run
from runtime.errors import UserError
from symbols import parse_image_shape

PROOF_IMAGES = 2


def parser() -> Parser:
    """The parser of this script."""
    made = Parser(description=__doc__.splitlines()[0])
    made.add_argument(
        'network',
        metavar='NETWORK',
        type=checkpoint_name,
        help='a checkpoint (PREFIX:EPOCH, or PREFIX for the last whole one) or export of Gluon; a -symbol.json file; '
        'or the name of a network of GluonCV',
    )
    files = made.add_argument_group('files')
    files.add_argument('--out', metavar='PREFIX', help='writes PREFIX-symbol.json and PREFIX-0000.params')
    files.add_argument('--force', action='store_true', help='replace files of these names (the input never)')
    files.add_argument('--list', action='store_true', help='show what would get λ, and write nothing')
    places = made.add_argument_group('where λ goes')
    places.add_argument(
        '--scale',
        default='channel',
        help='which structures get a λ, separated by commas: channel, block (residual branches), group (of grouped '
        'convolutions) (default: channel)',
    )
    places.add_argument(
        '--exclude',
        action='append',
        default=[],
        metavar='PATTERN',
        help="keep the layers of this name whole, for example 'stage1_*'; may be given several times",
    )
    network = made.add_argument_group('the network')
    network.add_argument('--image-shape', help='channels,height,width, where the network does not say it')
    network.add_argument(
        '--num-classes',
        type=positive,
        metavar='N',
        help="classes of a network of GluonCV (default: GluonCV's own number)",
    )
    return made


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Insert λ, or list where it would be, as the command line ``argv`` says; returns the exit code."""
    args = parser().parse_args(argv)
    if not args.list and not args.out:
        raise UserError('give --out PREFIX to write the network, or --list to see what would get λ')
    network = read_network(args.network, args.num_classes)
    require_float(network.symbol, args.network)
    if args.out:
        check_targets(args, network)
    shape = parse_image_shape(args.image_shape) if args.image_shape else network.image_shape
    if not shape:
        raise UserError(f'{args.network} does not say which images it takes: give --image-shape channels,height,width')
    symbol, found = add_lambda(with_loss(network.symbol), shape, kinds_of(args.scale), args.exclude)
    if not found:
        raise UserError(f'{args.network}: nothing of the kind {args.scale} could be removed, so no λ was added')
    print(f'read: {network.description}')
    if args.list:
        print(table(found, network.symbol, shape, args.exclude))
        return 0
    before = initialised(network, shape)
    after = with_ones(before, symbol, shape)
    print('\n'.join([*summary(found), proven(before, after, shape)]))
    print(f'written: {", ".join(write(args.out, after, network.has_parameters))}')
    return 0


def write(prefix: str, network: Network, has_parameters: bool) -> Tuple[str, ...]:
    """Write the symbol, and the parameters unless they are only initial ones; returns the paths."""
    if has_parameters:
        save_model(prefix, 0, *network)
        return symbol_path(prefix), params_path(prefix, 0)
    with contextlib.suppress(FileNotFoundError):  # parameters of what --force replaces
        os.remove(params_path(prefix, 0))
    save_symbol(symbol_path(prefix), network.symbol)
    return (symbol_path(prefix),)


def kinds_of(scale: str) -> List[str]:
    """The kinds that --scale names. Raises UserError where it names none."""
    kinds = [kind.strip() for kind in scale.split(',') if kind.strip()]
    if not kinds:
        raise UserError(f'--scale {scale!r} names no structure; give {", ".join(KINDS)}, separated by commas')
    return kinds


def check_targets(args: argparse.Namespace, network: NamedNetwork) -> None:
    """Raise UserError, before any work, where a file to write is an input, or exists and --force is not given."""
    sources = [os.path.realpath(path) for path in network.files]
    for target in (symbol_path(args.out), params_path(args.out, 0)):
        if os.path.realpath(target) in sources:
            raise UserError(f'{target} is an input: give another --out')
        if os.path.exists(target) and not args.force:
            raise UserError(f'{target} is already there: give another --out, or --force to replace it')


def with_ones(network: Network, symbol: mx.sym.Symbol, image_shape: Shape) -> Network:
    """``network`` with the rewritten ``symbol``, whose λ are 1. ``image_shape`` is (channels, height, width)."""
    shapes = Graph.from_symbol(symbol).shapes({'data': (1, *image_shape)})
    ones = {node.name: mx.nd.ones(shape) for (node, _), shape in shapes.items() if is_lambda(node.name)}
    known = set(symbol.list_arguments())
    arg_params = {**network.arg_params, **{name: array for name, array in ones.items() if name in known}}
    return Network(symbol, arg_params, network.aux_params)


def proven(before: Network, after: Network, image_shape: Shape) -> str:
    """Compare both networks on images of noise; returns a line that says how far they differ. Raises ProofError where
    that is more than rounding.
    """
    images = noise(PROOF_IMAGES, {'data': (1, *image_shape)})
    found = prove(before, after, images, default_tolerance(before.arg_params))
    how = 'are equal to the bit' if found.largest == 0 else f'differ by rounding, {found.relative:.2g} of the largest'
    return f'proof: on {found.images} images, the logits with λ = 1 and without λ {how}'


def table(found: Sequence[Scaled], symbol: mx.sym.Symbol, image_shape: Shape, exclude: Sequence[str] = ()) -> str:
    """The structures that would get a λ, a line each, the totals, and the layers that get none, with the reason."""
    rows = [('kind', 'where', 'structures', 'MACs', 'layers')]
    rows += [
        (one.kind, one.place, str(one.structures), f'{100 * one.share:.2f} %', ', '.join(one.layers)) for one in found
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        f'{kind:{widths[0]}}  {where:{widths[1]}}  {structures:>{widths[2]}}  {macs:>{widths[3]}}  {layers}'
        for kind, where, structures, macs, layers in rows
    ]
    return '\n'.join([*lines, '', *summary(found), *left_out(found, symbol, image_shape, exclude)])


def left_out(found: Sequence[Scaled], symbol: mx.sym.Symbol, image_shape: Shape, exclude: Sequence[str]) -> List[str]:
    """Lines: how many layers get no λ, and their names by the reason."""
    net = Structures(symbol, {'data': (1, *image_shape)})
    covered = {layer for one in found for layer in one.layers}
    layers = [layer for layer in net.graph.nodes() if layer.op in WEIGHTED]
    left = [layer for layer in layers if plain_name(layer.name) not in covered]
    share = 100 * net.macs(left) / max(1, net.total_macs)
    excluded = layers_called(net.graph, exclude)
    by_reason: Dict[str, List[str]] = {}
    for layer in left:
        by_reason.setdefault(net.why_whole(layer, excluded), []).append(plain_name(layer.name))
    return [
        f'without λ: {len(left)} of {len(layers)} layers, {share:.1f} % of the MACs',
        *(f'  {", ".join(names)}: {reason}' for reason, names in by_reason.items()),
    ]


def summary(found: Sequence[Scaled]) -> List[str]:
    """A line for each kind of structure."""
    lines = []
    for kind in KINDS:
        chosen = [one for one in found if one.kind == kind]
        if chosen:
            count, share = sum(one.structures for one in chosen), sum(one.share for one in chosen)
            places = '' if kind == 'block' else f' in {len(chosen)} places'
            lines.append(f'{kind}: {count} structures{places}, which cost {100 * share:.1f} % of the MACs')
    return lines


if __name__ == '__main__':
    run(main)
