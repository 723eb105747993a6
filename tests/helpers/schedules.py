"""A tiny network whose gradients are its input, and the ways of MXNet to update it."""

import numpy as np

import optimizers  # noqa: F401  (registers 'apg')
from runtime import mx

BATCH, STEPS, DROP = 6, 8, 4
WIDTHS = {'conv0_weight': 5, 'bn0_gamma': 3, 'fc1_bias': 2, 'lambda_block': 4}


SETTINGS = {'wd': 0.05, 'gamma': 0.1, 'momentum': 0.9, 'clip_gradient': 0.5}


CONTEXTS = {1: [mx.cpu(0)], 2: [mx.cpu(0), mx.cpu(1)]}


def schedule():
    """Drops right after step DROP, which is where the resumed runs resume."""
    return mx.lr_scheduler.MultiFactorScheduler(step=[DROP], factor=0.1, base_lr=0.3)


def network():
    parameters = mx.sym.concat(*[mx.sym.Variable(name, shape=(1, width)) for name, width in WIDTHS.items()], dim=1)
    return mx.sym.MakeLoss(mx.sym.broadcast_mul(mx.sym.Variable('data'), parameters), name='loss')


def initial():
    random = np.random.default_rng(1)
    return {name: random.uniform(0.2, 1, (1, width)).astype(np.float32) for name, width in WIDTHS.items()}


def batches():
    random = np.random.default_rng(2)
    return [random.normal(size=(BATCH, sum(WIDTHS.values()))).astype(np.float32) for _ in range(STEPS)]


def gradients_of(batch):
    """The gradient of each parameter, summed over the batch."""
    ends = np.cumsum(list(WIDTHS.values()))
    return {
        name: batch[:, end - width : end].sum(axis=0, keepdims=True) for (name, width), end in zip(WIDTHS.items(), ends)
    }


def optimizer(**known):
    return mx.optimizer.create('apg', lr_scheduler=schedule(), rescale_grad=1 / BATCH, **SETTINGS, **known)


def module(contexts, kvstore, values, begin=0, batch=BATCH):
    made = mx.mod.Module(network(), data_names=['data'], label_names=None, context=CONTEXTS[contexts])
    made.bind([('data', (batch, sum(WIDTHS.values())))], for_training=True)
    made.set_params({name: mx.nd.array(value) for name, value in values.items()}, {})
    made.init_optimizer(
        kvstore=kvstore,
        optimizer='apg',
        optimizer_params={**SETTINGS, 'lr_scheduler': schedule(), 'begin_num_update': begin},
    )
    return made


def moved(made, data):
    for batch in data:
        made.forward_backward(mx.io.DataBatch([mx.nd.array(batch)]))
        made.update()
    return {name: value.asnumpy() for name, value in made.get_params()[0].items()}


def kvstore_of(name, contexts):
    """MXNet leaves out a kvstore given by name on a single device, but not one that is there."""
    return mx.kv.create(name) if name and contexts == 1 else name
