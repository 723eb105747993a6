"""Compare two trained networks, whatever they are stored as: tensor by tensor, on the same inputs, and on a data set.

    python tools/compare_checkpoints.py run/resnet20:160 run/resnet20:159
    python tools/compare_checkpoints.py resnet20-12fca82f.th converted:0 --data cifar10
    python tools/compare_checkpoints.py full:160 stripped:0 --outputs-only

Exit code: 0 equal within the tolerance, 1 different, 2 one of them cannot be read.
"""

import argparse
import json
import math

import numpy as np

from interop.compare import ONLY_A, ONLY_B, OTHER_SHAPE, SAME_SHAPE, comparable_params, compare_outputs, compare_tensors
from interop.models import read_model
from runtime.cli import run
from runtime.errors import UserError
from symbols import parse_image_shape
from train.data.augment import RGB_MEAN, RGB_STD
from train.data.datasets import DATASETS, eval_iterator, load_dataset
from train.evaluation import score

SHOWN = 10
SOURCES = """PREFIX:EPOCH or PREFIX,EPOCH (MXNet), a .params file (MXNet's or GluonCV's), .pth, .pt, .th or
.safetensors (PyTorch state dicts), .onnx, or the name of a GluonCV network, whose weights are then fetched"""


def parser():
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=f'A and B: {" ".join(SOURCES.split())}.')
    made.add_argument('a', metavar='A', help='the one network; see below for what it can be')
    made.add_argument('b', metavar='B', help='the other one')
    made.add_argument(
        '--tolerance',
        type=float,
        default=1e-4,
        help='relative difference, of each tensor and of the outputs, up to which they are equal '
        '(default: 1e-4, what another runtime costs)',
    )
    made.add_argument(
        '--outputs-only',
        action='store_true',
        help='let the outputs alone decide: full against stripped, BN folded against not',
    )
    made.add_argument(
        '--num-inputs', type=_positive, default=16, metavar='N', help='images of noise to compute on (default: 16)'
    )
    made.add_argument('--seed', type=int, default=0, help='of the noise (default: 0)')
    made.add_argument('--image-shape', help='channels,height,width of the noise (default: what A says, or else B)')
    made.add_argument(
        '--data',
        choices=[name for name in DATASETS if name != 'synthetic'],
        help='also give the accuracy of both on its test images',
    )
    made.add_argument('--data-dir', metavar='FOLDER', help="CIFAR files that you already have (default: MXNet's cache)")
    made.add_argument(
        '--rgb-mean',
        type=_numbers,
        default=RGB_MEAN,
        metavar='R,G,B',
        help='subtracted from pixels of 0..255 (default: as in training)',
    )
    made.add_argument(
        '--rgb-std',
        type=_numbers,
        default=RGB_STD,
        metavar='R,G,B',
        help='what pixels are then divided by (default: as in training)',
    )
    made.add_argument('--all', action='store_true', help=f'list every tensor, not the {SHOWN} that differ most')
    made.add_argument('--json', action='store_true', help='print one object')
    return made


def main(argv=None):
    args = parser().parse_args(argv)
    a, b = read_model(args.a), read_model(args.b)
    report = compared(a.by_graph_of(b), b.by_graph_of(a), args)
    print(json.dumps(_plain(report), indent=2) if args.json else text(report, args.all))
    return 0 if report['equal'] else 1


def compared(a, b, args):
    """Everything that was found out about two Models, as a dict that JSON can hold but for infinities."""
    params_a, params_b, note = comparable_params(a, b)
    tensors = compare_tensors(params_a, params_b)
    report = {
        'a': {'source': a.source, 'is': a.description},
        'b': {'source': b.source, 'is': b.description},
        'tolerance': args.tolerance,
        'note': note,
        'tensors': [row._asdict() for row in tensors],
        'outputs': None,
        'outputs_missing': None,
        'accuracy': None,
    }
    same_tensors = all(row.relative <= args.tolerance for row in tensors)
    try:
        shape = _noise_shape(a, b, args)
        report['outputs'] = dict(
            compare_outputs(a, b, shape, args.num_inputs, args.seed)._asdict(), image_shape=shape, seed=args.seed
        )
    except UserError as error:
        report['outputs_missing'] = str(error)
    if args.data:
        report['accuracy'] = accuracies(a, b, args)
    # Where there is nothing to compute, the tensors decide alone.
    same_outputs = report['outputs']['relative'] <= args.tolerance if report['outputs'] else not args.outputs_only
    report['equal'] = same_outputs and (same_tensors or args.outputs_only)
    return report


