"""docs/authors.md: flags that stand for the authors' settings exist and mean what the page says; so do its files."""

import os
import re

import pytest
from helpers.pages import ROOT, text_of

from train import launch, train_cifar, train_imagenet
from train.data.image_exact import ExactRandomView

PAGE = os.path.join('docs', 'authors.md')


def settings():
    """(their setting, our flags) of the table of ``cfgs.py``."""
    rows = re.findall(r'^\| (`.+?) \| (.+?) \|$', text_of(PAGE).split('## What is equal')[0], re.MULTILINE)
    return [row for row in rows if row[0] != '`config/cfgs.py`']


def test_every_flag_exists():
    known = set()
    for script in (train_cifar, train_imagenet, launch):
        known |= set(script.parser()._option_string_actions)
    known |= {'--threshold', '--for-training', '--fold-bn'}
    named = set(re.findall(r'--[a-z][a-z-]+', text_of(PAGE)))
    assert len(named) > 20
    assert named <= known


@pytest.mark.parametrize(('theirs', 'ours'), settings())
def test_flags_with_values_are_accepted(theirs, ours):
    """Every piece of code that starts with a flag and has no placeholder goes through the parser."""
    for words in re.findall(r'`(--[^`]+)`', ours):
        words = words.split()
        if not any(word.isupper() or 'FILE' in word or 'PREFIX' in word for word in words) and len(words) > 1:
            args = train_imagenet.parser().parse_args(words)
            for flag, value in zip(words[::2], words[1::2]):
                parsed = getattr(args, flag[2:].replace('-', '_'))
                shown = ','.join(map(str, parsed)) if isinstance(parsed, (list, tuple)) else parsed
                assert str(shown) == value or float(shown) == float(value)


def test_their_settings_are_the_recipe():
    """Rates, decay, momentum, steps, epochs, batch and γ of the page are those of the recipe of ResNet-50."""
    recipe = os.path.join(ROOT, 'train', 'recipes', 'imagenet', 'resnet50-sss-32.args')
    args = train_imagenet.parser().parse_args([f'@{recipe}'])
    found = (args.lr, args.wd, args.mom, args.lr_step_epochs, args.lr_factor, args.num_epochs, args.gamma)
    assert found == (0.1, 1e-4, 0.9, [30, 60, 90], 0.1, 100, 0.01)
    # Theirs is 32 a card on 4 cards.
    assert args.batch_size == 32 * len(args.gpus.split(','))


def test_what_the_exact_pipeline_turns_off():
    """The differences that the page says it ends; tests/test_data_image_exact.py holds the option to it."""
    rows = re.findall(r'^\| ([^|]+?) \|.*--exact-pipeline 1', text_of(PAGE), re.MULTILINE)
    assert rows == [
        'first update after a drop of η',
        'random crop that does not fit in ten tries',
        'decoding',
        'rounding of pixels',
    ]
    assert ExactRandomView.reductions == ()


def test_the_files_it_names_exist():
    for path in re.findall(r'`((?:symbols|tools|tests|optimizers|train)/[\w/.]+)', text_of(PAGE)):
        assert os.path.exists(os.path.join(ROOT, path)), path
