"""The pages of the project as tests read them: their fences, commands, headings and links."""

import glob
import os
import re
import shlex
from typing import NamedTuple

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PATTERNS = '*.md', os.path.join('docs', '*.md'), os.path.join('results', 'README.md')
PAGES = sorted(os.path.relpath(path, ROOT) for pattern in PATTERNS for path in glob.glob(os.path.join(ROOT, pattern)))
FENCE = re.compile(r'^( *)```(\w*)\n(.*?)^\1```$', re.DOTALL | re.MULTILINE)


class Fence(NamedTuple):
    """A block between ``` marks: the language behind the first mark, and the text."""

    language: str
    text: str


def text_of(page):
    with open(os.path.join(ROOT, page), encoding='utf-8') as source:
        return source.read()


def fences(page):
    """The Fences of a page, in order."""
    found = FENCE.findall(text_of(page))
    return [Fence(language, re.sub(f'^{indent}', '', text, flags=re.MULTILINE)) for indent, language, text in found]


def commands_of(text):
    """The commands of a shell block, each as a list of words, without comments; a line that ends in \\ goes on in the
    next.
    """
    lines = text.replace('\\\n', ' ').splitlines()
    return [words for words in (shlex.split(line, comments=True) for line in lines) if words]


def commands(page):
    """The commands of all shell blocks of a page."""
    return [words for fence in fences(page) if fence.language == 'sh' for words in commands_of(fence.text)]


def prose(page):
    """A page without its fences."""
    return FENCE.sub('', text_of(page))


def links(page):
    """The targets of the links and pictures of a page."""
    return re.findall(r'\]\(([^)\s]+)\)', re.sub(r'`[^`\n]*`', '', prose(page)))


def anchors(page):
    """What a link to a heading of the page has behind its #, as GitHub makes it of the heading."""
    found = []
    for heading in re.findall(r'^#+ (.*)$', prose(page), re.MULTILINE):
        slug = re.sub(r'[^\w\- ]', '', re.sub(r'\[([^]]*)\]\([^)]*\)', r'\1', heading).lower()).replace(' ', '-')
        found.append(slug if slug not in found else f'{slug}-{found.count(slug)}')
    return found
