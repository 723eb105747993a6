"""A network, batches and an optimizer for engines on several devices."""

import numpy as np

from runtime import mx
from symbols.layers import convolution, input_images
from symbols.scaling import Scaling

BATCH, STEPS, SHAPE = 12, 5, (3, 6, 6)
DATA = [mx.io.DataDesc('data', (BATCH, *SHAPE))]


LABEL = [mx.io.DataDesc('softmax_label', (BATCH,))]


DEVICES = {1: [mx.cpu(0)], 2: [mx.cpu(0), mx.cpu(1)], 3: [mx.cpu(0), mx.cpu(1), mx.cpu(2)]}


def network():
    """A residual block and a classifier. No batch normalisation: its statistics are those of a device's share."""
    with mx.name.NameManager():
        stem = convolution(input_images(SHAPE), 3, 4, kernel=1, name='conv0')
        factor = Scaling(('block',), 'weight', units=(1,)).block(0)
        sum_ = stem + convolution(mx.sym.relu(stem), 4, 4, kernel=3, name='conv1', factors=factor)
        return mx.sym.SoftmaxOutput(mx.sym.FullyConnected(mx.sym.relu(sum_), num_hidden=3, name='fc1'), name='softmax')


def batches():
    random = np.random.default_rng(3)
    return [
        mx.io.DataBatch(
            [mx.nd.array(random.normal(size=(BATCH, *SHAPE)))], [mx.nd.array(random.integers(0, 3, BATCH))], pad=0
        )
        for _ in range(STEPS)
    ]


def optimizer():
    schedule = mx.lr_scheduler.MultiFactorScheduler([2], 0.5, 0.1)
    symbol = network()
    return mx.optimizer.create(
        'apg',
        gamma=0.3,
        momentum=0.9,
        wd=1e-3,
        lr_scheduler=schedule,
        rescale_grad=1 / BATCH,
        sym=symbol,
        param_idx2name={},
    )
