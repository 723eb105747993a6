"""Compare two trained networks of any file format: tensor by tensor, on the same inputs, and on a data set.

    python tools/compare_checkpoints.py run/resnet20:160 run/resnet20:159
    python tools/compare_checkpoints.py resnet20-12fca82f.th converted:0 --data cifar10
    python tools/compare_checkpoints.py full stripped --outputs-only

Exit code: 0 equal within the tolerance, 1 different, 2 nothing could be compared.
"""

import argparse
import json
import math
from typing import Any, Dict, Optional, Sequence

from interop.compare import ONLY_A, ONLY_B, OTHER_SHAPE, SAME_SHAPE, comparable_params, compare_models, compare_tensors
from interop.models import Model, read_model
from runtime.argument_types import divisors, image_count, not_negative, numbers, seed
from runtime.checkpoint_argument import checkpoint_name
from runtime.cli import Parser, run
from runtime.errors import UserError
from symbols import parse_image_shape
from train.data.datasets import DATASETS, load_dataset
from train.evaluation import accuracy

SHOWN = 10
SOURCES = """a checkpoint of MXNet (PREFIX:EPOCH, or PREFIX for the last whole one), a .params file (MXNet's or
GluonCV's), .pth, .pt, .th or .safetensors (PyTorch state dicts), .onnx, or the name of a GluonCV network, whose weights
are then fetched"""


def parser() -> Parser:
    """The parser of this script."""
    made = Parser(description=__doc__.splitlines()[0], epilog=f'A and B: {" ".join(SOURCES.split())}.')
    made.add_argument('a', metavar='A', type=checkpoint_name, help='the one network; see below for what it can be')
    made.add_argument('b', metavar='B', type=checkpoint_name, help='the other one')
    inputs = made.add_argument_group('what both compute on')
    inputs.add_argument(
        '--num-inputs', type=image_count, default=16, metavar='N', help='images of noise to compute on (default: 16)'
    )
    inputs.add_argument('--seed', type=seed, default=0, help='of the noise (default: 0)')
    inputs.add_argument('--image-shape', help='channels,height,width of the noise (default: what A says, or else B)')
    accuracy = made.add_argument_group('accuracy on a data set')
    accuracy.add_argument(
        '--data',
        choices=[name for name in DATASETS if name != 'synthetic'],
        help='also give the accuracy of both on its test images',
    )
    accuracy.add_argument(
        '--data-dir', metavar='FOLDER', help="CIFAR files that you already have (default: MXNet's cache)"
    )
    accuracy.add_argument(
        '--rgb-mean',
        type=numbers,
        metavar='R,G,B',
        help='subtracted from pixels of 0..255 (default: as the network says)',
    )
    accuracy.add_argument(
        '--rgb-std',
        type=divisors,
        metavar='R,G,B',
        help='what pixels are then divided by (default: as the network says)',
    )
    verdict = made.add_argument_group('what counts as equal')
    verdict.add_argument(
        '--tolerance',
        type=not_negative,
        default=1e-4,
        help='largest difference up to which they are equal: of a tensor as a part of its largest number, of an output '
        'as a part of its spread over the images (default: 1e-4, the usual difference between two runtimes)',
    )
    verdict.add_argument(
        '--outputs-only',
        action='store_true',
        help='compare only the outputs: for a full and a stripped network, or with batch normalisation folded and not',
    )
    printed = made.add_argument_group('what is printed')
    printed.add_argument('--all', action='store_true', help=f'list every tensor, not the {SHOWN} that differ most')
    printed.add_argument('--json', action='store_true', help='print one object')
    return made


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Compare as the command line ``argv`` says; returns the exit code."""
    args = parser().parse_args(argv)
    args.image_shape = parse_image_shape(args.image_shape) if args.image_shape else None
    a, b = read_model(args.a), read_model(args.b)
    report = compared(a.by_graph_of(b), b.by_graph_of(a), args)
    if args.outputs_only and not report['outputs']:
        raise UserError(f'--outputs-only has nothing to compare: {report["outputs_missing"]}')
    print(json.dumps(_plain(report), indent=2) if args.json else text(report, args.all))
    return 0 if report['equal'] else 1


def compared(a: Model, b: Model, args: argparse.Namespace) -> Dict[str, Any]:
    """Everything that was found out about two Models, as a dict that JSON can hold except for infinities."""
    params_a, params_b, note = comparable_params(a, b)
    tensors = compare_tensors(params_a, params_b)
    report: Dict[str, Any] = {
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
    same_outputs = True  # where there is nothing to compute, the tensors decide alone
    try:
        shape = _noise_shape(a, b, args)
        difference = compare_models(a, b, shape, args.num_inputs, args.seed, args.tolerance)
        same_outputs = difference.is_within(args.tolerance)
        report['outputs'] = {**_outputs(difference), 'image_shape': shape, 'seed': args.seed}
    except UserError as error:
        report['outputs_missing'] = str(error)
    if args.data:
        report['accuracy'] = accuracies(a, b, args)
    report['equal'] = same_outputs and (same_tensors or args.outputs_only)
    return report


def _outputs(difference):
    """A ``Difference`` as the report has it: the worst output, and each where there are several."""
    renamed = {'largest': 'max_abs', 'agreement': 'top1_agreement'}
    found = difference.as_dict()
    parts = [found, *found.get('outputs', ())]
    found, *each = [{renamed.get(key, key): value for key, value in part.items()} for part in parts]
    return {**found, 'outputs': each} if each else found


def accuracies(a: Model, b: Model, args: argparse.Namespace) -> Dict[str, Any]:
    """The accuracy of both on the test images of ``--data``, by 'a' and 'b'; None for one that cannot compute."""
    info = DATASETS[args.data]
    dataset = load_dataset(args.data, args.data_dir, (a.image_shape or b.image_shape) if info.any_shape else None)
    found: Dict[str, Any] = {'data': args.data, 'images': len(dataset.test_images)}
    for name, model in (('a', a), ('b', b)):
        found[name] = (
            accuracy(model.outputs, dataset, args.rgb_mean, args.rgb_std, model.source, model.preprocessing)
            if model.computes
            else None
        )
    return found


def text(report: Dict[str, Any], every: bool) -> str:
    """The report as text, the tensors that differ most first; ``every`` lists all tensors."""
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
        f'{found["seed"]}): {_measured(found, found["images"])}'
        + ''.join(f'\n  {output["name"]}: {_measured(output, found["images"])}' for output in found.get('outputs', ()))
    )


def _measured(found, images):
    agreement = found['top1_agreement']
    first = '' if agreement is None else f'; top-1 agrees on {round(images * agreement)}'
    return f'max |Δ| {found["max_abs"]:.3g}, {found["relative"]:.3g} of the spread{first}'


def _accuracy_lines(found):
    if not found:
        return []
    scores = [
        f'{name.upper()} '
        + ('cannot compute' if found[name] is None else f'{found[name]:.4f} (error {100 * (1 - found[name]):.2f} %)')
        for name in 'ab'
    ]
    return [f'accuracy on {found["images"]} test images of {found["data"]}: {", ".join(scores)}']


def _noise_shape(a, b, args):
    shape = args.image_shape or a.image_shape or b.image_shape
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


if __name__ == '__main__':
    run(main)
