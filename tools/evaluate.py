"""Score a checkpoint, full or stripped, on the test images of a data set: every image counted once."""
import argparse
import json

from runtime.checkpoint_files import load_checkpoint
from runtime.cli import run
from runtime.errors import UserError
from runtime.gpu import contexts
from train.data import add_data_args, dataset_from_args, eval_iterator
from train.score import Predictor, score


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('--prefix', required=True, help='PREFIX-symbol.json and PREFIX-NNNN.params are read')
    parser.add_argument('--epoch', type=int, required=True, help='which NNNN; 0 for a stripped network')
    parser.add_argument('--batch-size', type=int, default=100, help='images at a time; the result does not depend on it')
    parser.add_argument('--top-k', type=int, default=5, help='also count images whose class is among the k most probable')
    parser.add_argument('--gpus', help='a card to use, for example 0; left out: the CPU')
    parser.add_argument('--json', action='store_true', help='print one JSON object')
    add_data_args(parser)
    args = parser.parse_args(argv)
    symbol, arg_params, aux_params = load_checkpoint(args.prefix, args.epoch)
    dataset = dataset_from_args(args)
    predict = Predictor(symbol, arg_params, aux_params, (args.batch_size,) + dataset.image_shape, contexts(args.gpus))
    if predict.num_classes != dataset.num_classes:
        raise UserError(f'{args.prefix} tells {predict.num_classes} classes apart, {dataset.name} has {dataset.num_classes}; choose another --dataset')
    averages, count = score(predict, eval_iterator(dataset, args.batch_size, args.rgb_mean, args.rgb_std), args.top_k, progress=dataset.name)
    if args.json:
        print(json.dumps(dict(averages, images=count, dataset=dataset.name)))
        return 0
    print(f'{args.prefix} epoch {args.epoch} on {dataset.name}: {count} images')
    for name, value in averages.items():
        print(f'{name} {value:.6f}' + (f' (error {100 * (1 - value):.2f} %)' if 'accuracy' in name else ''))
    return 0


if __name__ == '__main__':
    run(main)
