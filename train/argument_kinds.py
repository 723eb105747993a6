"""What each argument of the trainers decides: which network is trained and how, what selects its structure, where it is
computed, or what is kept of it.

Resuming, baselines, tables and figures all use this table.
"""

import re
from typing import Any, Dict, Iterable, List, Tuple

# What is trained, by which schedule, on which data.
IDENTITY = {
    'network',
    'num_layers',
    'stem',
    'dataset',
    'image_shape',
    'num_classes',
    'num_examples',
    'augment',
    'rgb_mean',
    'rgb_std',
    'brightness',
    'contrast',
    'saturation',
    'pca_noise',
    'random_mirror',
    'min_random_area',
    'resize',
    'exact_pipeline',
    'batch_size',
    'num_epochs',
    'finetune',
    'lr',
    'lr_schedule',
    'lr_factor',
    'first_rate_late',
    'lr_step_epochs',
    'warmup_epochs',
    'label_smoothing',
    'mom',
    'wd',
    'clip_gradient',
    'benchmark',
}
# What selects a structure: a run may differ in these from the baseline that it is compared with.
SELECTION = {
    'optimizer',
    'lambda_rule',
    'gamma',
    'gamma_weight',
    'scale',
    'lambda_placement',
    'lambda_init',
    'freeze_dead',
    'target_macs',
    'target_params',
    'seed',
}
# Where and in what arithmetic it is computed, and where the data is.
COMPUTE = {
    'engine',
    'gpus',
    'cpus',
    'threads',
    'kv_store',
    'gc_type',
    'gc_threshold',
    'scale_lr',
    'dist_timeout',
    'num_workers',
    'dtype',
    'memonger',
    'channels_last',
    'allow_tf32',
    'cuda_graphs',
    'compile',
    'shrink',
    'data_dir',
    'data_train',
    'data_train_idx',
    'data_val',
    'data_val_idx',
    'data_nthreads',
    'max_bad',
}
# What is shown and kept.
OUTPUT = {'disp_batches', 'keep', 'model_prefix', 'resume', 'load_epoch', 'test_io', 'quiet'}

# Arguments that older runs did not have, and the values that these runs used.
ADDED_LATER = {
    'lr_schedule': 'step',
    'label_smoothing': 0.0,
    'lambda_init': 1.0,
    'freeze_dead': False,
    'target_macs': None,
    'target_params': None,
    'gamma_weight': 'none',
    'first_rate_late': False,
    'exact_pipeline': 0,
    'stem': None,
}


def differing(before: Dict[str, Any], now: Dict[str, Any], may_differ: Iterable[str]) -> List[str]:
    """The names of the arguments, sorted, in which two runs differ, without those that ``may_differ``."""
    may_differ = set(may_differ)
    before, now = ({**ADDED_LATER, **_in_new_spelling(arguments)} for arguments in (before, now))
    return sorted(
        name for name in set(before) | set(now) if name not in may_differ and before.get(name) != now.get(name)
    )


def _in_new_spelling(arguments: Dict[str, Any]) -> Dict[str, Any]:
    """``arguments`` of an older run, whose ``--finetune`` may be PREFIX,EPOCH."""
    finetune = arguments.get('finetune')
    return {**arguments, 'finetune': re.sub(r',(\d+)$', r':\1', finetune)} if finetune else arguments


def flags(names: Iterable[str]) -> Tuple[str, ...]:
    """Names of arguments as flags of the command line."""
    return tuple(f'--{name.replace("_", "-")}' for name in sorted(names))
