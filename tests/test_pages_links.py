"""Links and headings of the pages exist, the rooms drawn are the rooms there are, and the README stays short."""

import glob
import os
import re

import pytest
from helpers.pages import PAGES, ROOT, anchors, fences, links, text_of


@pytest.mark.parametrize('page', PAGES)
def test_links_lead_to_files_and_headings(page):
    for link in links(page):
        if re.match(r'https?://', link):
            continue
        path, _, anchor = link.partition('#')
        target = os.path.normpath(os.path.join(os.path.dirname(page), path)) if path else page
        assert os.path.exists(os.path.join(ROOT, target)), f'{page}: {link}'
        assert not target.startswith('..'), f'{page}: {link} leads out of the project'
        assert not anchor or anchor in anchors(target), f'{page}: {link}; {target} has {", ".join(anchors(target))}'


def test_links_are_found_and_headings_named_as_github_does():
    assert 'docs/authors.md' in links('README.md')
    assert 'choosing-γ' in anchors(os.path.join('docs', 'method.md'))
    assert 'equations-10-to-12' in anchors(os.path.join('docs', 'method.md'))


def test_every_page_of_docs_is_linked_from_the_readme():
    assert set(links('README.md')) >= {page.replace(os.sep, '/') for page in PAGES if page.startswith('docs')}


def test_the_readme_is_short():
    assert len(text_of('README.md').splitlines()) <= 200


def test_pages_that_the_code_names_are_there():
    for pattern in ('*/**/*.py', '*/**/*.args', 'Makefile'):
        for path in glob.glob(os.path.join(ROOT, pattern), recursive=True):
            for page in re.findall(r'\bdocs/[\w-]+\.md\b', text_of(path)):
                assert os.path.exists(os.path.join(ROOT, page)), f'{path} names {page}'


def rooms_of_architecture():
    """The names at the beginning of the lines of ARCHITECTURE.md's first block."""
    return [line.split()[0].rstrip('/') for line in fences('ARCHITECTURE.md')[0].text.splitlines()]


def rooms_of_the_test():
    """ORDER of tests/test_rooms.py, which is no helper to import."""
    text = text_of(os.path.join('tests', 'test_rooms.py'))
    return re.findall(r"'(\w+)'", re.search(r'^ORDER = \[(.*?)\]', text, re.DOTALL | re.MULTILINE).group(1))


def test_the_rooms_that_are_drawn_are_those_that_are_checked():
    assert rooms_of_architecture() == rooms_of_the_test()


def test_the_modules_of_the_reading_order_are_linked():
    assert {
        'optimizers/apg.py',
        'symbols/scaling.py',
        'symbols/resnet.py',
        'train/fit.py',
        'train/checkpoint.py',
        'graphs/graph.py',
        'graphs/liveness.py',
        'graphs/pruning.py',
        'graphs/strip.py',
    } <= set(links('ARCHITECTURE.md'))
