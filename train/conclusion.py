"""The conclusion of a run: what was removed, what it cost, how much faster it is, and the next command."""

from typing import List, Optional


def conclusion(args, first: dict, last: dict, best: Optional[list], seconds: float) -> List[str]:
    """The lines, from the records of the first and the last epoch that were trained now, and [accuracy, epoch] of the
    best one.
    """
    accuracy = last['validation']['accuracy']
    lines = [
        f'Finished {args.num_epochs} epochs; this took {_duration(seconds)}. Validation accuracy {accuracy:.4f}'
        + (f', at best {best[0]:.4f} after epoch {best[1]}.' if best else '.')
    ]
    if 'alive' not in last:
        return lines + _next_baseline(args)
    for kind, found in last['lambda'].items():
        lines.append(f'Alive: {found["alive"]} of {found["total"]} {kind}s.')
    shares = {name: 100 * last['alive'][name] / last['full'][name] for name in ('macs', 'params')}
    lines.append(f'Left: {shares["macs"]:.1f} % of the MACs, {shares["params"]:.1f} % of the parameters.')
    if args.shrink and first['epoch'] < last['epoch']:
        speeds = [record['samples_per_second'] for record in (first, last)]
        lines.append(
            f'Training ran at {speeds[0]:.0f} images/s in epoch {first["epoch"]} and at {speeds[1]:.0f} in the last '
            'one.'
        )
    return lines + _next(args, shares)


def _next(args, shares):
    if not args.model_prefix:
        return []
    if shares['macs'] == 100:
        return []
    data = f' --data {args.dataset}' if hasattr(args, 'dataset') else ''
    return [
        'Next, take what is dead out of the file:',
        f'  python tools/strip_params.py --prefix {args.model_prefix} --epoch {args.num_epochs} --out '
        f'{args.model_prefix}-stripped{data} --time',
    ]


def _next_baseline(args):
    if not args.model_prefix:
        return []
    data = f' --dataset {args.dataset}' if hasattr(args, 'dataset') else ''
    return [
        'Next, evaluate it:',
        f'  python tools/evaluate.py --prefix {args.model_prefix} --epoch {args.num_epochs}{data}',
    ]


def _duration(seconds):
    return (
        f'{seconds:.0f} seconds'
        if seconds < 120
        else f'{seconds / 60:.0f} minutes'
        if seconds < 7200
        else f'{seconds / 3600:.1f} hours'
    )
