"""Every figure by its name, and those of the published numbers: error against what a network costs, and the structure
that is kept.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Tuple

from .cells import COLUMNS, cost_of
from .plotting import COLOURS, MARKERS, finish, plt
from .published import Table
from .results import FREE, Result, is_by_recipe, network_of
from .run_figures import comparable_rules, frontier, lambdas, last_epoch, rules
from .structures import structure_cost

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def all_figures(tables: Mapping[str, Table], results: List[Result]) -> Dict[str, Callable[[], Figure]]:
    """Every figure that there is data for: a dict from its name to the function that draws it."""
    found: Dict[str, Callable[[], Figure]] = {
        'imagenet': lambda: imagenet(tables, results),
        'cifar': lambda: cifar(tables, results),
        'structure': lambda: structure(tables),
    }
    if results:
        found['runs'] = lambda: frontier(results, tables)
    if any('lambda_values' in last_epoch(result) for result in results):
        found['lambda'] = lambda: lambdas(results)
    if comparable_rules(results):
        found['rules'] = lambda: rules(results)
    return found


def imagenet(tables: Mapping[str, Table], results: List[Result]) -> Figure:
    """Published top-1 error on ImageNet against parameters and against MACs, and our runs. VGG-16 is five times as
    large and left out.
    """
    figure, panels = plt.subplots(1, 2, figsize=(13, 4.6), constrained_layout=True, sharey=True)
    others = [row for row in tables['imagenet-others'].rows if row.model.startswith('ResNet')]
    series = [
        ('SSS ResNet', tables['imagenet-resnet'].rows),
        ('SSS ResNeXt', tables['imagenet-resnext'].rows),
        *((row.model, [row]) for row in others),
    ]
    axes: List[Tuple[Any, Tuple[str, ...], str]] = [
        (panels[0], ('params',), 'parameters without batch normalisation (M)'),
        (panels[1], ('macs', 'others_flops'), 'MACs (G)'),
    ]
    for panel, columns, label in axes:
        for number, (name, rows) in enumerate(series):
            points = [
                (row.values[column].number, row.values['top1'].number, row.model)
                for row in rows
                for column in columns
                if column in row.values
            ]
            line = '-' if len(rows) > 1 else ''
            panel.plot(
                [x for x, _, _ in points],
                [y for _, y, _ in points],
                MARKERS[number % 7] + line,
                color=COLOURS[number % 7],
                label=name,
            )
            for x, y, model in points if len(rows) > 1 else ():
                side = {'xytext': (-5, -11), 'ha': 'right'} if 'ResNeXt' in model else {'xytext': (5, 4)}
                panel.annotate(
                    model.replace('SSS ', ''),
                    (x, y),
                    textcoords='offset points',
                    fontsize=8,
                    color=COLOURS[number % 7],
                    **side,
                )
        _unpruned(panel, tables['imagenet-unpruned'].rows, columns[0])
        _our_points(panel, [result for result in results if network_of(result).endswith('on imagenet')], columns[0])
        finish(panel, label, 'top-1 error on ImageNet (%)')
        panel.margins(x=0.25)
    panels[1].legend(frameon=False, fontsize=8, loc='center left', bbox_to_anchor=(1, 0.5))
    return figure


def cifar(tables: Mapping[str, Table], results: List[Result]) -> Figure:
    """Error on CIFAR-10 and CIFAR-100 against MACs and parameters kept: published points hollow with their full
    networks at 100 %, our runs filled.
    """
    figure, panels = plt.subplots(2, 2, figsize=(13, 8.4), constrained_layout=True)
    for row_of_panels, data in zip(panels, ('cifar10', 'cifar100')):
        for panel, column in zip(row_of_panels, ('macs_kept', 'params_kept')):
            _published_curves(panel, tables[data].rows, column)
            _our_points(panel, [result for result in results if result['arguments'].get('dataset') == data], column)
            finish(
                panel,
                f'{COLUMNS[column].heading.replace(" (%)", "")} (% of the full network)',
                f'top-1 error on {tables[data].title} (%)',
            )
        row_of_panels[1].legend(frameon=False, fontsize=8, loc='center left', bbox_to_anchor=(1, 0.5))
    return figure


def structure(tables: Mapping[str, Table]) -> Figure:
    """Residual blocks kept in each stage of the published structures, counted in the stripped networks."""
    on_cifar = [
        row for row in (*tables['cifar10'].rows, *tables['cifar100'].rows) if 'ResNet-164' in row.model and row.keep
    ]
    figure, panels = plt.subplots(1, 2, figsize=(11, 4), constrained_layout=True)
    _blocks(panels[0], [(row.model, row) for row in tables['imagenet-resnet'].rows])
    # The full network is the same for both data sets.
    _blocks(
        panels[1],
        [('ResNet-164', on_cifar[0])]
        + [(f'{row.model}, {tables[row.table].title}', row) for row in on_cifar if row.keep != 'all'],
    )
    return figure


def _blocks(panel, named):
    """Bars for each stage of each of the (label, row) pairs."""
    width = 0.8 / len(named)
    for place, (label, row) in enumerate(named):
        blocks = structure_cost(row.network, row.keep).blocks
        bars = panel.bar(
            [stage - 0.4 + (place + 0.5) * width for stage in range(1, len(blocks) + 1)],
            blocks,
            0.92 * width,
            color=COLOURS[place],
            label=label,
        )
        panel.bar_label(bars, fontsize=8)
    finish(panel, 'stage', 'residual blocks kept')
    panel.grid(visible=False, axis='x')
    for axis in (panel.xaxis, panel.yaxis):
        axis.get_major_locator().set_params(integer=True)
    panel.legend(frameon=False, fontsize=8, ncol=len(named), loc='lower center', bbox_to_anchor=(0.5, 1))


def _unpruned(panel, rows, column):
    """Full networks whose error was read off a plot; what they cost is counted."""
    points = [
        (COLUMNS[column].of_cost(structure_cost(row.network, row.keep)), row.values['top1'].number, row.model)
        for row in rows
    ]
    panel.plot(*zip(*(point[:2] for point in points)), 'x', color='black', label='unpruned, read off a plot')
    for x, y, name in points:
        panel.annotate(name, (x, y), xytext=(5, 4), textcoords='offset points', fontsize=8)


def _published_curves(panel, rows, column):
    """For each family of rows ('ResNet-164'): the published points, joined to the full network at 100 %."""
    families = list(dict.fromkeys(row.model.replace('SSS ', '').partition(',')[0] for row in rows))
    for number, family in enumerate(families):
        own = [row for row in rows if row.model.replace('SSS ', '').partition(',')[0] == family]
        points = sorted(
            (row.values[column].number if column in row.values else 100, row.values['top1'].number)
            for row in own
            if column in row.values or row.keep == 'all'
        )
        panel.plot(
            *zip(*points),
            MARKERS[number] + '-',
            color=COLOURS[number],
            markerfacecolor='white',
            label=f'{family}, published',
        )


def _our_points(panel, results, column):
    """Our runs by the published schedule, whatever their γ: those by a shorter one would be far above every published
    point.
    """
    results = [result for result in results if is_by_recipe(result, (*FREE, '--gamma'))]
    for number, network in enumerate(sorted({network_of(result) for result in results})):
        own = sorted(
            (COLUMNS[column].of_cost(cost_of(result)), result['error']['top1'])
            for result in results
            if network_of(result) == network and result['arguments']['lambda_rule'] == 'apg'
        )
        if own:
            panel.plot(
                *zip(*own),
                MARKERS[number],
                color=COLOURS[-1 - number],
                label=f'{re.sub(" on [a-z0-9]+", "", network)}, ours',
            )
