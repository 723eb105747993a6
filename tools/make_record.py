"""Make MXNet's record files (PREFIX.rec, .idx, .lst) from ImageNet's folders or its tar files, which need not be
unpacked.

    python tools/make_record.py ILSVRC2012_img_train.tar data/train
    python tools/make_record.py ILSVRC2012_img_val.tar data/val --devkit ILSVRC2012_devkit_t12.tar.gz
    python tools/make_record.py --verify data/train

After an interruption or a kill, the same command line continues. PREFIX.json, which says what is in the set, is written
last.
"""

import argparse
import logging
from typing import Optional, Sequence

from runtime import usable_cores
from runtime.cli import Parser, run
from runtime.errors import DataError, UserError
from tools.records.labels import label_images
from tools.records.sources import find_images
from tools.records.verifying import faults
from tools.records.writing import make_plan, refuse_finished, write_set
from train.log import open_log


def parser() -> Parser:
    """The parser of this script."""
    made = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument(
        'source',
        nargs='?',
        metavar='SOURCE',
        help='a folder or tar file of images, of a folder a class, or (tar) of a tar file a class',
    )
    made.add_argument(
        'prefix', nargs='?', metavar='PREFIX', help='what the names of the new files begin with, for example data/train'
    )
    classes = made.add_argument_group('classes and order')
    classes.add_argument(
        '--devkit',
        help='ILSVRC2012_devkit_t12.tar.gz, or the folder that it unpacks to: the labels of validation images without '
        'class folders',
    )
    classes.add_argument(
        '--classes',
        help='the classes in the order of their labels, where SOURCE may lack some: a manifest, such as that of the '
        'training set, '
        'or a text file, one a line (default: the classes of SOURCE, sorted)',
    )
    classes.add_argument(
        '--shuffle',
        type=int,
        choices=(0, 1),
        help='1: put the records into random order, 0: keep them sorted (default: 0 for validation, that is with '
        '--devkit or --classes, else 1)',
    )
    classes.add_argument('--seed', type=int, default=0, help='of the random order (default: 0)')
    images = made.add_argument_group('images')
    images.add_argument(
        '--resize',
        type=int,
        metavar='N',
        help='scale each image to a shorter side of N pixels (default: keep the original bytes)',
    )
    images.add_argument('--quality', type=int, default=95, help='of JPEGs that are encoded again (default: 95)')
    images.add_argument(
        '--max-bad',
        type=float,
        default=0.001,
        help='the share of images that may be left out because they cannot be decoded (default: 0.001)',
    )
    work = made.add_argument_group('work and files')
    work.add_argument('--jobs', type=int, default=usable_cores(), help='processes (default: the cores of this machine)')
    work.add_argument(
        '--force', action='store_true', help='replace a finished set, or an unfinished one of other images or options'
    )
    work.add_argument(
        '--verify', metavar='PREFIX', help='read a finished set back: sums, framing, every image, labels, counts'
    )
    return made


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Make or verify a set as the command line ``argv`` says; returns the exit code."""
    args = parser().parse_args(argv)
    check_options(args)
    open_log()
    try:
        return verify(args) if args.verify else make(args)
    except KeyboardInterrupt:
        logging.info('Stopped; the same command line goes on from here')
        return 130


def check_options(args: argparse.Namespace) -> None:
    """Raise UserError for options that contradict each other or are out of range."""
    if bool(args.verify) == bool(args.prefix) or (args.verify and args.source):
        raise UserError('give SOURCE and PREFIX, or --verify PREFIX (--help explains)')
    for name, least, most in (
        ('resize', 1, 65500),
        ('quality', 1, 100),
        ('jobs', 1, 1024),
        ('max_bad', 0, 1),
        ('seed', 0, 2**32 - 1),
    ):
        value = getattr(args, name)
        if value is not None and not least <= value <= most:
            raise UserError(f'--{name.replace("_", "-")} must be from {least} to {most}')
    if args.devkit and args.classes:
        raise UserError('--devkit has its own classes: leave --classes out')


def make(args: argparse.Namespace) -> int:
    """Make the set; returns the exit code. Raises UserError and DataError as ``write_set``."""
    if not args.force:
        refuse_finished(args.prefix)
    images = find_images(args.source)
    classes, labels = label_images(images, args.devkit, args.classes)
    logging.info('%s: %d images in %d classes', args.source, len(images), len(classes))
    empty = len(set(range(len(classes))).difference(labels.tolist()))
    if empty:
        logging.warning('%s has no image of %d of the %d classes', args.source, empty, len(classes))
    is_shuffled = not (args.devkit or args.classes) if args.shuffle is None else bool(args.shuffle)
    plan = make_plan(classes, images, labels, args.resize, args.quality, args.seed if is_shuffled else None)
    manifest = write_set(args.prefix, plan, args.jobs, args.max_bad, args.force)
    print(
        f'{args.prefix}: {manifest["records"]} records, {len(manifest["encoded_again"])} of them encoded again because '
        'they were not JPEGs in RGB or grey, '
        f'{len(manifest["left_out"])} images left out'
    )
    return 0


def verify(args: argparse.Namespace) -> int:
    """Read the set back and log what is wrong with it; returns the exit code. Raises DataError where something is
    wrong.
    """
    found = 0
    for fault in faults(args.verify, args.jobs):
        logging.error('%s', fault)
        found += 1
    if found:
        raise DataError(f'{args.verify}: {found} faults, which the log names; make the set again')
    print(f'{args.verify}: all records are there and whole')
    return 0


if __name__ == '__main__':
    run(main)
