"""The kinds of numbers that command lines take: functions for ``type=`` of argparse. Each raises ArgumentTypeError for
text that is no such number, and says what is one.
"""

import argparse
import math
from typing import Callable, List, Tuple

# What MXNet counts with.
MOST = 2**31 - 1
PICTURES = ('.png', '.svg', '.pdf')
# Of processes, threads or devices. A larger number is a mistake, and lists of so many fill the memory.
MOST_PROCESSES = 4096
MOST_IMAGES = 1 << 20  # that are held in memory at once


def up_to(most: int) -> Callable[[str], int]:
    """The type of whole numbers from 1 to ``most``."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < 1:
            raise argparse.ArgumentTypeError(f'{text!r} is not a whole number above 0')
        return _at_most(most, text)

    return number


positive = up_to(MOST)  # a whole number above 0
processes = up_to(MOST_PROCESSES)
image_count = up_to(MOST_IMAGES)
side = up_to(1 << 14)  # pixels of an image


def whole(text: str) -> int:
    """A whole number of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number of at least 0')
    return _at_most(MOST, text)


def seed(text: str) -> int:
    """A whole number from 0 to 2³¹ - 1."""
    if not text.isdecimal() or int(text) > MOST:
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number from 0 to {MOST}')
    return int(text)


def not_negative(text: str) -> float:
    """A number of at least 0."""
    return _number(text, lambda value: 0 <= value < math.inf, 'a number of at least 0')


def above_zero(text: str) -> float:
    """A number above 0."""
    return _number(text, lambda value: 0 < value < math.inf, 'a number above 0')


def factor(text: str) -> float:
    """A number above 0, and 1 at most."""
    return _number(text, lambda value: 0 < value <= 1, 'a number above 0, and 1 at most')


def share(text: str) -> float:
    """A share of something that must not be 0."""
    return _number(text, lambda value: 0 < value <= 1, 'a share: a number above 0, and 1 at most')


def below_one(text: str) -> float:
    """A number of at least 0, and below 1."""
    return _number(text, lambda value: 0 <= value < 1, 'a number of at least 0, and below 1')


def from_zero_to_one(text: str) -> float:
    """A number from 0 to 1."""
    return _number(text, lambda value: 0 <= value <= 1, 'a number from 0 to 1')


def increasing(text: str) -> List[int]:
    """Increasing whole numbers above 0 with commas between, perhaps none."""
    epochs = [int(epoch) if epoch.isdecimal() else 0 for epoch in text.split(',') if epoch]
    if 0 in epochs or sorted(set(epochs)) != epochs:
        raise argparse.ArgumentTypeError(f'{text!r} is not increasing epochs, for example 30,60,90')
    return epochs


def numbers(text: str) -> Tuple[float, ...]:
    """Finite numbers with commas between."""
    try:
        found = tuple(float(number) for number in text.split(','))
    except ValueError:
        found = ()
    if not found or not all(map(math.isfinite, found)):
        raise argparse.ArgumentTypeError(f'{text!r} is not numbers with commas between')
    return found


def not_negative_numbers(text: str) -> Tuple[float, ...]:
    """Numbers of at least 0 with commas between."""
    return _each(text, lambda value: value >= 0, 'must be at least 0')


def seeds(text: str) -> Tuple[int, ...]:
    """Seeds with commas between."""
    return tuple(seed(number) for number in text.split(','))


def shares(text: str) -> Tuple[float, ...]:
    """Shares with commas between, each above 0, and 1 at most."""
    return _each(text, lambda value: 0 < value <= 1, 'must be above 0, and 1 at most')


def divisors(text: str) -> Tuple[float, ...]:
    """Numbers above 0 with commas between."""
    return _each(text, lambda value: value > 0, 'must be above 0, pixels are divided by it')


def shape_of(text: str) -> Tuple[int, ...]:
    """The shape of an image."""
    try:
        return tuple(int(size) for size in text.split(','))
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r} is not channels,height,width') from None


def picture(text: str) -> str:
    """The name of a file that a figure is drawn into."""
    if not text.endswith(PICTURES):
        raise argparse.ArgumentTypeError(f'{text!r} does not end in {" or ".join(PICTURES)}, which says the format')
    return text


def _at_most(most: int, digits: str) -> int:
    if int(digits) > most:
        raise argparse.ArgumentTypeError(f'{digits} is too much; {most} is the most')
    return int(digits)


def _each(text: str, is_possible: Callable[[float], bool], description: str) -> Tuple[float, ...]:
    found = numbers(text)
    if not all(map(is_possible, found)):
        raise argparse.ArgumentTypeError(f'{text!r}: each number {description}')
    return found


def _number(text: str, is_possible: Callable[[float], bool], description: str) -> float:
    try:
        if is_possible(float(text)):
            return float(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f'{text!r} is not {description}')
