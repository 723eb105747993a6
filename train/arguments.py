"""The command line that both training scripts share. Flags have the names that MXNet's own image-classification scripts
gave them.
"""

import sys
from typing import Any, Optional, Sequence

from formats.recipe_file import expanded
from runtime.argument_types import (
    above_zero,
    below_one,
    factor,
    increasing,
    not_negative,
    positive,
    share,
    up_to,
    whole,
)
from runtime.checkpoint_argument import checkpoint_name
from runtime.cli import DefaultsShown, Parser
from symbols import NETWORKS
from symbols.scaling import PLACEMENTS, in_papers_words

from .compute_arguments import Group, add_run, add_torch

MOST_EPOCHS = 100_000
# The keys of optimizers.rules.RULES, which cannot be imported without MXNet.
LAMBDA_RULES = ('apg', 'ista', 'subgradient', 'group-lasso')


def training_parser(description: Optional[str]) -> 'RecipeParser':
    """A parser with every flag of the network, the optimizer and the run; ``@FILE`` on the command line reads flags
    from FILE (a recipe).
    """
    parser = RecipeParser(description=description, formatter_class=DefaultsShown)
    _add_network(parser.add_argument_group('network'))
    _add_optimizer(parser.add_argument_group('optimizer'))
    _add_selection(parser.add_argument_group('selection'))
    add_run(parser.add_argument_group('run'))
    _add_checkpoints(parser.add_argument_group('checkpoints'))
    add_torch(parser.add_argument_group('only with --engine torch'))
    return parser


class RecipeParser(Parser):
    """A parser whose ``@FILE`` may hold several flags a line, blank lines and comments."""

    def parse_known_args(self, args: Optional[Sequence[str]] = None, namespace: Any = None) -> Any:
        """As in argparse, recipes read."""
        return super().parse_known_args(expanded(sys.argv[1:] if args is None else args), namespace)


def _add_network(group: Group) -> None:
    group.add_argument(
        '--network',
        default='resnet',
        help=f'a family ({", ".join(NETWORKS)}); or a checkpoint, PREFIX:EPOCH, or PREFIX for the last whole one, '
        'whose parameters the run starts from; or a -symbol.json file alone',
    )
    group.add_argument('--num-layers', type=positive, default=20, help='depth of the network')
    group.add_argument(
        '--scale',
        type=in_papers_words,
        help='which structures get a λ: block, group, channel (neuron, in the paper), separated by commas, or none; '
        "left out: the paper's choice",
    )
    group.add_argument(
        '--lambda-placement',
        choices=PLACEMENTS,
        default='weight',
        help='weight folds λ into the parameters beside it (as fast as without λ); output multiplies the feature map, '
        "as the authors' graph does by other operators",
    )


