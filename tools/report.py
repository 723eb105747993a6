"""Write the report of a run as one HTML page: what was removed, what it cost, how fast it is, the proof, the commands.

Examples:
    python tools/report.py runs/resnet20 --out report.html
    python tools/report.py runs/resnet20 --out report.html --time
"""

import argparse
import os
from typing import Optional, Sequence

from runtime.checkpoint_argument import add_checkpoint
from runtime.cli import Parser, run
from runtime.errors import UserError
from runtime.files import write_text
from tools.reports.facts import gather
from tools.reports.page import page


def parser() -> Parser:
    """The parser of this script."""
    made = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_checkpoint(made, 'PREFIX:EPOCH, or PREFIX for the last whole checkpoint of the run under --model-prefix PREFIX')
    made.add_argument('--out', required=True, metavar='FILE', help='the page to write, FILE.html')
    made.add_argument('--image-shape', help='channels,height,width, where the symbol does not say it')
    made.add_argument('--time', action='store_true', help='also time both networks in every runtime that is installed')
    made.add_argument('--force', action='store_true', help='replace FILE')
    return made


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Write the report that the command line ``argv`` asks for; returns the exit code."""
    args = parser().parse_args(argv)
    if os.path.exists(args.out) and not args.force:
        raise UserError(f'{args.out} exists: give another --out, or --force to replace it')
    write_text(args.out, page(gather(args.checkpoint, args.image_shape, args.time)))
    print(args.out)
    return 0


if __name__ == '__main__':
    run(main)
