"""Networks that are not ours, without λ: GluonCV's, and two built here. What could be removed is counted by hand."""

from typing import NamedTuple

from interop.gluon_zoo import zoo_network
from runtime import mx


class Foreign(NamedTuple):
    """A symbol without loss, the shape of its images, and how many output channels of convolutions could go: those that
    no sum holds in place, and that are not the output.
    """

    symbol: object
    image_shape: tuple
    removable: int


def zoo_symbol(name):
    """GluonCV's network as a symbol."""
    return zoo_network(name)(mx.sym.var('data'))


def cifar_resnet():
    """The first convolution of each of three blocks in three stages."""
    return Foreign(zoo_symbol('cifar_resnet20_v1'), (3, 32, 32), 3 * (16 + 32 + 64))


def resnet18():
    """The first convolution of each of two blocks in four stages."""
    return Foreign(zoo_symbol('resnet18_v1b'), (3, 64, 64), 2 * (64 + 128 + 256 + 512))


def mobilenet():
    """Everything but the sums of the stages of several units, and the classifier."""
    inputs = [4] + [6] * 2 + [8] * 3 + [16] * 4 + [24] * 3 + [40] * 3
    inner = sum(2 * 6 * width for width in inputs)  # expansion and depthwise
    return Foreign(zoo_symbol('mobilenetv2_0.25'), (3, 64, 64), 8 + 8 + 4 + inner + 80 + 1280)


def densenet():
    """Everything: nothing is added. 58 units of 128 and 32 channels, the stem and three transitions."""
    return Foreign(zoo_symbol('densenet121'), (3, 224, 224), 64 + 58 * (128 + 32) + 128 + 256 + 512)


def squeezenet():
    """Everything but the classifier: the stem, and eight modules that squeeze to s and expand to 4 s and 4 s."""
    return Foreign(zoo_symbol('squeezenet1.1'), (3, 224, 224), 64 + 2 * 9 * (16 + 32 + 48 + 64))


def conv(x, name, channels, kernel=1, **options):
    return mx.sym.Convolution(
        x,
        num_filter=channels,
        kernel=(kernel, kernel),
        pad=(kernel // 2, kernel // 2),
        no_bias=True,
        name=name,
        **options,
    )


def normalised(x, name, act_type='relu'):
    x = mx.sym.BatchNorm(x, fix_gamma=False, eps=1e-5, name=name)
    return mx.sym.Activation(x, act_type=act_type, name=f'{name}_act') if act_type else x


def scores(x, classes=10):
    x = mx.sym.Pooling(x, global_pool=True, kernel=(1, 1), pool_type='avg')
    return mx.sym.FullyConnected(mx.sym.Flatten(x), num_hidden=classes, name='fc1')


def shuffled(x):
    """Channels of two halves, alternating."""
    x = mx.sym.reshape(x, shape=(0, -4, 2, -1, -2))
    return mx.sym.reshape(mx.sym.SwapAxis(x, dim1=1, dim2=2), shape=(0, -3, -2))


def shufflenet(units=2, width=16):
    """As ShuffleNet v2: half of the channels pass by a branch, and are mixed with it. Inside of a branch, the first
    convolution and the depthwise one may lose channels; what is shuffled must stay.
    """
    x = normalised(conv(mx.sym.var('data'), 'stem', width, 3), 'stem_bn')
    for unit in range(units):
        name, half = f'unit{unit}', width // 2
        left = mx.sym.slice_axis(x, axis=1, begin=0, end=half)
        y = mx.sym.slice_axis(x, axis=1, begin=half, end=width)
        y = normalised(conv(y, f'{name}_conv1', half), f'{name}_bn1')
        y = normalised(conv(y, f'{name}_conv2', half, 3, num_group=half), f'{name}_bn2', None)
        y = normalised(conv(y, f'{name}_conv3', half), f'{name}_bn3')
        x = shuffled(mx.sym.concat(left, y, dim=1, name=f'{name}_concat'))
    x = normalised(conv(x, 'last', 24), 'last_bn')
    return Foreign(scores(x), (3, 8, 8), units * 2 * (width // 2) + 24)


def se_network(units=2, width=12):
    """Residual units whose branch ends in a squeeze-and-excitation: the first convolution and the squeeze may lose
    channels.
    """
    x = normalised(conv(mx.sym.var('data'), 'stem', width, 3), 'stem_bn')
    for unit in range(units):
        name = f'unit{unit}'
        y = normalised(conv(x, f'{name}_conv1', width, 3), f'{name}_bn1')
        y = normalised(conv(y, f'{name}_conv2', width, 3), f'{name}_bn2', None)
        gate = mx.sym.Pooling(y, global_pool=True, kernel=(1, 1), pool_type='avg')
        gate = mx.sym.relu(conv(gate, f'{name}_squeeze', 4))
        gate = mx.sym.sigmoid(conv(gate, f'{name}_excite', width))
        x = mx.sym.relu(mx.sym.broadcast_mul(y, gate) + x, name=f'{name}_out')
    return Foreign(scores(x), (3, 8, 8), units * (width + 4))


NETWORKS = {
    'cifar_resnet20_v1': cifar_resnet,
    'resnet18_v1b': resnet18,
    'mobilenetv2_0.25': mobilenet,
    'densenet121': densenet,
    'squeezenet1.1': squeezenet,
    'shufflenet': shufflenet,
    'se_network': se_network,
}
