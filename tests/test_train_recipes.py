"""Every recipe: the trainer takes it, it builds the network that it promises, and it says truly how it is used."""

import glob
import os
import re

import pytest

from graphs.lambdas import lambda_layout
from symbols import NETWORKS, get_symbol
from tools import benchmark, sweep
from tools.sweeps.one_run import RECIPES, ROOT, script_of
from tools.tables.published import read_tables
from train.argument_kinds import COMPUTE, SELECTION
from train.arguments import training_parser
from train.data.datasets import DATASETS, add_data_args
from train.train_imagenet import TRAINING_IMAGES

NAMES = sorted(
    os.path.relpath(path, RECIPES) for path in glob.glob(os.path.join(RECIPES, '**', '*.args'), recursive=True)
)
PAPER = [name for name in NAMES if not name.startswith('digits')]
KINDS = {'resnet': {'block'}, 'resnext': {'block', 'group'}, 'vgg': {'neuron'}}


def parse(name):
    parser = training_parser('test')
    if not name.startswith('imagenet'):
        add_data_args(parser)
    return parser.parse_args(['@' + os.path.join(RECIPES, name)])


def stem(args):
    return f'{args.network}-{args.num_layers}-finetune-' if args.finetune else f'{args.network}{args.num_layers}-'


def is_ours(name):
    """Whether a recipe is not the paper's."""
    return 'finetune' in name or 'strong' in name or name.startswith('digits')


def text(name):
    with open(os.path.join(RECIPES, name), encoding='utf-8') as source:
        return source.read()


def build(name, args):
    shape, classes = (
        ('3,224,224', 1000) if name.startswith('imagenet') else ('3,32,32', DATASETS[args.dataset].num_classes)
    )
    return get_symbol(args.network, args.num_layers, classes, shape, args.scale, args.lambda_placement)


@pytest.mark.parametrize('name', NAMES)
def test_it_builds_what_it_promises(name):
    args = parse(name)
    kinds = {vector.kind for vector in lambda_layout(build(name, args))}
    assert kinds == (set() if 'baseline' in name else {args.scale} if is_ours(name) else KINDS[args.network])
    assert args.optimizer == ('nag' if 'baseline' in name else 'apg')
    assert os.path.basename(name).startswith(stem(args))
    assert bool(args.finetune) == ('finetune' in name)
    if not name.startswith('imagenet'):
        assert os.path.dirname(name) == args.dataset


@pytest.mark.parametrize('name', NAMES)
def test_its_comments_are_true(name):
    own = f'train/recipes/{name}'
    assert f'\n# python {script_of(os.path.join(RECIPES, name))} @{own}\n' in text(name)
    assert (
        script_of(os.path.join(RECIPES, name))
        == f'train/train_{"imagenet" if name.startswith("imagenet") else "cifar"}.py'
    )
    commands = re.findall(r'^# python tools/sweep.py (.*)$', text(name), re.MULTILINE)
    assert len(commands) == (name in PAPER and 'baseline' not in name)
    for command in commands:
        args = sweep.parser().parse_args(command.split())
        assert args.recipe == [own]
        assert parse(name).gamma in args.gamma
        assert not parse(name).target_macs or parse(name).target_macs in args.target_macs


@pytest.mark.parametrize('name', [name for name in NAMES if name.startswith('imagenet')])
def test_what_it_promises_is_published_or_computed(name):
    """A run of days says before it starts what it should come to and how long that takes."""
    args, said = parse(name), text(name)
    (row,) = (
        row for table in read_tables().values() for row in table.rows if row.recipe and row.recipe.endswith(f'/{name}')
    )
    published = re.search(r'^# Published: (.*)\.$', said, re.MULTILINE).group(1)
    values = [
        re.fullmatch(r'(?:top-\d error )?([\d.,]+) .+ \[(.)\]', value).groups() for value in published.split(', ')
    ]
    assert values == [(value.text, value.grade) for column, value in row.values.items() if value and column != 'flops']
    epochs, images, rate, cards, each, hours = re.search(
        r'^# Computed, not measured: (\d+) epochs × ([\d,]+) images at an assumed (\d+) images/s '
        r'\((\d+) cards of (\d+)\) are ([\d.]+) hours\.$',
        said,
        re.MULTILINE,
    ).groups()
    assert (int(epochs), int(images.replace(',', '')), int(cards)) == (
        args.num_epochs,
        TRAINING_IMAGES,
        len(args.gpus.split(',')),
    )
    assert int(rate) == int(cards) * int(each)
    assert float(hours) == pytest.approx(args.num_epochs * TRAINING_IMAGES / int(rate) / 3600, abs=0.05)
    units = re.search(r'^# Structure: ([\d,]+) ', said, re.MULTILINE).group(1)
    assert units == ','.join(map(str, NETWORKS[args.network].UNITS[args.num_layers]))
    (command,) = re.findall(r'^# python tools/benchmark.py (.*) measures', said, re.MULTILINE)
    measured = benchmark.parser().parse_args(command.split())
    assert (measured.network, measured.num_layers, measured.batch_size) == (
        args.network,
        args.num_layers,
        args.batch_size // int(cards),
    )


@pytest.mark.parametrize('name', [name for name in PAPER if 'baseline' not in name])
def test_its_baseline_has_the_same_schedule(name):
    args = parse(name)
    schedule = 'strong-' if 'strong' in name else ''
    baseline = parse(os.path.join(os.path.dirname(name), f'{stem(args)}{schedule}baseline.args'))
    assert {name for name, value in vars(args).items() if vars(baseline)[name] != value} <= SELECTION | COMPUTE
    said = re.search(r'^# Baseline: train/recipes/(\S+)$', text(name), re.MULTILINE).group(1)
    assert said == os.path.join(os.path.dirname(name), f'{stem(args)}{schedule}baseline.args')


def test_every_row_has_a_recipe_of_its_network():
    rows = [row for table in read_tables().values() for row in table.rows if row.recipe]
    for row in rows:
        name = os.path.relpath(os.path.join(ROOT, row.recipe), RECIPES)
        args = parse(name)
        assert (args.network, args.num_layers) == (row.network['network'], row.network['num_layers'])
        assert ('SSS' in row.model) == ('sss' in name)
        assert (
            DATASETS[args.dataset].num_classes == row.network['num_classes']
            if 'cifar' in name
            else row.network['num_classes'] == 1000
        )
    assert len({row.recipe for row in rows}) == len(rows)
