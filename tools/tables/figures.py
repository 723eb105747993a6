"""The pictures: error against what a network costs, the structure that is kept, and where λ ended."""

import re

import matplotlib

matplotlib.use('Agg')
from matplotlib import pyplot as plt  # noqa: E402  (the backend must be chosen first: there may be no screen)

from runtime.files import written_whole  # noqa: E402

from .cells import COLUMNS, cost_of  # noqa: E402
from .render import budget_of  # noqa: E402
from .results import (  # noqa: E402
    FREE,
    epochs_of,
    is_baseline,
    is_by_recipe,
    network_of,
    points_of,
    same_schedule,
)
from .structures import structure_cost  # noqa: E402

# Colours that stay apart for colour-blind readers (Okabe & Ito).
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#666666')
MARKERS = 'osD^vP*'
MOST_LAMBDA_PANELS = 8


def save(figure, path):
    """Write a figure as ``path``.png and ``path``.svg, the same bytes for the same figure, and forget it."""
    with plt.rc_context({'svg.hashsalt': 'sss'}):
        for ending, metadata in (('png', {'Software': None}), ('svg', {'Date': None})):
            with written_whole(f'{path}.{ending}') as scratch:
                figure.savefig(scratch, dpi=130, metadata=metadata)
    plt.close(figure)


def all_figures(tables, results):
    """Every figure that there is something to draw for: a dict from name to a function that makes it."""
    found = {
        'imagenet': lambda: imagenet(tables, results),
        'cifar': lambda: cifar(tables, results),
        'structure': lambda: structure(tables),
    }
    if results:
        found['runs'] = lambda: frontier(results, tables)
    if any('lambda_values' in _last_epoch(result) for result in results):
        found['lambda'] = lambda: lambdas(results)
    if comparable_rules(results):
        found['rules'] = lambda: rules(results)
    return found


def imagenet(tables, results):
    """Published top-1 error on ImageNet against parameters and against MACs, and our runs; VGG-16, five times as large,
    has no place on these axes.
    """
    figure, panels = plt.subplots(1, 2, figsize=(13, 4.6), constrained_layout=True, sharey=True)
    others = [row for row in tables['imagenet-others'].rows if row.model.startswith('ResNet')]
    series = [
        ('SSS ResNet', tables['imagenet-resnet'].rows),
        ('SSS ResNeXt', tables['imagenet-resnext'].rows),
        *((row.model, [row]) for row in others),
    ]
    for panel, columns, label in (
        (panels[0], ('params',), 'parameters without batch normalisation (M)'),
        (panels[1], ('macs', 'others_flops'), 'MACs (G)'),
    ):
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
        _finish(panel, label, 'top-1 error on ImageNet (%)')
        panel.margins(x=0.25)
    panels[1].legend(frameon=False, fontsize=8, loc='center left', bbox_to_anchor=(1, 0.5))
    return figure


def cifar(tables, results):
    """Error on CIFAR-10 and CIFAR-100 against MACs and parameters kept: published points hollow with their full
    networks at 100 %, our runs filled.
    """
    figure, panels = plt.subplots(2, 2, figsize=(13, 8.4), constrained_layout=True)
    for row_of_panels, data in zip(panels, ('cifar10', 'cifar100')):
        for panel, column in zip(row_of_panels, ('macs_kept', 'params_kept')):
            _published_curves(panel, tables[data].rows, column)
            _our_points(panel, [result for result in results if result['arguments'].get('dataset') == data], column)
            _finish(
                panel,
                f'{COLUMNS[column].heading.replace(" (%)", "")} (% of the full network)',
                f'top-1 error on {tables[data].title} (%)',
            )
        row_of_panels[1].legend(frameon=False, fontsize=8, loc='center left', bbox_to_anchor=(1, 0.5))
    return figure


def structure(tables):
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


