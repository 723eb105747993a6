"""The end of a run: the stripped network is written where there was a budget, and the conclusion says what was removed,
what it cost, how much faster training is, and the next command.
"""

import argparse
import logging
from typing import Any, Dict, List, NamedTuple, Optional

from graphs.graph import Shape
from graphs.predictor import Network
from graphs.stripped_files import strip_with_proof, stripped_paths, write_stripped


class Course(NamedTuple):
    """What the conclusion of a run says: the records of the first and the last epoch that this process trained,
    [validation accuracy, epoch] of the best one, and the accuracy before the first structure was removed.
    """

    first: Dict[str, Any]
    last: Dict[str, Any]
    best: Optional[List[Any]]
    accuracy_before: Optional[float] = None


def stripped_prefix(prefix: str) -> str:
    """The prefix of the stripped network that a run with a budget writes."""
    return f'{prefix}-stripped'


def strip_run(prefix: str, network: Network, data_shapes: Dict[str, Shape]) -> None:
    """Strip the network that a run ended with, prove it, and write it beside the checkpoints of ``prefix``.

    Raises NothingLeftError or ProofError, and then writes nothing.
    """
    proved, out = strip_with_proof(network, data_shapes), stripped_prefix(prefix)
    write_stripped(out, proved)
    before, after = proved.report['before'], proved.report['after']
    logging.info(
        'Stripped the network: params %d -> %d, macs %d -> %d; on %d images the outputs differ by at most %.2g of '
        'their spread. Wrote %s',
        before['params'],
        after['params'],
        before['macs'],
        after['macs'],
        proved.proof.images,
        proved.proof.relative,
        ', '.join(stripped_paths(out)),
    )


def conclusion(args: argparse.Namespace, course: Course, seconds: float) -> List[str]:
    """The lines of the conclusion, for a run that took ``seconds``."""
    first, last, best = course.first, course.last, course.best
    lines = [
        f'Finished {args.num_epochs} epochs; this took {_duration(seconds)}. Validation accuracy '
        f'{_percent(last["validation"]["accuracy"])}'
        + (f', at best {_percent(best[0])} after epoch {best[1]}.' if best else '.')
    ]
    if 'alive' not in last:
        return lines + _next_baseline(args)
    shares = {name: last['alive'][name] / last['full'][name] for name in ('macs', 'params')}
    lines += _reached(args, course, shares)
    for kind, found in last['lambda'].items():
        lines.append(f'Alive: {found["alive"]} of {found["total"]} {kind}s.')
    lines.append(f'Left: {_percent(shares["macs"])} of the MACs, {_percent(shares["params"])} of the parameters.')
    if args.shrink and first['epoch'] < last['epoch']:
        speeds = [record['samples_per_second'] for record in (first, last)]
        lines.append(
            f'Training ran at {speeds[0]:.0f} images/s in epoch {first["epoch"]} and at {speeds[1]:.0f} in the last '
            'one.'
        )
    return lines + _next(args, shares)


def _reached(args, course, shares):
    """The line about the budget."""
    name, target = ('params', args.target_params) if args.target_params else ('macs', args.target_macs)
    if not target:
        return []
    what = 'MACs' if name == 'macs' else 'parameters'
    line = f'Reached {_percent(shares[name])} of the {what} (target {100 * target:g} %)'
    if course.accuracy_before is not None:
        now = course.last['validation']['accuracy']
        line += f', accuracy {_percent(course.accuracy_before)} before the first structure died -> {_percent(now)} now'
    return [f'{line}.']


def _next(args, shares):
    if not args.model_prefix or shares['macs'] == 1:
        return []
    data = f' --data {args.dataset}' if hasattr(args, 'dataset') else ''
    strip = f'  python tools/strip_params.py {args.model_prefix}:{args.num_epochs} --out '
    if args.target_macs or args.target_params:
        out = stripped_prefix(args.model_prefix)
        return [
            f'The network without its dead structures: {", ".join(stripped_paths(out)[:2])}.',
            'Next, fold its batch normalisation too, and measure the time of an image before and after:',
            f'{strip}{args.model_prefix}-folded --fold-bn{data} --time',
        ]
    return ['Next, remove the dead structures:', f'{strip}{args.model_prefix}-stripped{data} --time']


def _next_baseline(args):
    if not args.model_prefix:
        return []
    data = f' --dataset {args.dataset}' if hasattr(args, 'dataset') else ''
    return [
        'Next, evaluate it:',
        f'  python tools/evaluate.py {args.model_prefix}:{args.num_epochs}{data}',
    ]


def _percent(share):
    return f'{100 * share:.1f} %'


def _duration(seconds):
    if seconds < 120:
        return f'{seconds:.0f} seconds'
    return f'{seconds / 60:.0f} minutes' if seconds < 7200 else f'{seconds / 3600:.1f} hours'
