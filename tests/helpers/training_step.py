"""One training step of a symbol in plain MXNet, and random parameters for it."""

import numpy as np

from runtime import mx


def ran(symbol, values, images, labels, dtype='float64'):
    """(outputs, gradients by name) of one training step in ``dtype`` on ``values`` (dict name → array)."""
    types = dict.fromkeys([*symbol.list_arguments(), *symbol.list_auxiliary_states()], dtype)
    executor = symbol.simple_bind(
        mx.cpu(), grad_req='write', type_dict=types, data=images.shape, softmax_label=labels.shape
    )
    for name, array in executor.arg_dict.items():
        array[:] = {'data': images, 'softmax_label': labels}.get(name, values.get(name))
    executor.forward(is_train=True)
    executor.backward()
    gradients = {name: gradient.asnumpy() for name, gradient in executor.grad_dict.items() if name in values}
    return executor.outputs[0].asnumpy(), gradients


def drawn_values(symbol, image, seed):
    """Random parameters; λ anywhere between -0.5 and 2, and every third of them exactly 0."""
    generator = np.random.default_rng(seed)
    shapes = symbol.infer_shape(data=(1, *image))[0]
    values = {}
    for name, shape in zip(symbol.list_arguments(), shapes):
        if 'lambda' in name:
            alive = generator.permutation(int(np.prod(shape))).reshape(shape) % 3 != 1
            values[name] = generator.uniform(-0.5, 2, shape) * alive
        elif name.endswith('_gamma'):
            values[name] = generator.uniform(0.5, 1.5, shape)
        elif name.endswith('_weight'):
            values[name] = generator.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        elif name not in ('data', 'softmax_label'):
            values[name] = generator.standard_normal(shape) * 0.1
    return values
