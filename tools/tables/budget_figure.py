"""A run with a budget in one figure: λ that fall and stay 0, the share that is left, and the speed of training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Tuple

from tools.pyplot import plt
from train.selection import schedule_of

from .plotting import COLOURS
from .results import Result, epochs_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GREY = '#666666'


def budget_course(result: Result) -> Figure:
    """The figure of a run: three panels over the epochs, the three phases of the run shaded."""
    epochs = epochs_of(result)
    target = result['arguments'].get('target_macs') or result['arguments']['target_params']
    cost = 'params' if result['arguments'].get('target_params') else 'macs'
    counted = [epoch['epoch'] + 1 for epoch in epochs]
    figure, (lambdas, share, speed) = plt.subplots(3, 1, figsize=(9, 8.6), sharex=True, constrained_layout=True)
    for stage, values in _curves(epochs):
        lambdas.plot(counted, values, color=COLOURS[(stage - 1) % len(COLOURS)], marker='.', label=f'stage {stage}')
    _legend_once(lambdas, 'upper left')
    lambdas.set_ylabel('λ of each structure')
    schedule = schedule_of(len(epochs))
    planned = [
        (epoch + 2, 100 * (schedule.share(epoch, target) or 1)) for epoch in range(schedule.begin - 1, schedule.end - 1)
    ]
    share.step(*zip(*[(schedule.begin, 100.0), *planned]), where='post', color=GREY, linestyle=':', label='schedule')
    left = [100 * epoch['alive'][cost] / epoch['full'][cost] for epoch in epochs]
    share.plot(counted, left, color=COLOURS[0], marker='.', label='left')
    share.axhline(100 * target, color=COLOURS[1], linestyle='--', label=f'target {100 * target:g} %')
    share.set_ylim(0, 105)
    share.legend(frameon=False, fontsize=8, loc='lower right')
    share.set_ylabel(f'{"parameters" if cost == "params" else "MACs"} (% of the whole network)')
    accuracy = [100 * epoch['validation']['accuracy'] for epoch in epochs]
    speed.plot(counted, accuracy, color=COLOURS[2], marker='.', label='validation accuracy (%)')
    speed.set_ylim(0, 103)
    speed.set_ylabel('validation accuracy (%)')
    speed.set_xlabel('epochs trained')
    beside = speed.twinx()
    rates = [epoch['samples_per_second'] for epoch in epochs]
    beside.plot(counted, rates, color=COLOURS[3], marker='.', linestyle='--', label='images/s')
    beside.set_ylim(bottom=0)
    beside.set_ylabel('images/s in training (dashed)')
    beside.spines[['top']].set_visible(False)
    handles = [*speed.get_lines(), *beside.get_lines()]
    speed.legend(handles, [line.get_label() for line in handles], frameon=False, fontsize=8, loc='lower right')
    _shade((lambdas, share, speed), schedule, len(epochs))
    return figure


def _curves(epochs: List[Dict[str, Any]]) -> List[Tuple[int, List[float]]]:
    """(stage, λ over the epochs) of every structure."""
    curves = []
    for name, first in epochs[0]['lambda_values'].items():
        share = len(first['values']) // len(first['stages'])
        for place in range(len(first['values'])):
            values = [epoch['lambda_values'][name]['values'][place] for epoch in epochs]
            curves.append((first['stages'][place // share], values))
    return curves


def _shade(panels, schedule, epochs):
    """The phase of selection in grey, and the names of all three above the first panel."""
    for panel in panels:
        panel.axvspan(schedule.begin, schedule.end, color=GREY, alpha=0.12, linewidth=0)
        panel.set_xlim(0, epochs + 0.5)
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.grid(alpha=0.3)
        panel.spines[['top', 'right']].set_visible(False)
    for name, begin, end in (
        ('train all', 0, schedule.begin),
        ('select', schedule.begin, schedule.end),
        ('heal', schedule.end, epochs),
    ):
        panels[0].annotate(
            name,
            ((begin + end) / 2, 1.02),
            xycoords=('data', 'axes fraction'),
            ha='center',
            fontsize=9,
            color=GREY,
        )


def _legend_once(panel, place):
    handles = dict(zip(*reversed(panel.get_legend_handles_labels())))
    panel.legend(handles.values(), handles.keys(), frameon=False, fontsize=8, ncol=3, loc=place)
