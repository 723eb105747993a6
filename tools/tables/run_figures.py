"""Figures of our runs: error against MACs, where λ ended, and the rules for λ side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional

from .plotting import COLOURS, MARKERS, finish, plt
from .published import Table
from .render import budget_of, selected
from .results import Result, epochs_of, is_baseline, network_of, points_of, same_schedule, structure_of, trained_network

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_LAMBDA_PANELS = 8


def frontier(results: List[Result], tables: Optional[Mapping[str, Table]] = None) -> Figure:
    """Error of our runs against what is left of the MACs: a panel for each network, a curve for each rule and schedule,
    every point with its γ or budget. Runs that differ in their seed are one point, their mean. The baselines are stars,
    the published points of ``tables`` are hollow.
    """
    networks = sorted({trained_network(result) for result in results if not structure_of(result)})
    columns = min(2, len(networks))
    figure, panels = plt.subplots(
        -(-len(networks) // columns),
        columns,
        figsize=(5.8 * columns, 4.2 * -(-len(networks) // columns)),
        squeeze=False,
        constrained_layout=True,
    )
    for panel, network in zip(panels.flat, networks):
        own = [result for result in results if trained_network(result) == network]
        _frontier_of(panel, own)
        _published_of(panel, own[0]['arguments'], tables or {})
        finish(panel, 'MACs left (% of the full network)', 'top-1 error on the test images (%)')
        panel.set_title(network, fontsize=10)
        panel.legend(frameon=False, fontsize=8)
    for panel in panels.flat[len(networks) :]:
        panel.set_visible(False)
    return figure


def lambdas(results: List[Result]) -> Figure:
    """The values of all λ at the end, in the colours of the stages, those that are 0 as hollow points; for each curve
    of ``frontier`` the run of the least error among those that became smaller.
    """
    chosen = _one_of_each_series(
        [result for result in results if not is_baseline(result) and 'lambda_values' in last_epoch(result)]
    )
    rows = -(-len(chosen) // 2)
    figure, panels = plt.subplots(rows, 2, figsize=(11, 3 * rows), squeeze=False, constrained_layout=True)
    for panel, result in zip(panels.flat, chosen):
        by_stage: Dict[int, List[float]] = {}
        for stage, value in _staged(last_epoch(result)['lambda_values']):
            by_stage.setdefault(stage, []).append(value)
        first, is_crowded = 1, sum(map(len, by_stage.values())) >= 60
        for stage, values in sorted(by_stage.items()):
            _stems(panel, first, values, COLOURS[(stage - 1) % len(COLOURS)], f'stage {stage}', is_crowded)
            first += len(values)
        arguments = result['arguments']
        finish(
            panel,
            'structure, from the first to the last',
            '‖W‖ of the structure' if arguments['lambda_rule'] == 'group-lasso' else 'λ',
        )
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.set_ylim(top=max(panel.get_ylim()[1], 0.1))
        panel.set_title(
            f'{network_of(result)}, {arguments["lambda_rule"]}, {budget_of(arguments) or _gamma(arguments)}, '
            f'{arguments["num_epochs"]} epochs',
            fontsize=9,
        )
        panel.legend(frameon=False, fontsize=7, ncol=5, loc='lower center', bbox_to_anchor=(0.5, 1.08))
    for panel in panels.flat[len(chosen) :]:
        panel.set_visible(False)
    return figure


def rules(results: List[Result]) -> Figure:
    """APG and other rules for λ on one network: test error and live MACs over the epochs, and as crosses error and MACs
    of each stripped network.
    """
    compared = comparable_rules(results)
    figure, (error, macs) = plt.subplots(1, 2, figsize=(11, 4.2), constrained_layout=True)
    for number, result in enumerate(compared):
        epochs = epochs_of(result)
        arguments, colour = result['arguments'], COLOURS[number % len(COLOURS)]
        label = 'baseline, without λ' if is_baseline(result) else f'{arguments["lambda_rule"]}, {_gamma(arguments)}'
        style: Dict[str, Any] = {
            'color': 'black' if is_baseline(result) else colour,
            'linestyle': '--' if is_baseline(result) else '-',
            'marker': '.',
        }
        counted = [epoch['epoch'] + 1 for epoch in epochs]
        error.plot(counted, [100 * (1 - epoch['validation']['accuracy']) for epoch in epochs], **style, label=label)
        macs.plot(
            counted,
            [100 * epoch['alive']['macs'] / epoch['full']['macs'] if 'alive' in epoch else 100 for epoch in epochs],
            **style,
            label=label,
        )
        for panel, value in ((error, result['error']['top1']), (macs, _macs_left(result))):
            panel.plot(counted[-1:], [value], 'x', color=style['color'], markersize=9)
    for panel, label in ((error, 'top-1 error on the test images (%)'), (macs, 'MACs of live structures (%)')):
        finish(panel, 'epochs trained', label)
        panel.xaxis.get_major_locator().set_params(integer=True)
    macs.set_ylim(bottom=0)
    macs.plot([], [], 'x', color='grey', linestyle='', label='after stripping')
    macs.legend(frameon=False, fontsize=8)
    figure.suptitle(f'{network_of(compared[0])}: how λ is optimised', fontsize=10)
    return figure


def comparable_rules(results: List[Result]) -> List[Result]:
    """The runs that compare other rules with APG: those of every other rule, APG's by one of their γ, and the baseline,
    all of one network and schedule.

    Empty where there is no such pair.
    """
    for other in (result for result in results if result['arguments']['lambda_rule'] != 'apg' and epochs_of(result)):
        alike = [result for result in results if same_schedule(result, other) and epochs_of(result)]
        gammas = {result['arguments']['gamma'] for result in alike if result['arguments']['lambda_rule'] != 'apg'}
        chosen = [
            result
            for result in alike
            if is_baseline(result)
            or result['arguments']['lambda_rule'] != 'apg'
            or result['arguments']['gamma'] in gammas
        ]
        if any(result['arguments']['lambda_rule'] == 'apg' and not is_baseline(result) for result in chosen):
            return sorted(
                chosen,
                key=lambda result: (
                    is_baseline(result),
                    result['arguments']['lambda_rule'],
                    result['arguments']['gamma'],
                ),
            )
    return []


def _one_of_each_series(results):
    """For each network and curve the run of the least error among those whose network became smaller; APG's first."""
    best = {}
    for result in sorted(
        results, key=lambda result: (result['left']['macs'] == result['full']['macs'], result['error']['top1'])
    ):
        best.setdefault((result['arguments']['lambda_rule'] != 'apg', network_of(result), _series(result)), result)
    return [best[series] for series in sorted(best)][:MOST_LAMBDA_PANELS]


