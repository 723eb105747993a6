"""The charts of a report: one figure each, as SVG for a light and for a dark page."""

import base64
import io
from typing import Callable, Dict, List, Tuple

from tools import plot
from tools.pyplot import plt

# Text and lines, for a light and a dark background.
INKS = {'light': '#24292f', 'dark': '#e6edf3'}
SIZE = (5.6, 3.5)


def charts_of(records: plot.Records) -> List[Tuple[str, str, Dict[str, str]]]:
    """(title, text alternative, {'light': data address, 'dark': data address}) of each chart of a run."""
    last = records[-1]
    error = 100 * (1 - last['validation']['accuracy'])
    found: List[Tuple[str, str, Callable[..., None]]] = [
        (
            'Error over the epochs',
            f'Training and validation error over {len(records)} epochs. The validation error ends at {error:.2f} %.',
            plot.draw_error,
        )
    ]
    if 'lambda_values' in records[0]:
        dead = sum(value == 0 for vector in last['lambda_values'].values() for value in vector['values'])
        total = sum(len(vector['values']) for vector in last['lambda_values'].values())
        kept = 100 * last['alive']['macs'] / last['full']['macs']
        found += [
            (
                'λ over the epochs',
                f'The paths of {total} scaling factors, in the colour of their stage. {dead} of them end at 0.',
                plot.draw_lambda,
            ),
            (
                'MACs and parameters over the epochs',
                f'The share of MACs and parameters alive after each epoch. {kept:.1f} % of the MACs are left.',
                plot.draw_structure,
            ),
        ]
    epochs = [record['epoch'] + 1 for record in records]
    return [(title, said, _both(draw, epochs, records)) for title, said, draw in found]


def _both(draw: Callable[..., None], epochs: List[int], records: plot.Records) -> Dict[str, str]:
    return {mode: _address(draw, epochs, records, ink) for mode, ink in INKS.items()}


def _address(draw, epochs, records, ink):
    """A chart as a data: address of an SVG with a transparent background."""
    style = dict.fromkeys(('text.color', 'axes.labelcolor', 'axes.edgecolor', 'xtick.color', 'ytick.color'), ink)
    with plt.rc_context({**style, 'svg.hashsalt': 'sss', 'font.size': 11}):
        figure, panel = plt.subplots(figsize=SIZE, constrained_layout=True)
        draw(panel, epochs, records)
        panel.set_xlabel('epoch')
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.grid(alpha=0.25)
        panel.spines[['top', 'right']].set_visible(False)
        out = io.BytesIO()
        figure.savefig(out, format='svg', transparent=True, metadata={'Date': None})
        plt.close(figure)
    return f'data:image/svg+xml;base64,{base64.b64encode(out.getvalue()).decode()}'
