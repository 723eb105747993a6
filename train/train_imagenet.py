"""Train a network with scaling factors on ImageNet, by the authors' recipe."""
from runtime.cli import run
from runtime.errors import DataError
from symbols import parse_image_shape
from train.arguments import training_parser
from train.data import synthetic_data
from train.fit import fit
from train.group import group_of
from train.plan import check_arguments

TRAINING_IMAGES = 1281167


def main(argv=None):
    parser = training_parser(__doc__)
    data = parser.add_argument_group('data')
    data.add_argument('--image-shape', default='3,224,224', metavar='C,H,W', help="shape of the network's input")
    data.add_argument('--num-classes', type=int, default=1000, help='outputs of the network')
    data.add_argument('--num-examples', type=int, default=TRAINING_IMAGES, help='images of an epoch: what the schedule counts in')
    # Section 4.2 of the paper and the authors' scripts: 4 cards of 32 images each.
    parser.set_defaults(network='resnet', num_layers=50, batch_size=128, num_epochs=100, lr=0.1, lr_step_epochs='30,60,90', wd=1e-4, gamma=0.01)
    args = parser.parse_args(argv)
    if not args.benchmark:
        raise DataError('this version reads no ImageNet files yet; --benchmark 1 trains on synthetic images of the same shape')
    shape = parse_image_shape(args.image_shape)
    check_arguments(args, shape, args.num_classes)
    with group_of(args) as group:
        images = synthetic_data(args.batch_size, shape, args.num_classes, args.num_examples // group.size)
        return fit(args, images, images, shape, args.num_classes, top_k=5, group=group)


if __name__ == '__main__':
    run(main)
