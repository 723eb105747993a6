"""Recipes: files of flags, several a line, with blank lines and comments, which ``@FILE`` puts on a command line."""

from typing import Iterable, List

from runtime.errors import UserError
from runtime.reading import MB, read_text

MAX_BYTES = 1 * MB
# A recipe may name others. One that names itself would never end, and one that names others twice may be very long.
MAX_NESTING = 4
MAX_WORDS = 10_000


def read_recipe(path: str) -> List[str]:
    """The words of the recipe ``path``, without comments. Raises UserError where it cannot be read."""
    text = read_text(path, MAX_BYTES, UserError, 'train/recipes/ holds those of the paper')
    return [word for line in text.splitlines() for word in line.split('#')[0].split()]


def expanded(words: Iterable[str]) -> List[str]:
    """A command line where each ``@FILE`` is replaced by the words of the recipe FILE. Raises UserError where a recipe
    cannot be read, or they name each other too often.
    """
    words = list(words)
    for _ in range(MAX_NESTING):
        if not any(word.startswith('@') for word in words):
            return words
        words = [part for word in words for part in (read_recipe(word[1:]) if word.startswith('@') else [word])]
        if len(words) > MAX_WORDS:
            raise UserError(f'more than {MAX_WORDS} words in these recipes')
    raise UserError(f'{next(word for word in words if word.startswith("@"))}: recipes name each other too often')
