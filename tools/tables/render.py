"""Tables as Markdown for readers and as plain dicts for programs. Links are relative to the folder ``base``."""

import os

from .cells import COLUMNS, cost_of, lines_of
from .results import baseline_of, is_baseline, network_of

ORIGINS = {'structure': 'ours', 'run': 'our run'}
LEGEND = (
    'Grades: [A] seen in a source, or forced by arithmetic; [B] second-hand, or read off a plot; [M] from memory; [?] '
    'not graded. In brackets behind our '
    'value: `=` where all printed digits agree, `= cut` where they do if ours is cut off instead of rounded, otherwise '
    'ours minus published. Parameters '
    'leave batch normalisation out. Empty cells nobody has run yet; `python tools/reproduce_tables.py` with the flag '
    'at the end of their line does it.'
)


def published_markdown(table, results, base='.'):
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


def published_json(table, results):
    """The same as a dict."""
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


def runs_markdown(results, base='.'):
    """Every finished run, those of one network together behind their baseline, with what each lost against the one of
    the same schedule.
    """
    if not results:
        command = 'python tools/sweep.py --recipe train/recipes/cifar10/resnet20-sss.args --gamma 0.01,0.03'
        return f'None yet: `{command}` makes some.'
    names = [
        'network',
        'λ rule',
        'γ',
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
            network_of(result),
            *_selection(result),
            str(result['arguments']['num_epochs']),
            *_error(result, results),
            *_cost(result),
            _alive(result),
            _link(result['folder'], base),
        ]
        for result in sorted(results, key=runs_order)
    ]
    return markdown(names, rows, aligned=3)


def longest_runs_markdown(results, base='.'):
    """Of each network the run with the longest schedule that APG removed something in, beside its baseline; of several
    the one that lost least.
    """
    names = [
        'network',
        'epochs',
        'baseline error (%)',
        'error with λ (%)',
        'error stripped (%)',
        'MACs kept (%)',
        'parameters kept (%)',
        'run',
    ]
    chosen = {}
    for result in sorted(
        results, key=lambda result: (-result['arguments']['num_epochs'], result['error']['top1'], result['folder'])
    ):
        if removed_something(result) and baseline_of(result, results):
            chosen.setdefault(network_of(result), result)
    rows = []
    for network, result in sorted(chosen.items()):
        cost, error = cost_of(result), result['error']
        rows.append(
            [
                network,
                str(result['arguments']['num_epochs']),
                f'{baseline_of(result, results)["error"]["top1"]:.2f}',
                f'{error["unstripped"]:.2f}',
                f'{error["top1"]:.2f}',
                f'{COLUMNS["macs_kept"].of_cost(cost):.1f}',
                f'{COLUMNS["params_kept"].of_cost(cost):.1f}',
                f'[{os.path.basename(result["folder"])}]({os.path.relpath(result["folder"], base)})',
            ]
        )
    return markdown(names, rows)


def removed_something(result):
    """Whether APG ended with fewer multiply-adds than the network began with."""
    return (
        result['arguments']['optimizer'] == 'apg'
        and result['arguments']['lambda_rule'] == 'apg'
        and result['left']['macs'] < result['full']['macs']
    )


def failures_markdown(failures, base='.'):
    """What failed, a dict from a run's folder to the reason."""
    rows = [[_link(folder, base), reason.replace('|', '\\|')] for folder, reason in sorted(failures.items())]
    return markdown(['run', 'reason'], rows, aligned=2)


def markdown(names, rows, aligned=1):
    """A Markdown table, the columns from number ``aligned`` on to the right."""
    marks = [
        ':--' if column < aligned or name in ('where from', 'run', 'alive', 'command', 'state') else '--:'
        for column, name in enumerate(names)
    ]
    return '\n'.join(f'| {" | ".join(line)} |' for line in (names, marks, *rows))


def runs_order(result):
    """Sorts runs: those of one network together, and of one schedule behind their baseline."""
    arguments = result['arguments']
    selection = arguments['lambda_rule'], arguments.get('scale') or '', arguments['gamma']
    return network_of(result), arguments['num_epochs'], not is_baseline(result), *selection, result['folder']


def lost_against_baseline(result, results):
    """The points of error that a run lost, as text; '–' without a baseline by the same schedule."""
    baseline = baseline_of(result, results)
    return f'{result["error"]["top1"] - baseline["error"]["top1"]:+.2f}' if baseline else '–'


def _published(value):
    return f'{value.text} [{value.grade}]' if value else '–'


def _source(line, base):
    return _link(line.source, base) if line.source else 'built and stripped'


def _link(folder, base):
    path = os.path.relpath(folder, base)
    return f'[{path}]({path})'


def _selection(result):
    arguments = result['arguments']
    return ['none (baseline)', '–'] if is_baseline(result) else [arguments['lambda_rule'], f'{arguments["gamma"]:g}']


def _error(result, results):
    errors = (
        f'{result["error"][name]:.2f}' if name in result['error'] else '–' for name in ('unstripped', 'top1', 'onnx')
    )
    return [*errors, lost_against_baseline(result, results)]


def _cost(result):
    cost = cost_of(result)
    return [
        f'{cost.left["params_without_bn"] / 1e6:.3f}',
        f'{COLUMNS["params_kept"].of_cost(cost):.2f}',
        f'{cost.left["macs"] / 1e6:.1f}',
        f'{COLUMNS["macs_kept"].of_cost(cost):.2f}',
    ]


def _alive(result):
    return ', '.join(f'{kind} {counts["alive"]}/{counts["total"]}' for kind, counts in result['alive'].items()) or '–'
