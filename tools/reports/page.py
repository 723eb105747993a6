"""The HTML of a report: one file without others, for light and dark screens, large and small."""

import html
import re
from typing import List

from .charts import charts_of
from .facts import Facts

STYLE = """
:root { color-scheme: light dark; --ink: #24292f; --quiet: #57606a; --page: #ffffff; --card: #f6f8fa; --line: #d0d7de;
  --kept: #0072b2; --gone: #d8dee4; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --quiet: #9198a1; --page: #0d1117; --card: #161b22;
  --line: #30363d; --kept: #56b4e9; --gone: #2d333b; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 70rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0; overflow-wrap: anywhere; } h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; }
p { max-width: 46rem; } .quiet { color: var(--quiet); font-size: .9rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: .75rem; margin: 1.25rem 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .75rem 1rem; }
.card b { display: block; font-size: 1.5rem; font-variant-numeric: tabular-nums; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr)); gap: 1rem; }
figure { margin: 0; } figcaption { font-weight: 600; } img { width: 100%; height: auto; display: block; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem .6rem .35rem 0; border-bottom: 1px solid var(--line);
  vertical-align: middle; }
th { font-weight: 600; } .number { text-align: right; white-space: nowrap; }
.layers td:first-child { min-width: 13rem; overflow-wrap: anywhere; font-size: .9rem; }
.layers td:nth-child(2) { width: 100%; }
.bar { position: relative; height: .8rem; background: var(--gone); border-radius: .2rem; min-width: 2px; }
.bar i { position: absolute; top: 0; bottom: 0; background: var(--kept); border-radius: .2rem; }
summary { cursor: pointer; font-weight: 600; padding: .3rem 0; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .75rem 1rem;
  overflow-x: auto; font-size: .85rem; } .scroll { overflow-x: auto; }
@media (max-width: 40rem) { .layers td:first-child { min-width: 7.5rem; } .layers .number { font-size: .8rem; } }
"""


def page(facts: Facts) -> str:
    """The whole page, an HTML document."""
    title = f'{_network(facts)}: what was removed, and what it cost'
    parts = [
        f'<h1>{_text(title)}</h1>',
        f'<p class="quiet">{_text(_origin(facts))}</p>',
        _cards(facts),
        _charts(facts),
        _structure(facts),
        _proof(facts),
        _timings(facts),
        _commands(facts),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f'<title>{_text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n'
        + '\n'.join(filter(None, parts))
        + '\n</main>\n</body>\n</html>\n'
    )


def _text(words: object) -> str:
    return html.escape(str(words))


def _network(facts):
    said = facts.run.get('arguments', {})
    if not said.get('network'):
        return facts.prefix
    name = said['network'].rpartition('/')[2]
    layers = f'-{said["num_layers"]}' if said.get('num_layers') and not name.endswith('.json') else ''
    return f'{name}{layers}' + (f' on {said["dataset"]}' if said.get('dataset') else '')


def _origin(facts):
    versions = ', '.join(f'{name} {value}' for name, value in facts.run.get('versions', {}).items() if value)
    return f'Run {facts.prefix}, epoch {facts.epoch}.' + (f' Made with {versions}.' if versions else '')


def _cards(facts):
    before, after = facts.structure['before'], facts.structure['after']
    last = facts.records[-1]
    cards = [(f'{100 * (1 - last["validation"]["accuracy"]):.2f} %', 'validation error')]
    for key, name in (('macs', 'MACs'), ('params', 'parameters'), ('bytes', 'bytes')):
        kept = f'{100 * after[key] / max(1, before[key]):.1f} %'
        cards.append((kept, f'of the {name} left: {_short(after[key])} of {_short(before[key])}'))
    lambdas = facts.structure['lambdas'].values()
    if lambdas:
        alive, total = (sum(vector[key] for vector in lambdas) for key in ('alive_count', 'count'))
        cards.append((f'{alive} of {total}', 'structures left'))
    made = (f'<div class="card"><b>{_text(value)}</b>{_text(name)}</div>' for value, name in cards)
    return f'<div class="cards">{"".join(made)}</div>'


