"""``PREFIX-metrics.jsonl``, one JSON object for each epoch of a run, as ``train.log`` writes it."""

from typing import Any, Dict, List, Sequence

from runtime.errors import DataError
from runtime.reading import MB, read_json_lines

from .json_shape import ANY, misfit

# Every λ of every epoch: ResNet-152 over 200 epochs has 20 MB.
MAX_BYTES = 256 * MB
MAX_EPOCH = 1_000_000
COST = {'macs': float, 'params?': float}
EPOCH = {
    'epoch?': int,
    'train?': {'accuracy': float, 'cross-entropy': float},
    'validation': {'accuracy': float, 'cross-entropy?': float},
    'validation_images?': int,
    'seconds?': float,
    'samples_per_second?': float,
    'alive?': COST,
    'full?': COST,
    'lambda?': {ANY: {'alive': int, 'total': int}},
    'lambda_values?': {ANY: {'stages': [int], 'values': [float]}},
}


def read_metrics(path: str, needs: Sequence[str] = ('epoch',)) -> List[Dict[str, Any]]:
    """The epochs of a run, each a dict that has the keys ``needs`` and 'validation'.

    Raises DataError where the file is missing, empty or not of this trainer.
    """
    records = read_json_lines(path, MAX_BYTES, missing='train with --model-prefix to have one')
    if not records:
        raise DataError(f'{path}: no epoch is finished yet')
    for number, record in enumerate(records, 1):
        reason = misfit(record, EPOCH) or _trouble(record, needs)
        if not reason and ('lambda_values' in record) != ('lambda_values' in records[0]):
            reason = 'only some epochs have λ'
        if reason:
            raise DataError(f'{path}: line {number} is not an epoch of a training run ({reason})')
    return records


def _trouble(record, needs):
    """What is wrong with the values of an epoch whose shape is right; None where nothing is."""
    missing = [name for name in needs if name not in record]
    if missing:
        return f'it has no {missing[0]!r}'
    if not 0 <= record.get('epoch', 0) <= MAX_EPOCH:
        return f'epoch is not 0 … {MAX_EPOCH:,}'
    if 'lambda_values' in record and not {'alive', 'full'} <= record.keys():
        return 'it has λ, but no alive and full structure'
    if record.get('full', {'macs': 1})['macs'] <= 0:
        return 'full.macs is not above 0'
    for name, vector in record.get('lambda_values', {}).items():
        if not vector['stages'] or not vector['values'] or len(vector['values']) % len(vector['stages']):
            return f'{name} does not have as many values for each of its stages'
    return None