def _add_optimizer(group: Group) -> None:
    group.add_argument(
        '--optimizer',
        choices=('apg', 'nag'),
        default='apg',
        help='apg: λ by accelerated proximal gradient; nag: the same without the L1 penalty, for a baseline',
    )
    group.add_argument(
        '--lambda-rule',
        choices=LAMBDA_RULES,
        default='apg',
        help='how λ moves under apg; the others are there to compare with: ista has no momentum, subgradient is '
        'network slimming (strip with '
        '--threshold), group-lasso puts the penalty on the weights (see optimizers/rules.py)',
    )
    group.add_argument(
        '--gamma', type=float, default=0.01, help='weight γ of the L1 penalty on λ: larger removes more structures'
    )
    group.add_argument(
        '--lambda-init',
        type=above_zero,
        default=1.0,
        metavar='L',
        help='initial value of every λ: a smaller one needs fewer steps to reach 0; the paper and its follow-up start '
        'at 1',
    )
    group.add_argument('--mom', type=float, default=0.9, help='momentum μ of λ and the weights')
    group.add_argument('--wd', type=not_negative, default=1e-4, help='weight decay; λ has none')
    group.add_argument('--clip-gradient', type=above_zero, help='clip each gradient to [-c, c]')
    group.add_argument(
        '--lr', type=not_negative, default=0.1, help='initial learning rate η; the threshold of λ is η γ'
    )
    group.add_argument(
        '--lr-schedule',
        choices=('step', 'linear', 'cosine'),
        default='step',
        help='step: the rate drops at --lr-step-epochs; linear, cosine: it falls to 0 over the whole run, which suits '
        'short runs',
    )
    group.add_argument(
        '--lr-factor', type=factor, default=0.1, help='the learning rate is multiplied by this at each step'
    )
    group.add_argument(
        '--lr-step-epochs',
        type=increasing,
        default='120,160',
        help='epochs at which the learning rate steps, for example 30,60,90',
    )
    group.add_argument(
        '--first-rate-late',
        action='store_true',
        help='the first parameter takes each change of the learning rate one update late, as in the code of the '
        'authors; needs --engine mxnet and --kv-store local or device',
    )
    group.add_argument(
        '--warmup-epochs',
        type=not_negative,
        default=0,
        help='raise the rate linearly from 0 over these epochs; large batches need it',
    )
    group.add_argument(
        '--label-smoothing',
        type=below_one,
        default=0.0,
        metavar='S',
        help='train towards 1 - S + S/K for the label and S/K for each other of K classes, instead of 1 and 0',
    )
    group.add_argument(
        '--batch-size', type=positive, default=64, help='images per step, over all devices of this machine together'
    )
    group.add_argument(
        '--num-epochs', type=up_to(MOST_EPOCHS), default=240, help='epochs in total, those before a resume counted in'
    )


def _add_selection(group: Group) -> None:
    group.add_argument(
        '--freeze-dead',
        action='store_true',
        help='a λ that is 0 at the end of an epoch stays 0; left out: it may come back, as in the paper',
    )
    group.add_argument(
        '--shrink',
        action='store_true',
        help='rebuild the network without its dead structures at the end of an epoch, when a tenth of its MACs or more '
        'are dead or nothing more is to die, so that later epochs are faster; needs --freeze-dead or a target. '
        'Checkpoints hold the whole network all the same',
    )
    group.add_argument(
        '--target-macs',
        type=share,
        metavar='SHARE',
        help='end at this share of the MACs, for example 0.5: in the first third of the epochs the structures of the '
        'least contribution per MAC '
        'fade to 0 and stay there; then γ is 0, and what is left trains on',
    )
    group.add_argument('--target-params', type=share, metavar='SHARE', help='the same for the number of parameters')
    group.add_argument(
        '--gamma-weight',
        choices=('none', 'macs', 'latency'),
        default='none',
        help='macs: multiply γ of each λ by the MACs of its structure, over those of the most expensive one; latency: '
        'by its time, measured once, when the run starts, in MXNet on the CPU',
    )


def _add_checkpoints(group: Group) -> None:
    group.add_argument(
        '--model-prefix',
        help='where to write: PREFIX-symbol.json, PREFIX-0001.params, PREFIX.log, PREFIX-metrics.jsonl; left out: '
        'nothing',
    )
    group.add_argument(
        '--keep',
        type=positive,
        default=2,
        help='how many of the last checkpoints to keep; the best one is kept besides',
    )
    group.add_argument(
        '--resume',
        action='store_true',
        help='go on from the last checkpoint of --model-prefix, as if never interrupted',
    )
    group.add_argument(
        '--load-epoch',
        '--begin-epoch',
        type=whole,
        metavar='N',
        help='like --resume, from the checkpoint of this epoch; later ones are removed. Where PREFIX-000N.params has '
        'no manifest, its weights are taken and momentum starts at 0',
    )
    group.add_argument(
        '--finetune',
        metavar='CHECKPOINT',
        type=checkpoint_name,
        help='PREFIX:EPOCH, or PREFIX for the last whole one: start from these weights (and no '
        'optimizer state); λ that they lack start at 1',
    )
