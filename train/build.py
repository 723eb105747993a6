"""Build the network, the optimizer and the engine that the command line asks for, and check its arguments."""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from typing import TYPE_CHECKING, Any, Dict, List, Sequence, Type

from formats.symbol_file import load_symbol
from formats.symbol_operators import first_line
from formats.symbol_shapes import check_shapes
from graphs.classifier import with_classes
from graphs.complexity import complexity
from graphs.for_training import normalised_alone, with_data_input
from graphs.half import half
from graphs.lambdas import lambda_layout, with_initial_lambda
from graphs.losses import smoothed
from graphs.memonger import recomputed
from runtime import mx
from runtime.devices import contexts
from runtime.errors import GraphError, MissingDependencyError, TrainingError, UserError
from symbols import get_symbol
from symbols.scaling import KINDS, parse_kinds

from .compute_arguments import TORCH_ONLY
from .distributed.group import ALONE, Alone, check_group
from .engines.interface import Batches, Engine
from .engines.mxnet import MXNetEngine
from .engines.mxnet_half import HalfEngine
from .finetune import name_checkpoint
from .log import versions
from .selection import Selection

if TYPE_CHECKING:  # PyTorch may not be installed
    from .engines.torch import TorchEngine
    from .engines.torch_arithmetic import Arithmetic


def network(args: argparse.Namespace, image_shape: Sequence[int], num_classes: int) -> mx.sym.Symbol:
    """The symbol that ``--network`` asks for: built, or read from a -symbol.json file. Raises GraphError where it does
    not fit images of ``image_shape`` (C, H, W) or ``num_classes``.
    """
    if args.network.endswith('.json'):
        parse_kinds(args.scale or '', KINDS, args.network)
        symbol = with_data_input(load_symbol(args.network))
        if args.finetune:
            symbol = with_classes(symbol, num_classes)
        check_shapes(symbol, {'data': (1, *image_shape)}, args.network)
        symbol = normalised_alone(symbol)
    else:
        symbol = get_symbol(
            args.network,
            args.num_layers,
            num_classes,
            image_shape,
            args.scale,
            args.lambda_placement,
            _stem(args),
        )
    _check_fits_data(symbol, args.network, image_shape, num_classes)
    if args.label_smoothing:
        symbol = smoothed(symbol, args.label_smoothing, num_classes)
    return with_initial_lambda(symbol, args.lambda_init)


def _stem(args):
    """The stride of a small stem that ``--stem`` asks for; train_cifar.py has no such flag: its networks are for small
    images.
    """
    stem = str(getattr(args, 'stem', None))
    return int(stem) if stem.isdecimal() else None


def make_optimizer(
    args: argparse.Namespace, symbol: mx.sym.Symbol, batches_per_epoch: int, group: Alone = ALONE
) -> mx.optimizer.Optimizer:
    """APG with the authors' step schedule; ``--optimizer nag`` is APG without its penalty."""
    rate = args.lr * group.size if args.scale_lr else args.lr
    from optimizers import rules  # loads MXNet, so not before the command line is read

    scheduler = _schedule(args, rate, batches_per_epoch * group.updates_per_step)
    images = args.batch_size * group.size // group.updates_per_step
    optimizer = rules.create(
        args.lambda_rule,
        symbol,
        gamma=args.gamma if args.optimizer == 'apg' else 0.0,
        momentum=args.mom,
        wd=args.wd,
        learning_rate=rate,
        lr_scheduler=scheduler,
        rescale_grad=1 / images,
        clip_gradient=args.clip_gradient,
        first_rate_late=args.first_rate_late,
        param_idx2name={},
    )
    # An optimizer that Module did not make itself learns the parameters' names too late to leave biases and β without
    # decay, as MXNet does.
    optimizer.set_wd_mult({name: 0.0 for name in symbol.list_arguments() if not name.endswith(('_weight', '_gamma'))})
    return optimizer


