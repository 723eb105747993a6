"""Strip dead structures out of a checkpoint, prove that nothing changed, and write what is left for stock MXNet.

Examples:
    python tools/strip_params.py run/resnet20 --out run/stripped
    python tools/strip_params.py run/resnet20:240 --out run/stripped
"""

import argparse
import json
import os
from typing import Any, Dict, Optional, Sequence, Tuple, Union

import numpy as np

from formats.checkpoint_files import Checkpoint, load_checkpoint, named_checkpoint
from formats.symbol_fit import image_shapes
from graphs.comparison import compare_outputs, noise
from graphs.graph import Shape, only_input
from graphs.int8 import require_float
from graphs.lambdas import is_lambda
from graphs.predictor import Network, Predictor
from graphs.preprocessing import Preprocessing, preprocessing_of
from graphs.proof import outputs_of
from graphs.speed import fastest_rounding, full_network, milliseconds
from graphs.strip import strip
from graphs.stripped_files import PROOF_INPUTS, strip_with_proof, stripped_paths, write_stripped
from runtime.argument_types import image_count, not_negative, positive, shape_of
from runtime.checkpoint_argument import add_checkpoint
from runtime.cli import Parser, run
from runtime.errors import UserError
from symbols import parse_image_shape
from train.data.datasets import DATASETS, Dataset, eval_iterator, load_dataset
from train.evaluation import accuracy, normalisation

AUTO = 'auto'
LAMBDA = 'lambda'


