"""What every figure shares: colours, axes, and how it is saved."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.files import written_whole
from tools.pyplot import plt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that colour-blind readers can tell apart (Okabe & Ito).
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#666666')
MARKERS = 'osD^vP*'

__all__ = ['COLOURS', 'MARKERS', 'finish', 'plt', 'save']


def save(figure: Figure, path: str) -> None:
    """Write a figure as ``path``.png and ``path``.svg, the same bytes for the same figure, and close it."""
    with plt.rc_context({'svg.hashsalt': 'sss'}):
        for ending, metadata in (('png', {'Software': None}), ('svg', {'Date': None})):
            with written_whole(f'{path}.{ending}') as scratch:
                figure.savefig(scratch, dpi=130, metadata=metadata)
    plt.close(figure)


def finish(panel: Axes, x: str, y: str) -> None:
    """Label the axes of a panel, and draw its grid behind the data."""
    panel.set_xlabel(x)
    panel.set_ylabel(y)
    panel.grid(alpha=0.3)
    panel.set_axisbelow(True)
    panel.spines[['top', 'right']].set_visible(False)