def _schedule(args, rate, updates_per_epoch):
    """The learning rate by the number of updates, as one of MXNet's schedulers."""
    warmup = int(args.warmup_epochs * updates_per_epoch)
    updates = args.num_epochs * updates_per_epoch
    if args.lr_schedule == 'step':
        # MXNet's scheduler wants at least one step.
        steps = [epoch * updates_per_epoch for epoch in args.lr_step_epochs] or [sys.maxsize]
        return mx.lr_scheduler.MultiFactorScheduler(steps, args.lr_factor, rate, warmup_steps=warmup)
    if warmup >= updates:
        raise UserError(
            f'--warmup-epochs {args.warmup_epochs:g} leaves no epoch of --num-epochs {args.num_epochs} for '
            f'--lr-schedule {args.lr_schedule}'
        )
    if args.lr_schedule == 'cosine':
        return mx.lr_scheduler.CosineScheduler(updates, rate, warmup_steps=warmup)
    return mx.lr_scheduler.PolyScheduler(updates, rate, pwr=1, warmup_steps=warmup)


def cumulative_shrinkage(
    args: argparse.Namespace, optimizer: mx.optimizer.Optimizer, batches_per_epoch: int, group: Alone = ALONE
) -> List[float]:
    """How much γ alone has shrunk a λ by the end of each epoch: the sum of η γ / (1 - μ) over the steps of APG.

    A λ that starts at 1 reaches 0 where this sum reaches 1. Empty where the rule does not shrink λ.
    """
    if not optimizer.shrinkage_per_step:
        return []

    updates = batches_per_epoch * group.updates_per_step
    schedule = _schedule(args, optimizer.lr, updates)  # a new one: MXNet's schedulers remember how far they were asked
    rates = (schedule(int((epoch + 0.5) * updates)) for epoch in range(args.num_epochs))
    return list(itertools.accumulate(updates * optimizer.shrinkage_per_step * rate for rate in rates))


def make_engine(args: argparse.Namespace, symbol: mx.sym.Symbol, data: Batches, group: Alone = ALONE) -> Engine:
    """The engine of ``--engine``, bound to the shapes of the iterator ``data``."""
    if args.engine == 'torch':
        image = (1, *data.provide_data[0].shape[1:])
        # A pass backward costs two passes forward.
        macs = 3 * complexity(symbol, {'data': image}).macs * args.batch_size * len(data) * args.num_epochs
        return _torch_engine()(symbol, args.gpus, data.provide_data, data.provide_label, _arithmetic(args), macs)
    return mxnet_engine(
        symbol,
        group.devices(contexts(args.gpus, args.cpus)),
        data.provide_data,
        data.provide_label,
        group.store,
        group,
        dtype=args.dtype,
        memonger=args.memonger,
    )


def mxnet_engine(
    symbol: mx.sym.Symbol, devices: List[mx.Context], *others: Any, dtype: str = 'float32', memonger: bool = False
) -> MXNetEngine:
    """``MXNetEngine(symbol, devices, *others)``, or an engine that computes the same in ``dtype``. With ``memonger``,
    feature maps are computed twice instead of kept.
    """
    engine = MXNetEngine
    if dtype == 'float16':
        symbol, engine = half(symbol, wide_products=devices[0].device_type == 'cpu'), HalfEngine
    return engine(recomputed(symbol) if memonger else symbol, devices, *others)


def all_versions(args: argparse.Namespace) -> Dict[str, Any]:
    """What a result may depend on apart from the code: the versions that every run has, and those of its engine."""
    return {**versions(), **(_torch_engine().versions(args.gpus) if args.engine == 'torch' else {})}


def check_arguments(args: argparse.Namespace, image_shape: Sequence[int], num_classes: int) -> None:
    """Raise UserError for mistakes that do not depend on the data, before hundreds of megabytes are fetched for a run
    that cannot start.
    """
    _check_selection(args)  # before the group, which would ask for servers that a budget cannot use
    check_group(args)
    name_checkpoint(args)
    if args.model_prefix and not os.path.basename(args.model_prefix):
        raise UserError(
            f'--model-prefix {args.model_prefix}: give a name after the folder, for example '
            f'{os.path.join(args.model_prefix, "resnet")}'
        )
    if args.first_rate_late:
        _check_first_rate(args)
    if args.engine == 'torch':
        if args.memonger:
            raise UserError('--memonger 1 needs --engine mxnet')
        _torch_engine().check(args.gpus, _arithmetic(args))
    else:
        _check_torch_only(args)
        devices = len(contexts(args.gpus, args.cpus))
        if args.kv_store != 'horovod' and args.batch_size % devices:
            raise UserError(
                f'--batch-size {args.batch_size} cannot be divided into equal shares for {devices} devices; it is the '
                'total of this machine'
            )
    symbol = network(args, image_shape, num_classes)
    if args.optimizer == 'apg' and not lambda_layout(symbol):
        raise TrainingError(
            'this network has no λ, so --optimizer apg has nothing to select; choose structures with --scale, or train '
            'a baseline with '
            '--optimizer nag'
        )
    if args.target_macs or args.target_params:
        Selection(args, symbol, {'data': (1, *image_shape)})
    if args.dtype == 'float16' and args.engine == 'mxnet':
        half(symbol)
    make_optimizer(args, symbol, batches_per_epoch=1)