def _staged(vectors):
    """(stage, λ) of every λ, layer by layer."""
    for vector in vectors.values():
        share = len(vector['values']) // len(vector['stages'])
        for position, value in enumerate(vector['values']):
            yield vector['stages'][position // share], value


def _stems(panel, first, values, colour, label, is_crowded):
    """A stem with a head for every value. A crowd of them is drawn as pixels: thousands of paths would make megabytes
    of SVG.
    """
    places = range(first, first + len(values))
    panel.vlines(
        places, 0, values, color=colour, linewidth=0.5 if is_crowded else 1.5, label=label, rasterized=is_crowded
    )
    size = 4 if is_crowded else 22
    panel.scatter(
        places,
        values,
        s=size,
        color=[colour if value else 'white' for value in values],
        edgecolors=colour,
        zorder=3,
        rasterized=is_crowded,
    )


def _frontier_of(panel, results):
    baselines = points_of([result for result in results if is_baseline(result)])
    selected = points_of([result for result in results if not is_baseline(result)])
    for number, series in enumerate(sorted({_series(point.runs[0]) for point in selected})):
        colour = COLOURS[number % len(COLOURS)]
        points = sorted(
            (
                (point.mean(_macs_left), point.error(), point.arguments)
                for point in selected
                if _series(point.runs[0]) == series
            ),
            key=lambda point: point[:2],
        )
        xs, ys = [x for x, _, _ in points], [y for _, y, _ in points]
        panel.plot(xs, ys, MARKERS[number % len(MARKERS)] + '-', color=colour, label=series)
        for x, y, arguments in points:
            # Points of two curves may lie close together, above all where nothing died: the second writes below its
            # points.
            offset = (4, -10 if number % 2 else 4)
            name = (budget_of(arguments) or f'{arguments["gamma"]:g}').partition(' of')[0]
            panel.annotate(name, (x, y), xytext=offset, textcoords='offset points', fontsize=7, color=colour)
    if baselines:
        stars = [(100, point.error()) for point in baselines]
        panel.plot(*zip(*stars), '*', color='black', markersize=11, linestyle='', label='baselines, without λ')
    starts = sorted({point.error('start') for point in selected if point.error('start') is not None})
    if starts:
        stars = [(100, error) for error in starts]
        style = {'linestyle': '', 'markersize': 10, 'color': 'black', 'markerfacecolor': 'none'}
        panel.plot(*zip(*stars), '*', label='weights that the runs start from', **style)
    if selected:
        panel.plot([], [], ' ', label='numbers: γ, or the budget in %')


def _macs_left(run):
    return 100 * run['left']['macs'] / run['full']['macs']


def _published_of(panel, arguments, tables):
    """The published points of the network that ``arguments`` train, joined."""
    if arguments.get('dataset') not in tables:
        return
    built = (arguments['network'], arguments['num_layers'])
    rows = [
        row
        for row in tables[arguments['dataset']].rows
        if row.network and (row.network['network'], row.network['num_layers']) == built
    ]
    points = sorted(
        (row.values['macs_kept'].number if 'macs_kept' in row.values else 100, row.values['top1'].number)
        for row in rows
        if 'macs_kept' in row.values or row.keep == 'all'
    )
    if points:
        panel.plot(*zip(*points), 'o--', color='grey', markerfacecolor='white', label='published, 240 epochs')


def _gamma(arguments):
    return f'γ = {arguments["gamma"]:g}'


def _series(result):
    """The name of a curve: the rule, what it selects, by a γ or to a budget, the number of epochs, and the start."""
    arguments = result['arguments']
    way = 'budget' if budget_of(arguments) else 'fixed γ'
    start = ' from trained weights' if arguments.get('finetune') else ''
    parts = [arguments['lambda_rule'], selected(arguments), way, f'{arguments["num_epochs"]} epochs{start}']
    return ', '.join(filter(None, parts))


def last_epoch(result: Result) -> Dict[str, Any]:
    """What a run measured in its last epoch; {} where that was not kept."""
    return (epochs_of(result) or [{}])[-1]
