"""No command of the pages is stale: its own program takes it, and it is run in small where that takes seconds.

Python blocks are run, and print what the page says.
"""

import contextlib
import glob
import importlib.util
import io
import os
import re
import shutil

import cv2
import numpy as np
import pytest
from helpers.pages import PAGES, ROOT, commands, commands_of, fences, text_of
from helpers.tiny_runs import save_network, train

from runtime.errors import UserError
from symbols import parse_image_shape
from train import build
from train.data.datasets import DATASETS

# What is only parsed: the beginning of a command, in which * stands for anything, and why it is not run here.
ONLY_PARSED = {
    'python -m pip': 'it installs packages',
    'python -m pytest': 'it is a test',
    'python -m bootstrap.cuda_links': 'it writes links into the environment; tests/test_setup_links.py runs it',
    'horovodrun': 'Horovod has to be built; tests/test_train_horovod.py runs it where it is',
    'python train/launch.py': 'it starts servers; tests/test_train_servers.py runs it',
    'python train/train_*.py --help': 'it prints what tests/test_tools_pages.py compares',
    'python train/train_cifar.py --network resnet --num-layers 164': 'an epoch takes minutes',
    'python train/train_cifar.py --network vgg': 'VGG-16 does not take the small images of this test',
    'python train/train_imagenet.py * --data-train': 'it needs ImageNet',
    'python train/train_imagenet.py --data-train': 'it needs ImageNet',
    'python train/train_imagenet.py --benchmark': 'ResNet-50 takes minutes',
    'python tools/strip_params.py runs/new ': 'its run is not made here',
    'python tools/evaluate.py * --data-val': 'it needs ImageNet',
    'python tools/make_record.py': "it needs ImageNet's files; tests/test_tools_make_record.py runs it",
    'python tools/benchmark.py': 'it measures for minutes; tests/test_tools_benchmark.py runs it',
    'python tools/sweep.py': 'it trains for hours; tests/test_tools_sweep.py runs it',
    'python tools/gpu_runs.py': 'it trains for a minute at least; tests/test_tools_gpu_runs.py runs its parts',
    'python tools/reproduce_tables.py': 'tests/test_tools_pages.py runs it',
    'python tools/* resnet20-12fca82f.th': 'the file is on the web; tests/test_tools_convert.py runs it with another',
}
ONE_EPOCH = ['--num-epochs', '1', '--lr-step-epochs', '1']
SMALL = ['--dataset', 'synthetic', '--image-shape', '3,8,8', '--num-examples', '64', '--batch-size', '32', *ONE_EPOCH]
SMALL_FOLDER = ['--batch-size', '4', '--data-nthreads', '1', *ONE_EPOCH]
EPOCHS = (5, 20, 240)  # that the pages name; in small there is one
EVERY_COMMAND = sorted({tuple(words) for page in PAGES for words in commands(page)})


def program(words):
    """A command without variables of the environment before it; ``python`` is that of .venv."""
    while re.match(r'[A-Z_0-9]+=', words[0]):
        words = words[1:]
    return [words[0].replace('.venv/bin/python', 'python'), *words[1:]]


def reason_to_parse_only(words):
    line = ' '.join(words) + ' '
    return next((reason for beginning, reason in ONLY_PARSED.items() if begins(line, beginning)), None)


def begins(line, beginning):
    return re.match(re.escape(beginning).replace(r'\*', '.*'), line)


def module_of(script):
    assert os.path.exists(os.path.join(ROOT, script)), f'{script} does not exist'
    return importlib.import_module(script[: -len('.py')].replace('/', '.'))


def parsed(script, flags):
    """The arguments of a script by its own parser; None for --help."""
    try:
        return module_of(script).parser().parse_args(flags)
    except (SystemExit, UserError) as end:
        if getattr(end, 'code', 1) == 0:
            return None
        raise AssertionError(f'{script} does not take {" ".join(flags)}: {end}') from end


def check(words):
    """Fail unless a command is one that its program takes."""
    words = program(list(words))
    if words[0] == 'make':
        check_make(words[1:])
    elif words[0] == '.':
        assert words[1:] == ['.venv/bin/activate']
    elif words[0] == 'horovodrun':
        assert words[1] == '-np'
        check(words[3:])
    else:
        assert words[0] == 'python', f'who checks {words[0]}?'
        check_python(words[1:])


def check_make(words):
    makefile = text_of('Makefile')
    for word in words:
        name, is_variable, _ = word.partition('=')
        known = f'$({name})' in makefile if is_variable else re.search(f'^{name}:', makefile, re.MULTILINE)
        assert known, f'make {word}'


def check_python(words):
    if words[0] == '-m':
        assert words[1] in ('pip', 'pytest') or module_of(words[1].replace('.', '/') + '.py')
        assert all(os.path.exists(os.path.join(ROOT, word)) for word in words[2:] if word.startswith('tests/'))
        return
    script, *flags = words
    args = parsed(script, flags)
    if script == 'train/launch.py':
        check(args.command)
    elif script.startswith('train/') and args:
        check_network(args)


