"""Tables as Markdown for readers and as plain dicts for programs. Links are relative to the folder ``base``."""

import os
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from .cells import COLUMNS, cost_of, lines_of
from .published import Table
from .results import Point, Result, baseline_of, is_baseline, network_of, points_of

# A channel is a neuron in the paper, and in `--scale`.
PLURALS = {'block': 'blocks', 'group': 'groups', 'neuron': 'channels', 'channel': 'channels'}
ORIGINS = {'structure': 'ours', 'run': 'our run'}
LEGEND = (
    'Grades: [A] seen in a source, or forced by arithmetic; [B] second-hand, or read off a plot; [M] from memory; [?] '
    'not graded. In brackets behind our '
    'value: `=` where all printed digits agree, `= cut` where they do if ours is cut off instead of rounded, otherwise '
    'ours minus published. Parameters '
    'leave batch normalisation out. Empty cells have not been run yet; `python tools/reproduce_tables.py` with the '
    'flag at the end of their line runs them.'
)


def published_markdown(table: Table, results: Sequence[Result], base: str = '.') -> str:
    """A published table with our values beside it."""
    has_ours = any(row.network for row in table.rows)
    names = ['model', '', *(COLUMNS[name].heading for name in table.columns), *(['where from'] if has_ours else [])]
    rows = []
    for row in table.rows:
        published = [_published(row.values.get(name)) for name in table.columns]
        rows.append([f'**{row.model}**', 'published', *published, *([''] if has_ours else [])])
        lines = lines_of(row, table.columns, results)
        rows += [
            ['', ORIGINS[line.origin], *(str(line.cells.get(name, '')) for name in table.columns), _source(line, base)]
            for line in lines
        ]
        if row.recipe and not any(line.origin == 'run' for line in lines):
            rows.append(['', 'our run', *([''] * len(table.columns)), f'`--run {row.name}`'])
    return '\n\n'.join(filter(None, [markdown(names, rows, aligned=2), table.note.strip()]))


def published_json(table: Table, results: Sequence[Result]) -> Dict[str, Any]:
    """A published table with our values beside it, as a dict."""
    rows = []
    for row in table.rows:
        values = {name: {'published': value.text, 'grade': value.grade} for name, value in row.values.items()}
        lines = [
            {
                'origin': line.origin,
                'source': line.source or 'built and stripped',
                'cells': {name: {'ours': cell.ours, 'agreement': cell.agreement} for name, cell in line.cells.items()},
            }
            for line in lines_of(row, table.columns, results)
        ]
        rows.append({'name': row.name, 'model': row.model, 'published': values, 'ours': lines, 'recipe': row.recipe})
    return {'title': table.title, 'note': table.note.strip(), 'rows': rows}


def runs_markdown(results: List[Result], base: str = '.') -> str:
    """Every finished run, those of one network together after their baseline, with what each lost against the baseline
    of the same schedule.
    """
    if not results:
        command = 'python tools/sweep.py --recipe train/recipes/cifar10/resnet20-sss.args --gamma 0.01,0.03'
        return f'None yet: `{command}` makes some.'
    names = [
        'network',
        'λ rule',
        'γ or budget',
        'epochs',
        'error (%)',
        'stripped (%)',
        'in ONNX Runtime (%)',
        'lost (points)',
        'parameters (M)',
        'kept (%)',
        'MACs (M)',
        'kept (%)',
        'alive',
        'run',
    ]
    rows = [
        [
            network_of(point.runs[0]),
            *_selection(point.runs[0]),
            str(point.arguments['num_epochs']),
            *(point.error_text(name) for name in ('unstripped', 'top1', 'onnx')),
            lost_against_baseline(point, results),
            *_cost(point),
            '; '.join(dict.fromkeys(_alive(run) for run in point.runs)),
            ' '.join(_link(run['folder'], base) for run in point.runs),
        ]
        for point in points_of(sorted(results, key=runs_order))
    ]
    return markdown(names, rows, aligned=3)


