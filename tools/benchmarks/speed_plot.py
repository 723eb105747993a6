"""The figure of an inference benchmark: how much of the saving in MACs becomes speed."""

from typing import List

from runtime.files import written_whole
from tools.pyplot import plt

from .report import TableRow

# Okabe & Ito's colours, which colour-blind readers can tell apart.
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9')
MARKERS = 'os^Dvx'


def draw(rows: List[TableRow], path: str) -> None:
    """Draw the rows of ``inference.measure`` into the file ``path``: a curve for each runtime and batch size, and the
    line where speed-up and MACs ratio are equal.
    """
    figure, panel = plt.subplots(figsize=(7, 5), constrained_layout=True)
    runtimes, batches = (list(dict.fromkeys(row[key] for row in rows)) for key in ('runtime', 'batch'))
    for colour, runtime in zip(COLOURS, runtimes):
        for marker, batch in zip(MARKERS, batches):
            points = sorted(
                (row['MACs ratio'], row['speed-up'])
                for row in rows
                if (row['runtime'], row['batch']) == (runtime, batch)
            )
            panel.plot(*zip(*points), color=colour, marker=marker, label=f'{runtime}, batch {batch}')
    most = max(row['MACs ratio'] for row in rows)
    panel.plot([1, most], [1, most], color='grey', linestyle='--', label='all of it')
    panel.set(xlabel=f'MACs of {rows[0]["network"]} over MACs of the network', ylabel='speed-up')
    panel.legend(fontsize='small')
    panel.grid(alpha=0.3)
    with written_whole(path) as scratch:
        figure.savefig(scratch, dpi=130)
    plt.close(figure)
