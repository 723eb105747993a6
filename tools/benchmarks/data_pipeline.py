"""How fast images are read, augmented and handed to MXNet, by one core: what the network must not have to wait for."""
from train.data import DATASETS, dataset_from_args, measure_throughput


def measure(args):
    """One row for the data set, with its augmentation and without."""
    dataset = dataset_from_args(args)
    kinds = {'none': None, "the paper's": DATASETS[dataset.name].augmentation}
    return [{'data set': dataset.name, 'augmentation': name, 'images/s/core': measure_throughput(dataset, augmentation, args.batch_size, args.batches)}
            for name, augmentation in kinds.items()]