def _short(number):
    for size, unit in ((1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
        if number >= size:
            return f'{number / size:.3g}\N{NO-BREAK SPACE}{unit}'
    return str(number)


def _charts(facts):
    figures = []
    for title, said, address in charts_of(facts.records):
        figures.append(
            f'<figure><figcaption>{_text(title)}</figcaption><picture>'
            f'<source media="(prefers-color-scheme: dark)" srcset="{address["dark"]}">'
            f'<img src="{address["light"]}" alt="{_text(said)}"></picture></figure>'
        )
    return f'<h2>Training</h2><div class="charts">{"".join(figures)}</div>'


def _structure(facts):
    """Every convolution and full connection as a bar as wide as its channels, those that are left in colour."""
    layers = [layer for layer in facts.structure['layers'] if layer['op'] != 'BatchNorm']
    widest = max((layer['channels'] for layer in layers), default=1)
    groups = {}
    for layer in layers:
        groups.setdefault(_stage(layer['name']), []).append(layer)
    parts = [
        '<h2>What was removed</h2><p>Each bar is a layer, as wide as its channels. The channels that are left are in '
        'colour. A layer without colour is gone.</p>'
    ]
    for stage, members in groups.items():
        kept, total = (sum(layer[key] for layer in members) for key in ('kept', 'channels'))
        rows = ''.join(_bar(layer, widest) for layer in members)
        parts.append(
            f'<details open><summary>{_text(stage)}: {kept} of {total} channels left</summary>'
            f'<table class="layers"><tbody>{rows}</tbody></table></details>'
        )
    return ''.join(parts)


def _stage(name):
    found = re.match(r'(?:.*_)?stage_?(\d+)', name)
    return f'Stage {found.group(1)}' if found else 'Outside the stages'


def _bar(layer, widest):
    count = layer['channels']
    pieces = ''.join(
        f'<i style="left:{100 * first / count:.2f}%;width:{100 * (last - first + 1) / count:.2f}%"></i>'
        for first, last in layer['kept_ranges']
    )
    said = 'removed' if not layer['kept'] else f'{layer["kept"]} of {count}'
    return (
        f'<tr><td>{_text(layer["name"])}</td><td><div class="bar" role="img" aria-label="{_text(said)} channels" '
        f'style="width:{100 * count / widest:.1f}%">{pieces}</div></td><td class="number">{_text(said)}</td></tr>'
    )


def _proof(facts):
    proof = facts.proof
    return (
        '<h2>Proof</h2><p>The full and the stripped network ran on the same '
        f'{proof["images"]} random images. Their logits differ by at most {proof["largest"]:.3g} '
        f'({proof["relative"]:.3g} relative). They put the same class first on {100 * proof["agreement"]:g} % of '
        'the images.</p>'
    )


def _timings(facts):
    if not facts.timings:
        return '<h2>Speed</h2><p>Not measured. <code>--time</code> measures it on this machine.</p>'
    rows = []
    for full, small in zip(facts.timings[::2], facts.timings[1::2]):
        faster = small['speed-up']
        verdict = f'{faster:.2f} times as fast' if faster >= 1 else f'slower: {faster:.2f} times the speed'
        cells = (full['runtime'], full['batch'], f'{full["images/s"]:.0f}', f'{small["images/s"]:.0f}', verdict)
        marks = ('', '', ' class="number"', ' class="number"', '')
        rows.append(f'<tr>{"".join(f"<td{mark}>{_text(cell)}</td>" for mark, cell in zip(marks, cells))}</tr>')
    heads = ('runtime', 'images at a time', 'full (images/s)', 'stripped (images/s)', 'stripped is')
    head = ''.join(f'<th scope="col">{_text(name)}</th>' for name in heads)
    return (
        '<h2>Speed</h2><p>λ and batch normalisation are folded away in both networks. They took turns; each number is '
        f'a median.</p><div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
        '</div>'
    )


def _commands(facts):
    return f'<h2>Commands</h2><pre>{_text(chr(10).join(commands_of(facts)))}</pre>'


def commands_of(facts: Facts) -> List[str]:
    """The command lines that made the run, and those that come next."""
    trained = facts.run.get('command')
    trained = f'python {re.sub(r"^.*?(?=train/train_)", "", trained)}' if trained else None
    stripped = f'{facts.prefix}-stripped'
    return [
        *([trained] if trained else []),
        f'python tools/strip_params.py {facts.prefix}:{facts.epoch} --out {stripped}',
        f'python tools/convert.py {stripped} --to onnx --out {stripped}.onnx',
    ]
