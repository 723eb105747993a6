"""Strip dead structures out of a checkpoint, prove that nothing changed, and write what is left for stock MXNet.

Examples:
    python tools/strip_params.py --prefix run/resnet20 --epoch 240 --out run/stripped
"""

import json
import os
import time

import numpy as np

from formats.checkpoint_files import load_checkpoint, params_path, symbol_path
from graphs.comparison import compare_outputs, noise
from graphs.graph import data_shape_of
from graphs.predictor import Network, Predictor
from graphs.proof import outputs_of
from graphs.stripped_files import PROOF_INPUTS, strip_with_proof, stripped_paths, write_stripped
from runtime.argument_types import not_negative, positive
from runtime.cli import Parser, run
from runtime.errors import UserError
from symbols import parse_image_shape
from train.data.datasets import DATASETS, eval_iterator, load_dataset
from train.evaluation import accuracy

WARM_UP, TURNS = 3, 21


def parser():
    made = Parser(description=__doc__.splitlines()[0])
    made.add_argument('--prefix', required=True, help='the checkpoint: PREFIX-symbol.json and PREFIX-000N.params')
    made.add_argument('--epoch', type=int, required=True, help='its epoch N')
    made.add_argument('--out', required=True, help='writes OUT-symbol.json, OUT-0000.params and OUT-structure.json')
    made.add_argument('--force', action='store_true', help='replace files of these names (the input never)')
    made.add_argument(
        '--threshold',
        type=not_negative,
        default=0.0,
        help='also take structures with |λ| up to this; what that changes is printed (default: only 0)',
    )
    made.add_argument(
        '--fold-bn',
        action='store_true',
        help='also fold batch normalisation into the convolutions before it: faster inference',
    )
    made.add_argument(
        '--for-training', action='store_true', help='keep the loss and its label, to train what is left further'
    )
    made.add_argument(
        '--proof-inputs',
        type=positive,
        default=PROOF_INPUTS,
        help='how many images both networks run on before anything is written (default: 8)',
    )
    made.add_argument(
        '--tolerance',
        type=not_negative,
        help='largest difference of an output allowed, as a part of its spread over the images '
        '(default: 1e-4, in half precision 2e-2)',
    )
    made.add_argument('--image-shape', help='channels,height,width, where the symbol does not say it')
    made.add_argument(
        '--data',
        choices=sorted(DATASETS),
        help='prove on the test images of this data set, and give the accuracy of both networks',
    )
    made.add_argument('--data-dir', help='where that data set lies')
    made.add_argument(
        '--time',
        action='store_true',
        help='also measure the milliseconds that an image takes before and after (in MXNet, one at a time)',
    )
    made.add_argument(
        '--lambda-name', default='lambda', help='what the names of scaling factors contain (default: lambda)'
    )
    made.add_argument('--json', action='store_true', help='print one object in place of the table')
    return made


def main(argv=None):
    args = parser().parse_args(argv)
    check_options(args)
    before = Network(*load_checkpoint(args.prefix, args.epoch))
    shapes = {'data': (1, *image_shape(args, before.symbol))}
    images, dataset = proof_images(args, shapes)
    proved = strip_with_proof(
        before, shapes, images, args.threshold, args.fold_bn, args.for_training, args.lambda_name, args.tolerance
    )
    after = proved.network
    result = {**proved.report, 'proof': proved.proof.as_dict()}
    if args.threshold:
        result['threshold_cost'] = compare_outputs(outputs_of(before, images), proved.outputs).as_dict()
    if dataset is not None:
        result['accuracy'] = {
            name: accuracy(Predictor(network), dataset) for name, network in (('before', before), ('after', after))
        }
    if args.time:
        result['milliseconds'] = milliseconds({'before': before, 'after': after}, shapes['data'])
    write_stripped(args.out, proved)
    print(json.dumps(result) if args.json else table(result, args.out))
    return 0


def check_options(args):
    """Refuse what would overwrite or could not be done, before any work."""
    targets = stripped_paths(args.out)
    sources = [os.path.realpath(path) for path in (symbol_path(args.prefix), params_path(args.prefix, args.epoch))]
    for target in targets:
        if os.path.realpath(target) in sources:
            raise UserError(f'{target} is what is to be read: give another --out')
        if os.path.exists(target) and not args.force:
            raise UserError(f'{target} is already there: give another --out, or --force to replace it')


def image_shape(args, symbol):
    """What the network eats, as (channels, height, width)."""
    shape = parse_image_shape(args.image_shape) if args.image_shape else data_shape_of(symbol)
    if not shape:
        raise UserError(
            f'{symbol_path(args.prefix)} does not say which images it takes: give --image-shape channels,height,width'
        )
    return shape


def proof_images(args, shapes):
    """The images to prove on (dict name → array), and the data set they are from, if any."""
    if not args.data:
        return noise(args.proof_inputs, shapes), None
    dataset = load_dataset(args.data, args.data_dir, shapes['data'][1:])
    batch = next(eval_iterator(dataset, min(args.proof_inputs, len(dataset.test_labels))))
    return {'data': batch.data[0].asnumpy()}, dataset


def milliseconds(networks, shape):
    """The median time that one image of ``shape`` (1, C, H, W) takes, by the name of each of ``networks``, which take
    turns.
    """
    image = noise(1, {'data': shape})
    predict = {name: Predictor(network) for name, network in networks.items()}
    seconds = {name: [] for name in networks}
    for _ in range(WARM_UP + TURNS):
        for name, run_once in predict.items():
            start = time.perf_counter()
            run_once(image)
            seconds[name].append(time.perf_counter() - start)
    return {name: 1e3 * float(np.median(measured[WARM_UP:])) for name, measured in seconds.items()}


def table(result, out):
    """Before and after, what stayed of each vector of scaling factors, and the proof."""
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
        lines.append(f'{"milliseconds per image":24}{before:>16.2f}{after:>16.2f}{100 * after / before:>8.2f}%')
    if 'accuracy' in result:
        lines.append(f'{"accuracy":24}{result["accuracy"]["before"]:>16.4f}{result["accuracy"]["after"]:>16.4f}')
    lines.append('')
    for name, factors in result['lambdas'].items():
        lines.append(f'{name}: {factors["alive_count"]} of {factors["count"]} alive{_stages(factors)}')
    lines.append(_sentence('proof', result['proof']))
    if 'threshold_cost' in result:
        lines.append(_sentence('cost of the threshold', result['threshold_cost']))
    return '\n'.join([*lines, f'written: {", ".join(stripped_paths(out))}'])


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
