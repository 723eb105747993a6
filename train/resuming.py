"""Whether a run may resume from a checkpoint: its arguments and data must be those that the checkpoint was
made with.
"""

from typing import Any, Dict, Optional

from runtime.errors import CheckpointError

from .argument_kinds import ADDED_LATER, COMPUTE, OUTPUT, differing

# Arguments that may change on --resume, besides those of where a run is computed and what is kept of it.
MAY_CHANGE = COMPUTE | OUTPUT | {'num_epochs', 'finetune'}


def check_same_run(before: Dict[str, Any], now: Dict[str, Any], prefix: str) -> None:
    """Raise CheckpointError where the arguments of a run differ from those of its checkpoint in more than MAY_CHANGE,
    or its schedule depends on the number of epochs and that has changed.
    """
    before, now = {**ADDED_LATER, **_of_whole_group(before)}, _of_whole_group(now)
    if now['lr_schedule'] != 'step' and before['num_epochs'] != now['num_epochs']:
        raise CheckpointError(
            f'--num-epochs was {before["num_epochs"]} and is {now["num_epochs"]} now: --lr-schedule '
            f'{now["lr_schedule"]} falls to 0 over the whole run, so its length must stay; resume with the same, or '
            'start a new run from its weights with --finetune'
        )
    different = differing(before, now, MAY_CHANGE)
    if different:
        listed = ', '.join(f'--{name.replace("_", "-")} {before.get(name)} (now {now.get(name)})' for name in different)
        raise CheckpointError(
            f'{prefix} was trained with {listed}; resume with the same, or start a new run from its weights with '
            '--finetune'
        )


def check_same_data(before: Optional[Dict[str, Any]], now: Optional[Dict[str, Any]], prefix: str) -> None:
    """Raise CheckpointError where the training images of a run are not those of its checkpoint, by their fingerprints;
    None: not known.
    """
    if before and now and before != now:
        raise CheckpointError(
            f'{prefix} was trained on {before["images"]} images with checksum {before["sha256"][:12]}, and there are '
            f'{now["images"]} with {now["sha256"][:12]} now; resume with the same data, or start a new run from its '
            'weights with --finetune'
        )


def _of_whole_group(arguments):
    """With the batch and the rate of all workers together: two workers with 32 images each may go on as one with 64."""
    workers = arguments.get('num_workers', 1)
    return {
        **arguments,
        'batch_size': arguments['batch_size'] * workers,
        'lr': arguments['lr'] * (workers if arguments.get('scale_lr') else 1),
    }
