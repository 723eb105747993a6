"""Score a checkpoint, full or stripped, on the test images of a data set: every image counted once.

Examples:
    python tools/evaluate.py --prefix runs/resnet20 --epoch 240 --dataset cifar10
    python tools/evaluate.py --prefix runs/resnet50-stripped --epoch 0 --data-val val.rec
    python tools/evaluate.py --prefix runs/resnet50-stripped --epoch 0 --dataset imagenet --data-dir imagenet
"""

import argparse
import json

from formats.checkpoint_files import load_checkpoint
from graphs.graph import data_shape_of
from runtime.cli import run
from runtime.devices import contexts
from runtime.errors import UserError
from train.data.datasets import add_data_args, dataset_from_args, eval_iterator
from train.data.imagenet import add_imagenet_args, check_paths, imagenet_from_args
from train.evaluation import Predictor, score
from train.log import open_log

IMAGENET = 'imagenet'


def main(argv=None):
    args = parser().parse_args(argv)
    if args.data_val:
        args.dataset = IMAGENET
    if args.dataset == IMAGENET:
        check_paths(args, with_training=False)
    symbol, arg_params, aux_params = load_checkpoint(args.prefix, args.epoch)
    dataset = None if args.dataset == IMAGENET else dataset_from_args(args)
    shape = dataset.image_shape if dataset else args.image_shape or data_shape_of(symbol) or (3, 224, 224)
    predict = Predictor(symbol, arg_params, aux_params, (args.batch_size, *shape), contexts(args.gpus))
    if dataset:
        if predict.num_classes != dataset.num_classes:
            raise UserError(
                f'{args.prefix} tells {predict.num_classes} classes apart, {dataset.name} has {dataset.num_classes}; '
                'choose another --dataset'
            )
        images = eval_iterator(dataset, args.batch_size, args.rgb_mean, args.rgb_std)
    else:
        open_log()  # for the names of damaged images
        images = imagenet_from_args(args, shape, predict.num_classes, args.batch_size, with_training=False).validation
    averages, count = score(predict, images, args.top_k, progress=args.dataset)
    if args.json:
        print(json.dumps(dict(averages, images=count, dataset=args.dataset)))
        return 0
    print(f'{args.prefix} epoch {args.epoch} on {args.dataset}: {count} images')
    for name, value in averages.items():
        print(f'{name} {value:.6f}' + (f' (error {100 * (1 - value):.2f} %)' if 'accuracy' in name else ''))
    return 0


def parser():
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument('--prefix', required=True, help='PREFIX-symbol.json and PREFIX-NNNN.params are read')
    made.add_argument('--epoch', type=int, required=True, help='which NNNN; 0 for a stripped network')
    made.add_argument(
        '--batch-size', type=int, default=100, help='images at a time; the result does not depend on it (default: 100)'
    )
    made.add_argument(
        '--top-k', type=int, default=5, help='also count images whose class is among the k most probable (default: 5)'
    )
    made.add_argument('--gpus', help='a card to use, for example 0; left out: the CPU')
    made.add_argument('--json', action='store_true', help='print one JSON object')
    add_data_args(made, more=(IMAGENET,))
    add_imagenet_args(made, with_training=False)
    return made


if __name__ == '__main__':
    run(main)