def longest_runs_markdown(results: List[Result], base: str = '.') -> str:
    """For each network the runs with the longest schedule in which APG removed something, with their baseline and the
    weights that they start from, sorted by network and by the MACs kept.
    """
    names = [
        'network',
        'selects',
        'γ or budget',
        'epochs',
        'MACs kept (%)',
        'parameters kept (%)',
        'error stripped (%)',
        'starts from (%)',
        'baseline (%)',
        'lost (points)',
        'run',
    ]
    points = [
        point
        for point in points_of(results)
        if removed_something(point) and (baseline_of(point, results) or point.error('start') is not None)
    ]
    longest: Dict[str, int] = {}
    for point in points:
        network, epochs = network_of(point.runs[0]), point.arguments['num_epochs']
        longest[network] = max(epochs, longest.get(network, 0))
    rows = []
    for point in sorted(points, key=lambda point: (network_of(point.runs[0]), -_kept('macs_kept', point))):
        network, arguments, baseline = network_of(point.runs[0]), point.arguments, baseline_of(point, results)
        if arguments['num_epochs'] == longest[network]:
            rows.append(
                [
                    network,
                    selected(arguments),
                    _selection(point.runs[0])[1],
                    str(arguments['num_epochs']),
                    f'{_kept("macs_kept", point):.1f}',
                    f'{_kept("params_kept", point):.1f}',
                    point.error_text(),
                    point.error_text('start'),
                    baseline.error_text() if baseline else '–',
                    lost_against_baseline(point, results),
                    ' '.join(_link(run['folder'], base) for run in point.runs),
                ]
            )
    return markdown(names, rows, aligned=2)


def _kept(column, point):
    """What is left of the network in %, the mean over seeds."""
    return point.mean(lambda run: COLUMNS[column].of_cost(cost_of(run)))


def removed_something(point: Point) -> bool:
    """Whether the runs are by APG and, by every seed, ended with fewer MACs than the whole network has."""
    arguments = point.arguments
    is_apg = arguments['optimizer'] == 'apg' and arguments['lambda_rule'] == 'apg'
    return is_apg and all(run['left']['macs'] < run['full']['macs'] for run in point.runs)


def failures_markdown(failures: Mapping[str, str], base: str = '.') -> str:
    """The runs that failed, a dict from a run's folder to the reason."""
    rows = [[_link(folder, base), reason.replace('|', '\\|')] for folder, reason in sorted(failures.items())]
    return markdown(['run', 'reason'], rows, aligned=2)


def markdown(names: Sequence[str], rows: Sequence[Sequence[str]], aligned: int = 1) -> str:
    """A Markdown table. The columns from number ``aligned`` on are aligned to the right, except those of text."""
    marks = [
        ':--' if column < aligned or name in ('where from', 'run', 'alive', 'command', 'state') else '--:'
        for column, name in enumerate(names)
    ]
    return '\n'.join(f'| {" | ".join(line)} |' for line in (names, marks, *rows))


def selected(arguments: Dict[str, Any]) -> str:
    """What a run selects: ``blocks``, ``blocks, groups``, ``channels``; empty where it does not say."""
    return ', '.join(PLURALS[kind] for kind in (arguments.get('scale') or '').split(',') if kind in PLURALS)


def runs_order(result: Result) -> Tuple[Any, ...]:
    """The key to sort runs by: those of one network together, and of one schedule after their baseline."""
    arguments = result['arguments']
    selection = arguments['lambda_rule'], arguments.get('scale') or '', budget_of(arguments), arguments['gamma']
    return network_of(result), arguments['num_epochs'], not is_baseline(result), *selection, result['folder']


def budget_of(arguments: Dict[str, Any]) -> str:
    """'50 % of the MACs' for a run to a budget, '' for one by a fixed γ."""
    for name, what in (('target_macs', 'MACs'), ('target_params', 'parameters')):
        if arguments.get(name):
            return f'{100 * arguments[name]:g} % of the {what}'
    return ''


def lost_against_baseline(point: Point, results: List[Result]) -> str:
    """The points of error that a run lost, as text; '–' without a baseline by the same schedule. Of several seeds the
    means are compared.
    """
    baseline = baseline_of(point, results)
    return f'{point.mean(_top1) - baseline.mean(_top1):+.2f}' if baseline else '–'


def _top1(run):
    return run['error']['top1']


def _published(value):
    return f'{value.text} [{value.grade}]' if value else '–'


def _source(line, base):
    return _link(line.source, base) if line.source else 'built and stripped'


def _link(folder, base):
    path = os.path.relpath(folder, base)
    return f'[{path}]({path})'


def _selection(result):
    arguments = result['arguments']
    if is_baseline(result):
        return ['none (baseline)', '–']
    return [arguments['lambda_rule'], budget_of(arguments) or f'γ = {arguments["gamma"]:g}']


def _cost(point):
    left = [point.mean(lambda run, name=name: run['left'][name]) / 1e6 for name in ('params_without_bn', 'macs')]
    return [
        f'{left[0]:.3f}',
        f'{_kept("params_kept", point):.2f}',
        f'{left[1]:.1f}',
        f'{_kept("macs_kept", point):.2f}',
    ]


def _alive(result):
    counted = (
        f'{PLURALS.get(kind, kind)} {counts["alive"]}/{counts["total"]}' for kind, counts in result['alive'].items()
    )
    return ', '.join(counted) or '–'
