"""Training by APG in both placements of λ: from the same seed, the same trajectory."""

import numpy as np
import pytest

import optimizers.apg  # noqa: F401  (registers the optimizer)
from runtime import mx
from symbols import get_symbol

IMAGE, BATCH, STEPS = (3, 8, 8), 8, 6
SETTINGS = {'learning_rate': 0.01, 'gamma': 2, 'momentum': 0.9, 'wd': 1e-4, 'rescale_grad': 1 / BATCH}


def batches():
    generator = np.random.default_rng(0)
    return [(generator.standard_normal((BATCH, *IMAGE)), generator.integers(0, 10, BATCH)) for _ in range(STEPS)]


def trajectory_in_double_precision(symbol):
    """λ after every step, one array for each λ variable, joined; parameters are drawn by name and so are the same in
    both placements.
    """
    executor = symbol.simple_bind(
        mx.cpu(),
        grad_req='write',
        type_dict=dict.fromkeys([*symbol.list_arguments(), *symbol.list_auxiliary_states()], 'float64'),
        data=(BATCH, *IMAGE),
        softmax_label=(BATCH,),
    )
    learned = sorted(set(symbol.list_arguments()) - {'data', 'softmax_label'})
    generator = np.random.default_rng(1)
    for name in learned:
        array = executor.arg_dict[name]
        still = 'lambda' in name or name.endswith('_gamma')
        array[:] = (
            1
            if still
            else generator.standard_normal(array.shape)
            * np.sqrt(2 / max(1, np.prod(array.shape[1:])))
            * name.endswith('weight')
        )
    for name in symbol.list_auxiliary_states():
        executor.aux_dict[name][:] = name.endswith('var')
    update = mx.optimizer.get_updater(mx.optimizer.create('apg', param_idx2name=dict(enumerate(learned)), **SETTINGS))
    trail = []
    for images, labels in batches():
        executor.forward(
            is_train=True, data=mx.nd.array(images, dtype='float64'), softmax_label=mx.nd.array(labels, dtype='float64')
        )
        executor.backward()
        for index, name in enumerate(learned):
            update(index, executor.grad_dict[name], executor.arg_dict[name])
        trail.append(
            np.concatenate([executor.arg_dict[name].asnumpy().ravel() for name in learned if 'lambda' in name])
        )
    return np.array(trail)


def trajectory_in_a_module(symbol):
    """λ after every step of training as a user trains: everything drawn from MXNet's own seed."""
    mx.random.seed(5)
    module = mx.mod.Module(symbol)
    module.bind([('data', (BATCH, *IMAGE))], [('softmax_label', (BATCH,))])
    module.init_params(mx.init.Xavier(rnd_type='gaussian', factor_type='in', magnitude=2))
    module.init_optimizer(optimizer='apg', optimizer_params=SETTINGS)
    trail = []
    for images, labels in batches():
        module.forward_backward(mx.io.DataBatch([mx.nd.array(images)], [mx.nd.array(labels)]))
        module.update()
        params = module.get_params()[0]
        trail.append(np.concatenate([params[name].asnumpy().ravel() for name in sorted(params) if 'lambda' in name]))
    return np.array(trail)


@pytest.mark.parametrize(
    ('network', 'scale', 'trajectory', 'tolerance'),
    [
        ('resnet', 'block,neuron', trajectory_in_double_precision, 1e-10),
        ('resnext', 'block,group', trajectory_in_double_precision, 1e-10),
        ('resnet-v1', 'block,neuron', trajectory_in_a_module, 1e-4),
    ],
)
def test_lambda_goes_the_same_way_in_both_placements(network, scale, trajectory, tolerance):
    folded, authors = (
        trajectory(get_symbol(network, 20, 10, IMAGE, scale, placement)) for placement in ('weight', 'output')
    )
    assert np.abs(folded - authors).max() < tolerance
    # It went somewhere, and not everywhere alike.
    assert np.abs(authors[-1] - 1).max() > 0.3
    assert np.ptp(authors[-1]) > 0.001
