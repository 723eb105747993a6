"""Selection compared with the structure alone: a network that a run selected and trained in one pass, and the same
structure trained from new weights by the same schedule.
"""

from typing import List

from .render import budget_of, markdown, selected
from .results import Point, Result, network_of, points_of, structure_of

NAMES = [
    'network',
    'selects',
    'γ or budget',
    'epochs',
    'MACs kept (%)',
    'error, selected and trained in one pass (%)',
    'error, the structure from new weights (%)',
    'difference (points)',
]


def from_scratch_markdown(results: List[Result]) -> str:
    """A row for every run of ``results`` whose structure was trained alone too. A positive difference is an error that
    selection adds to what the structure itself can do.
    """
    points = points_of(results)
    alone = {structure_of(point.runs[0]): point for point in points if structure_of(point.runs[0])}
    pairs = [(point, alone[name]) for point in points for name in [_name(point)] if name in alone]
    return markdown(NAMES, [_row(*pair) for pair in pairs], aligned=3) if pairs else 'None yet.'


def _name(point: Point) -> str:
    return point.runs[0]['folder'].rstrip('/').rpartition('/')[2]


def _row(point: Point, alone: Point) -> List[str]:
    arguments = point.arguments
    kept = point.mean(lambda run: run['left']['macs'] / run['full']['macs'])
    return [
        network_of(point.runs[0]),
        selected(arguments),
        budget_of(arguments) or f'γ = {arguments["gamma"]:g}',
        str(arguments['num_epochs']),
        f'{100 * kept:.1f}',
        point.error_text(),
        alone.error_text(),
        f'{(point.error() or 0) - (alone.error() or 0):+.2f}',
    ]