def check_network(args):
    """Fail unless the network and the optimizer of a training command can be made; a checkpoint's is not there yet."""
    if args.network.endswith('.json') or os.path.dirname(args.network):
        return
    dataset = DATASETS.get(getattr(args, 'dataset', None))
    shape = args.image_shape or dataset.image_shape
    classes = args.num_classes or dataset.num_classes
    build.make_optimizer(args, build.network(args, parse_image_shape(shape), classes), batches_per_epoch=1)


@pytest.fixture
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize('words', EVERY_COMMAND, ids=lambda words: ' '.join(words)[:90])
def test_its_program_takes_it(words, in_root, capsys):
    check(words)
    assert 'in place of' not in capsys.readouterr().err, 'an old spelling'


def test_what_is_only_parsed_is_in_a_page():
    lines = [' '.join(program(list(words))) + ' ' for words in EVERY_COMMAND]
    for beginning in ONLY_PARSED:
        assert any(begins(line, beginning) for line in lines), f'{beginning}: in no page any more'


@pytest.mark.parametrize('page', PAGES)
def test_every_block_says_its_language(page):
    assert {fence.language for fence in fences(page)} <= {'sh', 'python', 'text'}


@pytest.fixture(scope='module')
def small_run(tmp_path_factory):
    """A folder with a small run, as every page takes one for granted: runs/resnet20."""
    folder = tmp_path_factory.mktemp('small')
    os.makedirs(str(folder / 'runs'))
    assert train(save_network(folder), folder / 'runs' / 'resnet20', '--num-epochs', 1) == 0
    offer_epochs(str(folder / 'runs' / 'resnet20'))
    write_images(str(folder / 'my-images'))
    return str(folder)


@pytest.fixture
def workplace(small_run, tmp_path, monkeypatch):
    """A folder to carry out a page in: with the recipes, a small run and a few images."""
    folder = tmp_path / 'workplace'
    shutil.copytree(small_run, str(folder))
    os.symlink(os.path.join(ROOT, 'train'), str(folder / 'train'))
    monkeypatch.chdir(folder)
    return folder


def offer_epochs(prefix):
    """Let the last epoch's parameters stand for those of the epochs that the pages name."""
    done = max(epoch for epoch in (1, 3) if os.path.exists(f'{prefix}-{epoch:04d}.params'))
    for epoch in EPOCHS:
        if not os.path.exists(f'{prefix}-{epoch:04d}.params'):
            shutil.copy(f'{prefix}-{done:04d}.params', f'{prefix}-{epoch:04d}.params')


def write_images(folder):
    random = np.random.RandomState(0)
    for part in ('train', 'val'):
        for label in 'abcde':
            os.makedirs(os.path.join(folder, part, label))
            cv2.imwrite(
                os.path.join(folder, part, label, 'image.png'), random.randint(0, 256, (72, 80, 3)).astype(np.uint8)
            )


def in_small(script, flags):
    """The flags of a command with less data, fewer epochs and no card."""
    flags = [
        flag for position, flag in enumerate(flags) if flag != '--gpus' and flags[max(position - 1, 0)] != '--gpus'
    ]
    flags = ['digits' if flag in ('cifar10', 'cifar100') else flag for flag in flags]
    if script == 'train/train_cifar.py':
        # A budget takes three epochs at least.
        return flags + SMALL + (['--num-epochs', '3'] if '--target-macs' in flags else [])
    return flags + SMALL_FOLDER if script == 'train/train_imagenet.py' else flags


def carry_out(words):
    """Run a command of a page in small, in this process."""
    words = program(list(words))
    if words[0] != 'python' or reason_to_parse_only(words):
        return
    script, flags = words[1], words[2:]
    if 'torch' in flags and importlib.util.find_spec('torch') is None:
        return  # PyTorch is an extra
    prefix = flags[flags.index('--model-prefix') + 1] if '--model-prefix' in flags else None
    if prefix and '--resume' not in flags:
        for path in glob.glob(f'{prefix}[-.]*'):
            os.remove(path)
    assert module_of(script).main(in_small(script, flags)) in (0, None), ' '.join(words)
    if prefix:
        offer_epochs(prefix)


def carry_out_python(text, names):
    """Run a Python block of a page; returns what it printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(text, 'page', 'exec'), names)
    return printed.getvalue()


def some_arrays():
    """What a reader has: images and labels."""
    random = np.random.RandomState(0)
    images = random.randint(0, 256, (64, 3, 8, 8)).astype(np.uint8)
    labels = (np.arange(64) % 10).astype(np.int32)
    return {'train_images': images, 'train_labels': labels, 'test_images': images, 'test_labels': labels}


WITH_CODE = [page for page in PAGES if {fence.language for fence in fences(page)} & {'sh', 'python'}]


@pytest.mark.parametrize('page', WITH_CODE)
def test_a_page_can_be_carried_out(page, workplace):
    blocks, names = fences(page), some_arrays()
    for block, following in zip(blocks, [*blocks[1:], None]):
        if block.language == 'sh':
            for words in commands_of(block.text):
                carry_out(words)
        elif block.language == 'python':
            printed = carry_out_python(block.text, names)
            if printed:
                assert following.text == printed