def accuracies(a, b, args):
    """The share of right answers of both on the test images of ``--data``, None for one that cannot compute."""
    info = DATASETS[args.data]
    dataset = load_dataset(args.data, args.data_dir, (a.image_shape or b.image_shape) if info.any_shape else None)
    found = {'data': args.data, 'images': len(dataset.test_images)}
    for name, model in (('a', a), ('b', b)):
        iterator = eval_iterator(dataset, 100, args.rgb_mean, args.rgb_std)
        found[name] = (
            score(_probabilities(model), iterator, progress=model.source)[0]['accuracy'] if model.computes else None
        )
    return found


def text(report, every):
    """The report for people: the worst tensors first."""
    rows = report['tensors']
    count = {
        status: sum(row['status'] == status for row in rows) for status in (SAME_SHAPE, ONLY_A, ONLY_B, OTHER_SHAPE)
    }
    identical = sum(row['max_abs'] == 0 for row in rows)
    lines = [f'{name.upper()}  {report[name]["source"]} ({report[name]["is"]})' for name in 'ab']
    lines += [report['note']] if report['note'] else []
    lines.append(
        f'tensors: {count[SAME_SHAPE]} compared, {identical} of them identical; {count[ONLY_A]} only in A, '
        f'{count[ONLY_B]} only in B, '
        f'{count[OTHER_SHAPE]} of another shape'
    )
    worst = rows if every else [row for row in rows if row['max_abs'] > 0][:SHOWN]
    if worst:
        lines += [f'{"max |Δ|":>12} {"relative Δ":>12}  tensor', *map(_line, worst)]
    hidden = sum(row['max_abs'] > 0 for row in rows) - len(worst)
    lines += [f'and {hidden} more that differ; --all lists them'] if hidden > 0 else []
    return '\n'.join(
        [
            *lines,
            _outputs_line(report),
            *_accuracy_lines(report['accuracy']),
            f'{"equal" if report["equal"] else "different"} at tolerance {report["tolerance"]:g}',
        ]
    )


def _line(row):
    if row['status'] != SAME_SHAPE:
        shapes = ' and '.join(
            '×'.join(map(str, shape)) or 'a scalar' for shape in (row['shape_a'], row['shape_b']) if shape is not None
        )
        return f'{row["status"]:>25}  {row["name"]} ({shapes})'
    return f'{row["max_abs"]:>12.3g} {row["relative"]:>12.3g}  {row["name"]}'


def _outputs_line(report):
    found = report['outputs']
    if not found:
        return f'outputs: not compared, {report["outputs_missing"]}'
    return (
        f'outputs on {found["images"]} images of noise {"×".join(map(str, found["image_shape"]))} (seed '
        f'{found["seed"]}): max |Δ| {found["max_abs"]:.3g}, '
        f'relative {found["relative"]:.3g}; top-1 agrees on {round(found["images"] * found["top1_agreement"])}'
    )


def _accuracy_lines(found):
    if not found:
        return []
    scores = [
        f'{name.upper()} '
        + ('cannot compute' if found[name] is None else f'{found[name]:.4f} (error {100 * (1 - found[name]):.2f} %)')
        for name in 'ab'
    ]
    return [f'accuracy on {found["images"]} test images of {found["data"]}: {", ".join(scores)}']


def _probabilities(model):
    def predict(batch):
        logits = model.logits(batch.data[0].asnumpy()[: batch.data[0].shape[0] - (batch.pad or 0)])
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        return shifted / shifted.sum(axis=1, keepdims=True)

    return predict


def _noise_shape(a, b, args):
    shape = parse_image_shape(args.image_shape) if args.image_shape else a.image_shape or b.image_shape
    if not shape:
        raise UserError('neither A nor B says which images it takes; give --image-shape')
    return tuple(shape)


def _plain(report):
    """``report`` with None for what JSON has no number for."""
    if isinstance(report, dict):
        return {key: _plain(value) for key, value in report.items()}
    if isinstance(report, (list, tuple)):
        return [_plain(value) for value in report]
    return None if isinstance(report, float) and not math.isfinite(report) else report


def _numbers(text):
    return tuple(float(number) for number in text.split(','))


def _positive(text):
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


if __name__ == '__main__':
    run(main)
