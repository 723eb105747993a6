"""Seeds of the files around networks (metrics, recipes, manifests, results, indices, tar files, development kits), and
how their JSON is spoilt.
"""

import gzip
import io
import json
import tarfile

import numpy as np
from scipy.io import savemat

from formats.manifest import sealed

COST = {'params_without_bn': 200_000, 'macs': 40_000_000, 'bias_adds': 10}
EPOCH = {
    'epoch': 0,
    'train': {'accuracy': 0.5, 'cross-entropy': 1.5},
    'validation': {'accuracy': 0.4, 'cross-entropy': 1.75},
    'validation_images': 64,
    'seconds': 6.5,
    'samples_per_second': 2000.0,
    'alive': {'params': 3, 'macs': 3},
    'full': {'params': 4, 'macs': 4},
    'lambda': {'block': {'alive': 2, 'total': 3, 'stages': {'1': [1, 2], '2': [1, 1]}}},
    'lambda_values': {'lambda_block': {'stages': [1, 1, 2], 'values': [0, 0.5, 1]}},
}
RESULT = {
    'recipe': 'train/recipes/cifar10/resnet20-sss.args',
    'overrides': ['--gamma', '0.02'],
    'date': '2020-01-01T00:00:00+00:00',
    'arguments': {
        'network': 'resnet',
        'num_layers': 20,
        'num_epochs': 30,
        'optimizer': 'apg',
        'lambda_rule': 'apg',
        'gamma': 0.02,
    },
    'full': COST,
    'left': COST,
    'blocks': [1, 2, 2],
    'error': {'top1': 9.25, 'top5': 0.5},
    'alive': {'block': {'alive': 5, 'total': 6}},
}
RECORDS = {
    'records': 2,
    'classes': ['a', 'b'],
    'records_per_class': [1, 1],
    'files': {ending: {'bytes': 10, 'sha256': '0' * 64} for ending in ('rec', 'idx', 'lst')},
}
STATE = {'num_update': 5, 'optimizer_state': {'w': {'tuple': [{'array': 'w/0'}, None]}}, 'epoch': 1, 'batch': 0}
RECIPE = b'# python train/train_cifar.py @x.args\n--lr 0.1 --gamma 0.01  # a comment\n\n--num-epochs 3\n'


def text_seeds():
    """Valid files by kind, as bytes; those of JSON as lists of the values of their lines."""
    inner = _tar({'1.jpg': b'x' * 600, '2.jpg': b'y'})
    return {
        'metrics': [[EPOCH, {**EPOCH, 'epoch': 1}]],
        'result': [[RESULT]],
        'record manifest': [[RECORDS]],
        'manifest': [[sealed(STATE)]],
        'recipe': [RECIPE],
        'idx': [b''.join(b'%d\t%d\n' % (key, 200 * key) for key in range(20))],
        'tar': [_tar({'a.tar': inner, 'b.tar': inner}), _tar({'a/1.jpg': b'x', 'b/2.jpg': b'y', 'a/note': b''})],
        'packed tar': [gzip.compress(inner, mtime=0)],
        'matlab': [_matlab(packed) for packed in (True, False)],
    }


def mutated_lines(rng, values, junk):
    """The lines of a JSON file with one to three values, at any depth, replaced by one of ``junk`` or removed."""
    lines = json.loads(json.dumps(values))
    for _ in range(rng.randint(1, 3)):
        holder = lines
        while True:
            keys = list(holder) if isinstance(holder, dict) else range(len(holder))
            if not keys:
                break
            key = rng.choice(keys)
            if isinstance(holder[key], (dict, list)) and rng.random() < 0.8:
                holder = holder[key]
                continue
            if rng.random() < 0.2:
                del holder[key]
            else:
                holder[key] = json.loads(json.dumps(rng.choice(junk)))  # a copy: it may be spoilt too
            break
    return b''.join(json.dumps(line).encode() + b'\n' for line in lines)


def _tar(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w') as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _matlab(packed):
    table = np.zeros((2, 1), [('ID', object), ('WNID', object)])
    for row in range(2):
        table[row, 0] = np.array([[row]], np.uint16), f'n{row:08d}'
    out = io.BytesIO()
    savemat(out, {'synsets': table}, do_compression=packed)
    # The header tells the time.
    return b' ' * 116 + out.getvalue()[116:]
