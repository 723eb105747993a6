"""Every flag of the two training scripts as Markdown, with its default and its help, read from their parsers."""

import argparse

from train import train_cifar, train_imagenet

from .render import markdown


def options_markdown() -> str:
    """A heading and a table for each group of flags; where the two scripts have other defaults, both are given."""
    cifar, imagenet = _groups(train_cifar.parser()), _groups(train_imagenet.parser())
    shared = {title: actions for title, actions in cifar.items() if title in imagenet}
    sections = [_section(title, actions, imagenet[title]) for title, actions in shared.items()]
    for script, groups in (('train_cifar.py', cifar), ('train_imagenet.py', imagenet)):
        sections += [
            _section(f'{title}, only in {script}', actions, {})
            for title, actions in groups.items()
            if title not in shared
        ]
    return '\n\n'.join(sections)


def _groups(parser):
    """Dict from the title of a group to its flags, a dict from the flag to its argparse action."""
    found = {}
    for action in parser._actions:
        if action.option_strings and not isinstance(action, argparse._HelpAction):
            title = next(group.title for group in parser._action_groups if action in group._group_actions)
            found.setdefault(title, {})[action.option_strings[-1]] = action
    return found


def _section(title, actions, others):
    rows = [
        [_spellings(action), _defaults(action, others.get(flag)), _help(action)] for flag, action in actions.items()
    ]
    return f'### {title[0].upper()}{title[1:]}\n\n{markdown(["flag", "default", "what it is for"], rows, aligned=3)}'


def _spellings(action):
    return ', '.join(f'`{flag}{_values(action)}`' for flag in action.option_strings)


def _values(action):
    if action.nargs == 0:
        return ''
    return ' ' + ('\\|'.join(map(str, action.choices)) if action.choices else action.metavar or 'VALUE')


def _defaults(action, other):
    """The default as one would type it; ImageNet's behind it where it is another."""
    shown = _typed(action)
    return shown if other is None or _typed(other) == shown else f'{shown}; ImageNet {_typed(other)}'


def _typed(action):
    default = action.default
    if action.nargs == 0:
        return 'on' if (default is True) == (action.const is True) else 'off'
    if default is None:
        return '–'
    if isinstance(default, (list, tuple)):
        return ','.join(f'{value:g}' for value in default)
    return f'{default:g}' if isinstance(default, float) else str(default)


def _help(action):
    return (action.help % {**vars(action), 'prog': ''}).replace('|', '\\|')
