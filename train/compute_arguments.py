"""The options of the trainers that say where and in what arithmetic a run computes, and what it shows."""

import argparse

from runtime.argument_types import above_zero, positive, processes, seed

Group = argparse._ArgumentGroup  # what add_argument_group returns; argparse has no public name for it

# Where gradients are summed: see train.distributed.group.
SERVER_STORES = ('dist_sync', 'dist_device_sync', 'dist_async')
KV_STORES = ('local', 'device', *SERVER_STORES, 'horovod')

# The flags that only --engine torch has, and what they are when they are left out: MXNet's arithmetic, as fast as the
# card can be driven.
TORCH_ONLY = {'channels_last': False, 'allow_tf32': False, 'cuda_graphs': 'auto', 'compile': 'auto'}


def add_run(group: Group) -> None:
    """Add the options of where and how a run computes, and what it shows."""
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
    group.add_argument('--gpus', type=str, help='cards to use, for example 0 or 0,1; left out: the CPU')
    group.add_argument(
        '--threads',
        type=processes,
        metavar='N',
        help='threads on the CPU; left out: OMP_NUM_THREADS or, where that is not set, one for each core that other '
        'processes leave '
        'free, watched while training. Another number rounds differently: give one to resume exactly',
    )
    group.add_argument(
        '--cpus',
        type=processes,
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
        type=above_zero,
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
        type=above_zero,
        default=300,
        metavar='SECONDS',
        help='end a run of several workers when nothing moves for so long',
    )
    group.add_argument(
        '--seed',
        type=seed,
        default=0,
        help='one seed for initial weights, order, augmentation and dropout: the same seed, the same run',
    )
    group.add_argument(
        '--disp-batches', type=positive, default=50, help='batches between two lines of speed in the log'
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


def add_torch(group: Group) -> None:
    """Add the options that only ``--engine torch`` has."""
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
