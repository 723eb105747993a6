"""How fast images are read, augmented and handed to MXNet: what the network must not have to wait for."""

from train.data.datasets import DATASETS, dataset_from_args, measure_throughput

from . import image_pipeline


def measure(args):
    """Of a data set in memory one row with its augmentation and one without, by one core; of JPEGs, a row for each
    pipeline, by all.
    """
    if args.data_train or args.synthetic:
        return image_pipeline.measure(args)
    dataset = dataset_from_args(args)
    kinds = {'none': None, "the paper's": DATASETS[dataset.name].augmentation}
    return [
        {
            'data set': dataset.name,
            'augmentation': name,
            'images/s/core': measure_throughput(dataset, augmentation, args.batch_size, args.batches),
        }
        for name, augmentation in kinds.items()
    ]
