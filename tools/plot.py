"""Draw a training run from its PREFIX-metrics.jsonl: error, loss, λ and the structures alive over epochs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Set

from formats.metrics_file import read_metrics
from runtime.argument_types import picture
from runtime.cli import Parser, run
from runtime.files import written_whole
from tools.pyplot import plt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Stages in colours that colour-blind readers can tell apart (Okabe & Ito).
STAGE_COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9')
# Of more λ than these, only every n-th is drawn.
MOST_CURVES = 64
Records = List[Dict[str, Any]]  # the epochs of a run, as formats.metrics_file reads them


def parser() -> Parser:
    """The parser of this script."""
    made = Parser(description=__doc__)
    made.add_argument('metrics', help='PREFIX-metrics.jsonl, or PREFIX')
    made.add_argument(
        '--out', type=picture, help='file to write, its ending the format: png, svg, pdf (default: PREFIX-training.png)'
    )
    return made


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Draw the run that the command line ``argv`` names; returns the exit code."""
    args = parser().parse_args(argv)
    path = args.metrics if args.metrics.endswith('.jsonl') else args.metrics + '-metrics.jsonl'
    out = args.out or path.replace('-metrics.jsonl', '') + '-training.png'
    records = read_metrics(path, needs=('epoch', 'train'))
    title = '/'.join(os.path.abspath(path).split(os.sep)[-2:]).replace('-metrics.jsonl', '')
    with written_whole(out) as scratch:
        draw(records, title).savefig(scratch, dpi=130)
    print(out)
    return 0


def draw(records: Records, title: str) -> Figure:
    """The figure of a run: two panels without λ, four with λ."""
    has_lambda = 'lambda_values' in records[0]
    figure, panels = plt.subplots(
        2 if has_lambda else 1, 2, figsize=(10, 7 if has_lambda else 3.6), squeeze=False, constrained_layout=True
    )
    epochs = [record['epoch'] + 1 for record in records]
    draw_error(panels[0][0], epochs, records)
    _draw_loss(panels[0][1], epochs, records)
    if has_lambda:
        draw_lambda(panels[1][0], epochs, records)
        draw_structure(panels[1][1], epochs, records)
    for panel in panels.flat:
        panel.set_xlabel('epoch')
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.grid(alpha=0.3)
        panel.spines[['top', 'right']].set_visible(False)
    figure.suptitle(title)
    return figure


def draw_error(panel: Axes, epochs: Sequence[int], records: Records) -> None:
    """The error in training and in validation over the epochs."""
    for part, colour in (('train', '#999999'), ('validation', '#0072B2')):
        panel.plot(epochs, [100 * (1 - record[part]['accuracy']) for record in records], color=colour, label=part)
    panel.set_ylabel('error (%)')
    panel.set_ylim(bottom=0)
    panel.legend(frameon=False)


def _draw_loss(panel, epochs, records):
    for part, colour in (('train', '#999999'), ('validation', '#0072B2')):
        panel.plot(epochs, [record[part]['cross-entropy'] for record in records], color=colour, label=part)
    panel.set_ylabel('cross-entropy (nats)')
    panel.set_yscale('log')
    panel.yaxis.set_major_formatter('{x:g}')
    low, high = panel.get_ylim()
    panel.yaxis.set_minor_formatter('{x:g}' if high < 30 * low else plt.NullFormatter())
    panel.legend(frameon=False)


def draw_lambda(panel: Axes, epochs: Sequence[int], records: Records) -> None:
    """Every λ as a curve, in the colour of its stage."""
    named: Set[int] = set()
    for curve, stage in _curves(records):
        colour = STAGE_COLOURS[(stage - 1) % len(STAGE_COLOURS)]
        panel.plot(
            epochs, curve, color=colour, linewidth=1, alpha=0.8, label=None if stage in named else f'stage {stage}'
        )
        named.add(stage)
    panel.set_ylabel('λ')
    panel.legend(frameon=False, ncol=2)


def _curves(records):
    """(values over epochs, stage) of each λ, thinned evenly to MOST_CURVES."""
    curves = []
    for name, first in records[0]['lambda_values'].items():
        share = len(first['values']) // len(first['stages'])
        stages = [stage for stage in first['stages'] for _ in range(share)]
        over_epochs = zip(*(record['lambda_values'][name]['values'] for record in records))
        curves.extend(zip(over_epochs, stages))
    return curves[:: -(-len(curves) // MOST_CURVES)]


def draw_structure(panel: Axes, epochs: Sequence[int], records: Records) -> None:
    """The share of MACs and parameters that is alive, over the epochs."""
    for measure, colour, name in (('macs', '#0072B2', 'MACs'), ('params', '#D55E00', 'parameters')):
        panel.plot(
            epochs,
            [100 * record['alive'][measure] / record['full'][measure] for record in records],
            color=colour,
            label=name,
        )
    panel.set_ylabel('structure alive (% of the full network)')
    panel.set_ylim(0, 103)
    panel.legend(frameon=False)


if __name__ == '__main__':
    run(main)
