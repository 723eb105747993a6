"""The results of runs as tools/sweep.py leaves them, as far as tables and figures read them."""

import json
import os


def result(**changes):
    """What a run leaves behind, as far as tables read it."""
    arguments = {
        'network': 'resnet',
        'num_layers': 20,
        'dataset': 'cifar10',
        'optimizer': 'apg',
        'lambda_rule': 'apg',
        'gamma': 0.02,
        'num_epochs': 30,
        'scale': 'block',
        **changes.pop('arguments', {}),
    }
    full = {'params_without_bn': 200_000, 'macs': 40_000_000, 'bias_adds': 10}
    return {
        'recipe': 'train/recipes/cifar10/resnet20-sss.args',
        'overrides': [],
        'date': '2020-01-01T00:00:00+00:00',
        'arguments': arguments,
        'full': full,
        'left': {'params_without_bn': 150_000, 'macs': 20_000_000, 'bias_adds': 10},
        'blocks': [1, 2, 2],
        'error': {'top1': 9.25, 'unstripped': 9.25, 'top5': 0.5},
        'alive': {'block': {'alive': 5, 'total': 6}},
        **changes,
    }


def write_result(folder, name, **changes):
    path = os.path.join(str(folder), name)
    os.makedirs(path)
    with open(os.path.join(path, 'result.json'), 'w') as out:
        json.dump(result(**changes), out)
    return path


def write_epochs(folder, accuracies):
    """The metrics of a run of 100 batches of 128 images an epoch, whose λ did not move."""
    with open(os.path.join(folder, 'run-metrics.jsonl'), 'w') as out:
        for epoch, accuracy in enumerate(accuracies):
            values = {'lambda_block': {'stages': [1, 1, 2], 'values': [0, 0.5, 1]}}
            record = {
                'epoch': epoch,
                'validation': {'accuracy': accuracy},
                'lambda_values': values,
                'alive': {'macs': 3},
                'full': {'macs': 4},
                'lambda': {'block': {'alive': 2, 'total': 3}},
                'seconds': 6.4,
                'samples_per_second': 2000.0,
            }
            out.write(json.dumps(record) + '\n')