def parser() -> Parser:
    """The parser of this script."""
    made = Parser(description=__doc__.splitlines()[0])
    add_checkpoint(made)
    files = made.add_argument_group('files')
    files.add_argument('--out', required=True, help='writes OUT-symbol.json, OUT-0000.params and OUT-structure.json')
    files.add_argument('--force', action='store_true', help='replace files of these names (the input never)')
    files.add_argument('--json', action='store_true', help='print one object in place of the table')
    removed = made.add_argument_group('what is removed')
    removed.add_argument(
        '--threshold',
        type=not_negative,
        default=0.0,
        help='also remove structures with |λ| up to this; the change of the outputs is printed (default: only 0)',
    )
    removed.add_argument(
        '--round-to',
        type=multiple,
        default=1,
        metavar='N|auto',
        help='keep dead channels up to a multiple of N in each layer, where that is faster; the function is the same. '
        'auto measures 1, 8, 16 and 32 on this machine and takes the fastest (default: 1, keep none)',
    )
    removed.add_argument(
        '--fold-bn',
        action='store_true',
        help='also fold batch normalisation into the convolutions before it: faster inference',
    )
    removed.add_argument(
        '--for-training', action='store_true', help='keep the loss and its label, to train what is left further'
    )
    removed.add_argument(
        '--lambda-name', default=LAMBDA, help='what the names of scaling factors contain (default: lambda)'
    )
    inputs = made.add_argument_group('inputs of the network')
    inputs.add_argument('--image-shape', help='channels,height,width, where the symbol does not say it')
    inputs.add_argument(
        '--input-shape',
        type=input_shape,
        action='append',
        metavar='NAME=SHAPE',
        help='the shape of one sample of an input, for a network of several inputs, for example meta=7; once for each',
    )
    proof = made.add_argument_group('proof and time')
    proof.add_argument(
        '--proof-inputs',
        type=image_count,
        default=PROOF_INPUTS,
        help='how many images both networks run on before anything is written (default: 8)',
    )
    proof.add_argument(
        '--tolerance',
        type=not_negative,
        help='largest difference of an output allowed, as a part of its spread over the images '
        '(default: 1e-4, in half precision 2e-2)',
    )
    proof.add_argument(
        '--data',
        choices=sorted(DATASETS),
        help='prove on the test images of this data set, and give the accuracy of both networks',
    )
    proof.add_argument('--data-dir', help='where that data set is')
    proof.add_argument(
        '--time',
        action='store_true',
        help='also measure the milliseconds that an image takes in MXNet, one at a time: of the full network, λ and '
        'batch normalisation folded, and of what is written',
    )
    return made


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Strip as the command line ``argv`` says; returns the exit code."""
    args = parser().parse_args(argv)
    checkpoint = named_checkpoint(args.checkpoint)
    check_options(args, checkpoint)
    before = Network(*load_checkpoint(*checkpoint))
    if args.lambda_name != LAMBDA and not any(is_lambda(name, args.lambda_name) for name in before.arg_params):
        raise UserError(f'--lambda-name {args.lambda_name}: no parameter of the network is called so')
    require_float(before.symbol, args.checkpoint)
    shapes = data_shapes(args, Predictor(before))
    preprocessing = preprocessing_of(before.symbol, checkpoint.prefix)
    images, dataset = proof_images(args, shapes, preprocessing)
    options = args.threshold, args.fold_bn, args.for_training, args.lambda_name
    rounding = None
    if args.round_to == AUTO:
        rounding = fastest_rounding(lambda multiple: Network(*strip(*before, shapes, *options, multiple)[:3]), shapes)
    round_to = rounding.round_to if rounding else args.round_to
    proved = strip_with_proof(before, shapes, images, *options, args.tolerance, round_to)
    after = proved.network
    result = {**proved.report, 'proof': proved.proof.as_dict()}
    if args.threshold:
        result['threshold_cost'] = compare_outputs(outputs_of(before, images), proved.outputs).as_dict()
    if dataset is not None:
        result['accuracy'] = {
            name: accuracy(Predictor(network), dataset, preprocessing=preprocessing)
            for name, network in (('before', before), ('after', after))
        }
    if rounding:
        result['roundings'] = rounding.milliseconds
    if args.time or rounding:
        full = full_network(before, shapes, args.lambda_name)
        result['milliseconds'] = milliseconds({'before': full, 'after': after}, shapes)
    write_stripped(args.out, proved)
    print(json.dumps(result) if args.json else table(result, args.out))
    return 0


def check_options(args: argparse.Namespace, checkpoint: Checkpoint) -> None:
    """Raise UserError, before any work, where a file to write is an input, or exists and --force is not given."""
    targets = stripped_paths(args.out)
    sources = [os.path.realpath(path) for path in checkpoint.paths]
    for target in targets:
        if os.path.realpath(target) in sources:
            raise UserError(f'{target} is an input: give another --out')
        if os.path.exists(target) and not args.force:
            raise UserError(f'{target} is already there: give another --out, or --force to replace it')


def data_shapes(args: argparse.Namespace, network: Predictor) -> Dict[str, Shape]:
    """The shape of each input of the network, the batch first: 1, or the batch that the network fixes.

    Raises UserError for an input whose shape is not known.
    """
    given = dict(args.input_shape or ())
    unknown = sorted(given.keys() - set(network.inputs))
    if unknown:
        raise UserError(f'--input-shape: the network has no input {unknown[0]!r}; it has {", ".join(network.inputs)}')
    known = {**image_shapes(network.symbol), **{name: (1, *shape) for name, shape in given.items()}}
    if args.image_shape and len(network.inputs) == 1:
        known[network.inputs[0]] = (1, *parse_image_shape(args.image_shape))
    missing = [name for name in network.inputs if name not in known]
    if missing:
        option = '--image-shape channels,height,width'
        if len(network.inputs) > 1:
            option = ' '.join(f'--input-shape {name}=SHAPE' for name in missing)
        raise UserError(f'{args.checkpoint} does not say the shape of its input {missing[0]!r}: give {option}')
    shapes = {name: known[name] for name in network.inputs}
    batch = network.fixed_batch(shapes) or 1
    return {name: (batch, *shape[1:]) for name, shape in shapes.items()}


def proof_images(
    args: argparse.Namespace, shapes: Dict[str, Shape], preprocessing: Optional[Preprocessing]
) -> Tuple[Dict[str, np.ndarray], Optional[Dataset]]:
    """The images to prove on (dict name → array), and the data set they are from, if any. Raises UserError for
    ``--data`` with a network of several inputs.
    """
    if not args.data:
        return noise(args.proof_inputs, shapes), None
    data = only_input(list(shapes))
    dataset = load_dataset(args.data, args.data_dir, shapes[data][1:])
    count = min(args.proof_inputs, len(dataset.test_labels))
    batch = next(eval_iterator(dataset, count, *normalisation(preprocessing)))
    return {data: batch.data[0].asnumpy()}, dataset


def input_shape(text: str) -> Tuple[str, Shape]:
    """NAME=SHAPE of ``--input-shape`` as (name, shape of one sample)."""
    name, equals, sides = text.partition('=')
    if not name or not equals:
        raise argparse.ArgumentTypeError(f'{text!r} is not NAME=SHAPE, for example meta=7 or data=3,32,32')
    shape = shape_of(sides)
    if min(shape) < 1:
        raise argparse.ArgumentTypeError(f'{text!r}: sides must be above 0')
    return name, shape


def multiple(text: str) -> Union[int, str]:
    """N or ``auto`` of ``--round-to``."""
    return AUTO if text == AUTO else positive(text)


def table(result: Dict[str, Any], out: str) -> str:
    """The report as text: counts before and after, what is alive of each vector of scaling factors, and the proof."""
    lines = [f'{"":24}{"before":>16}{"after":>16}{"kept":>9}']
    for label, key in (
        ('parameters', 'params'),
        ('  without BN', 'params_without_bn'),
        ('MACs per image', 'macs'),
        ('bytes of parameters', 'bytes'),
    ):
        before, after = result['before'][key], result['after'][key]
        lines.append(f'{label:24}{before:>16,}{after:>16,}{100 * after / max(1, before):>8.2f}%')
    if 'milliseconds' in result:
        before, after = (result['milliseconds'][name] for name in ('before', 'after'))
        lines.append(f'{"ms in MXNet, BN folded":24}{before:>16.2f}{after:>16.2f}{100 * after / before:>8.2f}%')
    if 'accuracy' in result:
        lines.append(f'{"accuracy":24}{result["accuracy"]["before"]:>16.4f}{result["accuracy"]["after"]:>16.4f}')
    lines += ['', *_speed(result)]
    for name, factors in result['lambdas'].items():
        lines.append(f'{name}: {factors["alive_count"]} of {factors["count"]} alive{_stages(factors)}')
    for held in result['dead_but_kept']:
        lines.append(
            f'{held["channels"]} dead channels of {held["layer"]} stay, because {held["operator"]} reads them: '
            f'{held["reason"]}'
        )
    lines.append(_sentence('proof', result['proof']))
    if 'threshold_cost' in result:
        lines.append(_sentence('cost of the threshold', result['threshold_cost']))
    return '\n'.join([*lines, f'written: {", ".join(stripped_paths(out))}'])


def _speed(result):
    """What the measured times say, as lines."""
    lines = []
    if 'roundings' in result:
        tried = ', '.join(f'{one}: {time:.2f} ms' for one, time in result['roundings'].items())
        lines.append(f'channels up to a multiple of {result["round_to"]}, the fastest; tried {tried}')
    if 'milliseconds' in result and result['milliseconds']['after'] > result['milliseconds']['before']:
        lines.append(
            'the stripped network is SLOWER than the full one in MXNet on this machine: try --round-to auto and '
            '--fold-bn, or measure other runtimes by tools/benchmark.py inference'
        )
    return lines


def _stages(factors):
    """How many entries of each stage are alive."""
    alive, stages = np.array(factors['alive']), np.array(factors['stages'])
    if factors['kind'] == 'neuron' or len(stages) != len(alive):
        return ''
    return (
        ' (by stage: '
        + ', '.join(
            f'{int(alive[stages == stage].sum())} of {alive[stages == stage].size}' for stage in np.unique(stages)
        )
        + ')'
    )


def _sentence(what, found):
    lines = [f'{what}: on {found["images"]} images the outputs differ by at most {_measured(found)}']
    return '\n'.join(lines + [f'  {output["name"]}: {_measured(output)}' for output in found.get('outputs', ())])


def _measured(found):
    agreement = found['agreement']
    first = '' if agreement is None else f'; the same class is first on {100 * agreement:g} % of them'
    return f'{found["largest"]:.3g} ({found["relative"]:.3g} of the spread){first}'


if __name__ == '__main__':
    run(main)
