"""The command line that both training scripts share. Flags have the names that MXNet's own image-classification scripts
gave them.
"""

import argparse

from optimizers.rules import RULES
from runtime.errors import UserError
from symbols import NETWORKS
from symbols.scaling import PLACEMENTS

# Where gradients are summed: see train.distributed.group.
SERVER_STORES = ('dist_sync', 'dist_device_sync', 'dist_async')
KV_STORES = ('local', 'device', *SERVER_STORES, 'horovod')

# The flags that only --engine torch has, and what they are when they are left out: MXNet's arithmetic, as fast as the
# card can be driven.
TORCH_ONLY = {'channels_last': False, 'allow_tf32': False, 'cuda_graphs': 'auto', 'compile': 'auto'}


def training_parser(description):
    """A parser with every flag of the network, the optimizer and the run; ``@FILE`` on the command line reads flags
    from FILE (a recipe).
    """
    parser = RecipeParser(
        description=description, fromfile_prefix_chars='@', formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    _add_network(parser.add_argument_group('network'))
    _add_optimizer(parser.add_argument_group('optimizer'))
    _add_selection(parser.add_argument_group('selection'))
    _add_run(parser.add_argument_group('run'))
    _add_checkpoints(parser.add_argument_group('checkpoints'))
    _add_torch(parser.add_argument_group('only with --engine torch'))
    return parser


class RecipeParser(argparse.ArgumentParser):
    """A parser whose ``@FILE`` may hold several flags a line, blank lines and comments, and whose errors are
    UserErrors: one line, no page of usage.
    """

    def error(self, message):
        raise UserError(f'{message} (--help explains)')

    def convert_arg_line_to_args(self, arg_line):
        return arg_line.split('#')[0].split()


def _add_network(group):
    group.add_argument(
        '--network',
        default='resnet',
        help=f'a family ({", ".join(NETWORKS)}), or a -symbol.json file, such as a stripped network',
    )
    group.add_argument('--num-layers', type=int, default=20, help='depth of the network')
    group.add_argument(
        '--scale',
        help="which structures get a λ: block, group, neuron, separated by commas, or none; left out: the paper's "
        'choice',
    )
    group.add_argument(
        '--lambda-placement',
        choices=PLACEMENTS,
        default='weight',
        help='weight folds λ into the parameters beside it (as fast as without λ); output multiplies the feature map '
        "(the authors' graph)",
    )


def _add_optimizer(group):
    group.add_argument(
        '--optimizer',
        choices=('apg', 'nag'),
        default='apg',
        help='apg: λ by accelerated proximal gradient; nag: the same without the L1 penalty, for a baseline',
    )
    group.add_argument(
        '--lambda-rule',
        choices=tuple(RULES),
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
        type=_above_zero,
        default=1.0,
        metavar='L',
        help='initial value of every λ: a smaller one needs fewer steps to reach 0; the paper and its follow-up start '
        'at 1',
    )
    group.add_argument('--mom', type=float, default=0.9, help='momentum μ of λ and the weights')
    group.add_argument('--wd', type=_not_negative, default=1e-4, help='weight decay; λ has none')
    group.add_argument('--clip-gradient', type=_above_zero, help='clip each gradient to [-c, c]')
    group.add_argument(
        '--lr', type=_not_negative, default=0.1, help='initial learning rate η; the threshold of λ is η γ'
    )
    group.add_argument(
        '--lr-schedule',
        choices=('step', 'linear', 'cosine'),
        default='step',
        help='step: the rate drops at --lr-step-epochs; linear, cosine: it falls to 0 over the whole run, which suits '
        'short runs',
    )
    group.add_argument(
        '--lr-factor', type=_fraction, default=0.1, help='the learning rate is multiplied by this at each step'
    )
    group.add_argument(
        '--lr-step-epochs',
        type=_increasing,
        default='120,160',
        help='epochs at which the learning rate steps, for example 30,60,90',
    )
    group.add_argument(
        '--warmup-epochs',
        type=_not_negative,
        default=0,
        help='raise the rate linearly from 0 over these epochs; large batches need it',
    )
    group.add_argument(
        '--label-smoothing',
        type=_below_one,
        default=0.0,
        metavar='S',
        help='train towards 1 - S + S/K for the label and S/K for each other of K classes, instead of 1 and 0',
    )
    group.add_argument(
        '--batch-size', type=_positive, default=64, help='images per step, over all devices of this machine together'
    )
    group.add_argument(
        '--num-epochs', type=_positive, default=240, help='epochs in total, those before a resume counted in'
    )


def _add_selection(group):
    group.add_argument(
        '--freeze-dead',
        action='store_true',
        help='a λ that is 0 at the end of an epoch stays 0; left out: it may come back, as in the paper',
    )
    group.add_argument(
        '--shrink',
        action='store_true',
        help='rebuild the network without its dead structures at the end of an epoch, so that later epochs are faster; '
        'needs --freeze-dead or a '
        'target. Checkpoints hold the whole network all the same',
    )
    group.add_argument(
        '--target-macs',
        type=_share,
        metavar='SHARE',
        help='end at this share of the MACs, for example 0.5: in the first third of the epochs the structures of the '
        'least contribution per MAC '
        'fade to 0 and stay there; then γ is 0, and the rest heals',
    )
    group.add_argument('--target-params', type=_share, metavar='SHARE', help='the same for the number of parameters')
    group.add_argument(
        '--gamma-weight',
        choices=('none', 'macs'),
        default='none',
        help='macs: multiply γ of each λ by the MACs of its structure, over those of the most expensive one',
    )


def _add_run(group):
    group.add_argument(
        '--engine',
        choices=('mxnet', 'torch'),
        default='mxnet',
        help='what computes: torch is for cards that MXNet has no kernels for; networks, checkpoints and logs are the '
        'same',
    )
    group.add_argument(
        '--dtype',
        choices=('float32', 'bfloat16', 'float16'),
        default='float32',
        help='what convolutions and matrix products compute in; the half formats are faster on cards with tensor cores '
        'and halve the memory of '
        'activations, while λ, weights, moving statistics, loss and updates stay float32. float16 scales the loss and '
        'skips updates that '
        'overflow; bfloat16 needs --engine torch',
    )
    group.add_argument(
        '--memonger',
        type=int,
        choices=(0, 1),
        default=0,
        help='1: keep only the outputs of residual units and poolings, and compute what is inside again in the '
        'backward pass: less memory for '
        'more time, and the same results; only with --engine mxnet',
    )
    group.add_argument('--gpus', help='cards to use, for example 0 or 0,1; left out: the CPU')
    group.add_argument(
        '--threads',
        type=_positive,
        metavar='N',
        help='threads on the CPU; left out: OMP_NUM_THREADS or, where that is not set, one for each core that other '
        'processes leave '
        'free, watched while training. Another number rounds differently: give one to resume exactly',
    )
    group.add_argument(
        '--cpus',
        type=_positive,
        default=1,
        help='without --gpus: cut the batch over so many contexts on the CPU, as over cards, to try it',
    )
    group.add_argument(
        '--kv-store',
        choices=KV_STORES,
        default='local',
        help='where gradients are summed: on the CPU (local) or a card (device) of this machine; by parameter servers '
        '(dist_sync, '
        'dist_device_sync, dist_async; see train/launch.py) or horovod, for several machines',
    )
    group.add_argument(
        '--gc-type', choices=('none', '2bit'), default='none', help='compress the gradients that workers send'
    )
    group.add_argument(
        '--gc-threshold',
        type=_above_zero,
        default=0.5,
        help='2bit sends -threshold, 0 or threshold, and keeps the rest for the next step',
    )
    group.add_argument(
        '--scale-lr',
        action='store_true',
        help='multiply --lr by the number of workers, as the images of a step are; go with --warmup-epochs',
    )
    group.add_argument(
        '--dist-timeout',
        type=_above_zero,
        default=300,
        metavar='SECONDS',
        help='end a run of several workers when nothing moves for so long',
    )
    group.add_argument(
        '--seed',
        type=_seed,
        default=0,
        help='one seed for initial weights, order, augmentation and dropout: the same seed, the same run',
    )
    group.add_argument(
        '--disp-batches', type=_positive, default=50, help='batches between two lines of speed in the log'
    )
    group.add_argument(
        '--quiet',
        action='store_true',
        help='show a progress bar, warnings and the conclusion; the log goes to PREFIX.log alone',
    )
    group.add_argument(
        '--benchmark', type=int, choices=(0, 1), default=0, help='1: train on synthetic images, to measure speed'
    )
    group.add_argument(
        '--test-io', type=int, choices=(0, 1), default=0, help='1: only read the data, to measure the pipeline'
    )


def _add_checkpoints(group):
    group.add_argument(
        '--model-prefix',
        help='where to write: PREFIX-symbol.json, PREFIX-0001.params, PREFIX.log, PREFIX-metrics.jsonl; left out: '
        'nothing',
    )
    group.add_argument(
        '--keep',
        type=_positive,
        default=2,
        help='how many of the last checkpoints to keep; the best one is kept besides',
    )
    group.add_argument(
        '--resume',
        action='store_true',
        help='go on from the last checkpoint of --model-prefix, as if never interrupted',
    )
    group.add_argument('--load-epoch', type=int, help='like --resume, from the checkpoint of this epoch')
    group.add_argument(
        '--finetune',
        metavar='PREFIX,EPOCH',
        help='start from these weights (and no optimizer state); λ that they lack start at 1',
    )


def _add_torch(group):
    group.add_argument(
        '--channels-last',
        action='store_true',
        help='keep feature maps as N,H,W,C: faster for the half formats on tensor cores',
    )
    group.add_argument(
        '--allow-tf32',
        action='store_true',
        help='let float32 products round their factors to 10 bits of mantissa (TF32): faster on Ampere and later, not '
        'to be compared with MXNet',
    )
    group.add_argument(
        '--cuda-graphs',
        choices=('auto', 'on', 'off'),
        help='record a training step and replay it by one launch: small networks are bound by launches otherwise; '
        'auto: on a card, yes',
    )
    group.add_argument(
        '--compile',
        choices=('auto', 'on', 'off'),
        help='compile the training step with a C++ compiler, on the CPU: in bfloat16 about a third faster; auto: in '
        'bfloat16, where a compiler '
        'is found and the run is longer than about ten minutes',
    )
    group.set_defaults(**TORCH_ONLY)


def _positive(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number above 0')
    return int(text)


def _seed(text):
    if not text.isdecimal() or int(text) >= 2**31:
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number from 0 to 2147483647')
    return int(text)


def _not_negative(text):
    return _number_within(text, lambda value: 0 <= value < float('inf'), 'a number of at least 0')


def _above_zero(text):
    return _number_within(text, lambda value: 0 < value < float('inf'), 'a number above 0')


def _fraction(text):
    return _number_within(text, lambda value: 0 < value <= 1, 'a number above 0, and 1 at most')


def _below_one(text):
    return _number_within(text, lambda value: 0 <= value < 1, 'a number of at least 0, and below 1')


def _number_within(text, is_possible, description):
    try:
        if is_possible(float(text)):
            return float(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f'{text!r} is not {description}')


def _share(text):
    return _number_within(text, lambda value: 0 < value <= 1, 'a share: a number above 0, and 1 at most')


def _increasing(text):
    epochs = [int(epoch) if epoch.isdecimal() else 0 for epoch in text.split(',') if epoch]
    if 0 in epochs or sorted(set(epochs)) != epochs:
        raise argparse.ArgumentTypeError(f'{text!r} is not increasing epochs, for example 30,60,90')
    return epochs
