"""The report page of a run: what it says, and that a browser shows it without anything else."""

import html.parser
import json
import re
import shutil
import subprocess

import pytest
from helpers.tiny_runs import save_network, train

from formats.checkpoint_files import load_checkpoint, save_model
from runtime.errors import DataError, UserError
from tools import report
from tools.reports.facts import gather
from tools.reports.page import page


class Page(html.parser.HTMLParser):
    """The tags of a page: ``open`` are those not closed yet, ``images`` the attributes of every picture, ``words`` the
    text.
    """

    VOID = {'meta', 'link', 'img', 'source', 'br'}

    def __init__(self, text):
        super().__init__()
        self.open, self.images, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == 'img' or dict(attrs).get('role') == 'img':
            self.images.append(dict(attrs))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope='module')
def prefix(tmp_path_factory):
    """A run of two epochs, λ of the first of two blocks then set to 0 in its last checkpoint."""
    folder = tmp_path_factory.mktemp('report')
    prefix = str(folder / 'run')
    assert train(save_network(folder), prefix, '--num-epochs', 2) == 0
    symbol, arg_params, aux_params = load_checkpoint(prefix, 2)
    arg_params['lambda_block'][0] = 0
    save_model(prefix, 2, symbol, arg_params, aux_params)
    return prefix


def test_the_page_says_what_was_removed(prefix):
    """The block that died has three convolutions, of 4, 4 and 16 channels; its shortcut stays."""
    made = Page(page(gather(f'{prefix}:2')))
    assert made.open == []
    said = ' '.join(made.words)
    assert '1 of 2 structures left' in re.sub(r'\s+', ' ', said)
    removed = [image['aria-label'] for image in made.images if image.get('role') == 'img']
    assert removed.count('removed channels') == 3
    with open(f'{prefix}-metrics.jsonl') as lines:
        accuracy = json.loads(lines.readlines()[-1])['validation']['accuracy']
    assert f'{100 * (1 - accuracy):.2f} %' in said
    assert f'python tools/strip_params.py {prefix}:2' in said
    assert 'same class first on 100 %' in said
    assert 'Not measured' in said


def test_every_picture_has_a_text_alternative_and_nothing_is_fetched(prefix):
    text = page(gather(f'{prefix}:2'))
    assert all(image.get('alt') or image.get('aria-label') for image in Page(text).images)
    assert len([image for image in Page(text).images if 'src' in image]) == 3
    assert not re.search(r'(src|href|srcset)="(?!data:)', text)


def test_both_networks_are_timed_in_turns(prefix, monkeypatch):
    """The rows of the benchmark; 100 images a second against 50 is half the speed, and the page says so."""
    rows = [
        {'runtime': 'mxnet cpu', 'batch': 1, 'images/s': 100.0, 'speed-up': 1.0},
        {'runtime': 'mxnet cpu', 'batch': 1, 'images/s': 50.0, 'speed-up': 0.5},
    ]
    monkeypatch.setattr('tools.reports.facts.inference.measure', lambda args: rows)
    text = ' '.join(Page(page(gather(prefix, time=True))).words)
    assert 'slower: 0.50 times the speed' in text


def test_a_name_cannot_write_into_the_page(prefix):
    facts = gather(prefix)
    facts.run['command'] = 'train/train_cifar.py --network <script>alert(1)</script>'
    assert '<script' not in page(facts)


def test_mistakes_are_told(prefix, tmp_path):
    with pytest.raises(DataError, match='no such file; train with --model-prefix'):
        report.main([str(tmp_path / 'nothing'), '--out', str(tmp_path / 'r.html')])
    (tmp_path / 'r.html').write_text('mine')
    with pytest.raises(UserError, match='exists: give another --out, or --force'):
        report.main([prefix, '--out', str(tmp_path / 'r.html')])
    assert (tmp_path / 'r.html').read_text() == 'mine'


@pytest.mark.skipif(not shutil.which('chromium'), reason='Chromium is not installed')
@pytest.mark.parametrize('width', [390, 1200])
def test_a_browser_shows_it(prefix, tmp_path, width):
    """Nothing on the console, and nothing wider than the window, on a phone and on a desk."""
    out = tmp_path / 'report.html'
    assert report.main([prefix, '--out', str(out)]) == 0
    probe = '<script>document.title = document.documentElement.scrollWidth</script>'
    out.write_text(out.read_text().replace('</body>', f'{probe}</body>'))
    options = '--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --dump-dom'
    done = subprocess.run(
        [
            'chromium',
            *options.split(),
            '--enable-logging=stderr',
            f'--window-size={width},900',
            f'--user-data-dir={tmp_path / "profile"}',
            out.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert 'CONSOLE' not in done.stderr
    shown = int(re.search(r'<title>(\d+)</title>', done.stdout).group(1))
    assert shown <= max(width, 500)  # headless Chromium has no window narrower than 500 pixels