def _check_first_rate(args):
    flag = '--exact-pipeline 1' if getattr(args, 'exact_pipeline', 0) else '--first-rate-late'
    if args.engine != 'mxnet':
        raise UserError(f'{flag} needs --engine mxnet')
    if args.kv_store not in ('local', 'device'):
        raise UserError(f'{flag} needs --kv-store local or device: {args.kv_store} has no first parameter')


def _check_selection(args):
    budget = next((name for name in ('target_macs', 'target_params') if getattr(args, name)), None)
    wish = (
        f'--{budget.replace("_", "-")}'
        if budget
        else '--freeze-dead'
        if args.freeze_dead
        else '--shrink'
        if args.shrink
        else f'--gamma-weight {args.gamma_weight}'
        if args.gamma_weight != 'none'
        else None
    )
    if args.target_macs and args.target_params:
        raise UserError('--target-macs and --target-params are two budgets; give one')
    if wish and args.optimizer != 'apg':
        raise UserError(f'{wish} needs --optimizer apg: {args.optimizer} selects nothing')
    if wish and args.kv_store not in ('local', 'device'):
        raise UserError(
            f'{wish} does not work with --kv-store {args.kv_store} yet; use --kv-store local or device on one machine'
        )
    if args.gamma_weight != 'none' and args.lambda_rule == 'group-lasso':
        raise UserError(
            f'--gamma-weight {args.gamma_weight} needs another --lambda-rule: group-lasso penalises weights'
        )
    if args.shrink and not (args.freeze_dead or budget):
        raise UserError('--shrink needs --freeze-dead or a target: without them, dead structures may come back')
    if args.shrink and args.lambda_placement != 'weight':
        raise UserError('--shrink needs --lambda-placement weight')
    if budget and args.lambda_rule not in ('apg', 'ista'):
        raise UserError(f'{wish} needs --lambda-rule apg or ista: {args.lambda_rule} does not let λ fall to 0')


def _torch_engine() -> Type[TorchEngine]:
    try:
        from .engines.torch import TorchEngine
    except ImportError as error:
        raise MissingDependencyError(
            f'--engine torch needs PyTorch ({error}); install it with make venv EXTRAS=torch'
        ) from None
    return TorchEngine


def _arithmetic(args: argparse.Namespace) -> Arithmetic:
    # Imported only after _torch_engine has checked that PyTorch is installed.
    from .engines.torch_arithmetic import Arithmetic

    return Arithmetic(args.dtype, **{name: getattr(args, name) for name in TORCH_ONLY})


def _check_torch_only(args):
    if args.dtype == 'bfloat16':
        raise UserError(
            '--dtype bfloat16 needs --engine torch; MXNet has no kernels that train in it; take --dtype float16'
        )
    for name, default in TORCH_ONLY.items():
        if getattr(args, name) != default:
            raise UserError(f'--{name.replace("_", "-")} needs --engine torch')


def _check_fits_data(symbol, name, image_shape, num_classes):
    missing = sorted({'data', 'softmax_label'} - set(symbol.list_arguments()))
    if missing:
        raise GraphError(
            f'--network {name}: the symbol has no input {" and no input ".join(missing)}, so it cannot be trained'
        )
    try:
        _, outputs, _ = symbol.infer_shape_partial(data=(1, *image_shape))
    except mx.MXNetError as error:
        raise GraphError(
            f'--network {name} cannot take images of {",".join(map(str, image_shape))}: {first_line(error)}'
        ) from None
    if outputs != [(1, num_classes)]:
        raise GraphError(
            f'--network {name} has outputs of shape {outputs} for one image, the data has {num_classes} classes'
        )
    try:
        symbol.infer_shape_partial(data=(1, *image_shape), softmax_label=(1,))
    except mx.MXNetError:
        raise GraphError(
            f'--network {name}: its loss takes no label of one number, which is the class of an image; end the network '
            'in SoftmaxOutput'
        ) from None