def frontier(results, tables=None):
    """Error of our runs against what is left of the MACs: a panel for each network, a curve for each rule and schedule,
    every point with its γ or budget. Runs that differ in their seed are one point, their mean. The baselines are stars,
    the published points of ``tables`` are hollow.
    """
    networks = sorted({network_of(result) for result in results})
    columns = min(2, len(networks))
    figure, panels = plt.subplots(
        -(-len(networks) // columns),
        columns,
        figsize=(5.8 * columns, 4.2 * -(-len(networks) // columns)),
        squeeze=False,
        constrained_layout=True,
    )
    for panel, network in zip(panels.flat, networks):
        own = [result for result in results if network_of(result) == network]
        _frontier_of(panel, own)
        _published_of(panel, own[0]['arguments'], tables or {})
        _finish(panel, 'MACs left (% of the full network)', 'top-1 error on the test images (%)')
        panel.set_title(network, fontsize=10)
        panel.legend(frameon=False, fontsize=8)
    for panel in panels.flat[len(networks) :]:
        panel.set_visible(False)
    return figure


def lambdas(results):
    """Where every λ ended, in the colours of the stages, what is dead as a hollow point: of each curve of ``frontier``
    the best run that lost something.
    """
    chosen = _one_of_each_series(
        [result for result in results if not is_baseline(result) and 'lambda_values' in _last_epoch(result)]
    )
    rows = -(-len(chosen) // 2)
    figure, panels = plt.subplots(rows, 2, figsize=(11, 3 * rows), squeeze=False, constrained_layout=True)
    for panel, result in zip(panels.flat, chosen):
        by_stage = {}
        for stage, value in _staged(_last_epoch(result)['lambda_values']):
            by_stage.setdefault(stage, []).append(value)
        first, is_crowded = 1, sum(map(len, by_stage.values())) >= 60
        for stage, values in sorted(by_stage.items()):
            _stems(panel, first, values, COLOURS[(stage - 1) % len(COLOURS)], f'stage {stage}', is_crowded)
            first += len(values)
        arguments = result['arguments']
        _finish(
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


def rules(results):
    """APG against other rules for λ on one network: test error and live MACs over the epochs, and as crosses what each
    stripped network came to.
    """
    compared = comparable_rules(results)
    figure, (error, macs) = plt.subplots(1, 2, figsize=(11, 4.2), constrained_layout=True)
    for number, result in enumerate(compared):
        epochs = epochs_of(result)
        arguments, colour = result['arguments'], COLOURS[number % len(COLOURS)]
        label = 'baseline, without λ' if is_baseline(result) else f'{arguments["lambda_rule"]}, {_gamma(arguments)}'
        style = {
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
        for panel, value in ((error, result['error']['top1']), (macs, COLUMNS['macs_kept'].of_cost(cost_of(result)))):
            panel.plot(counted[-1:], [value], 'x', color=style['color'], markersize=9)
    for panel, label in ((error, 'top-1 error on the test images (%)'), (macs, 'MACs of live structures (%)')):
        _finish(panel, 'epochs trained', label)
        panel.xaxis.get_major_locator().set_params(integer=True)
    macs.set_ylim(bottom=0)
    macs.plot([], [], 'x', color='grey', linestyle='', label='after stripping')
    macs.legend(frameon=False, fontsize=8)
    figure.suptitle(f'{network_of(compared[0])}: how λ is optimised', fontsize=10)
    return figure


def comparable_rules(results):
    """The runs that set other rules against APG: those of every other rule, APG's by one of their γ, and the baseline,
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
    _finish(panel, 'stage', 'residual blocks kept')
    panel.grid(visible=False, axis='x')
    for axis in (panel.xaxis, panel.yaxis):
        axis.get_major_locator().set_params(integer=True)
    panel.legend(frameon=False, fontsize=8, ncol=len(named), loc='lower center', bbox_to_anchor=(0.5, 1))


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
        panel.plot(*zip(*stars), '*', color='black', markersize=11, linestyle='', label='baseline, without λ')
    if selected:
        panel.plot([], [], ' ', label='numbers: γ, or the budget in %')


def _macs_left(run):
    return 100 * run['left']['macs'] / run['full']['macs']


def _published_of(panel, arguments, tables):
    """The published points of the network that ``arguments`` train, joined."""
    if arguments.get('finetune') or arguments.get('dataset') not in tables:
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
    """What a curve stands for: the rule, what it selects, by a γ or to a budget, and for how long."""
    arguments = result['arguments']
    scale = f', {arguments["scale"]}s' if arguments.get('scale') else ''
    way = 'budget' if budget_of(arguments) else 'fixed γ'
    return f'{arguments["lambda_rule"]}{scale}, {way}, {arguments["num_epochs"]} epochs'


def _last_epoch(result):
    return (epochs_of(result) or [{}])[-1]


def _finish(panel, x, y):
    panel.set_xlabel(x)
    panel.set_ylabel(y)
    panel.grid(alpha=0.3)
    panel.set_axisbelow(True)
    panel.spines[['top', 'right']].set_visible(False)
