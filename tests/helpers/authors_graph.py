"""The networks of the authors' ImageNet code, built by its facts and from MXNet's operators alone.

The code itself is not copied. What sets their graph apart from ours is how λ gets to the feature maps:

* ``lambda_block`` (num_block,) is cut by SliceChannel without squeezing into pieces of shape (1,). A piece multiplies a
  map of rank 4 as it is.
* ``lambda_group`` (num_block, num_group) is cut into rows. A row is repeated over the channels of each group and
  reshaped to (C,1,1,1); ``bn2``'s output is transposed by (1,0,2,3), multiplied along its first axis, and transposed
  back.

The images' shape and the kinds of λ are written nowhere in the symbol.
"""

from runtime import mx

SWAPPED = (1, 0, 2, 3)


def resnet(units, widths, num_classes, small=False):
    """The pre-activation bottleneck ResNet; ``small`` takes a 3×3 stem of 16 channels, for small images."""

    def unit(x, width, stride, project, name, block, _):
        inner = width // 4
        act1 = _relu(_norm(x, f'{name}_bn1'), f'{name}_relu1')
        conv1 = _conv(act1, inner, 1, f'{name}_conv1')
        conv2 = _conv(_relu(_norm(conv1, f'{name}_bn2'), f'{name}_relu2'), inner, 3, f'{name}_conv2', stride)
        conv3 = _conv(_relu(_norm(conv2, f'{name}_bn3'), f'{name}_relu3'), width, 1, f'{name}_conv3')
        return mx.sym.broadcast_mul(conv3, block) + (_conv(act1, width, 1, f'{name}_sc', stride) if project else x)

    with mx.name.NameManager():
        x = mx.sym.Variable('data')
        x = _conv(x, 16, 3, 'conv0') if small else _stem(x)
        x = _stages(x, units, widths, unit, _pieces('lambda_block', (sum(units),)), [None] * sum(units))
        return _classifier(_relu(_norm(x, 'bn1'), 'relu1'), num_classes)


def resnext(units, widths, num_group, num_classes, small=False):
    """The post-activation ResNeXt; ``small`` takes a 3×3 stem of 64 channels, for small images."""

    def unit(x, width, stride, project, name, block, groups):
        inner = width // 2
        act1 = _relu(_norm(_conv(x, inner, 1, f'{name}_conv1'), f'{name}_bn1'), f'{name}_relu1')
        bn2 = _norm(_conv(act1, inner, 3, f'{name}_conv2', stride, num_group), f'{name}_bn2')
        row = mx.sym.reshape(mx.sym.repeat(groups, repeats=inner // num_group, axis=1), shape=(inner, 1, 1, 1))
        product = mx.sym.broadcast_mul(mx.sym.transpose(bn2, axes=SWAPPED), row)
        act2 = _relu(mx.sym.transpose(product, axes=SWAPPED), f'{name}_relu2')
        bn3 = _norm(_conv(act2, width, 1, f'{name}_conv3'), f'{name}_bn3')
        shortcut = _norm(_conv(x, width, 1, f'{name}_sc', stride), f'{name}_sc_bn') if project else x
        return _relu(mx.sym.broadcast_mul(bn3, block) + shortcut, f'{name}_relu')

    with mx.name.NameManager():
        x = mx.sym.Variable('data')
        x = _relu(_norm(_conv(x, 64, 3, 'conv0'), 'bn0'), 'relu0') if small else _stem(x)
        blocks, rows = _pieces('lambda_block', (sum(units),)), _pieces('lambda_group', (sum(units), num_group))
        return _classifier(_stages(x, units, widths, unit, blocks, rows), num_classes)


def _pieces(name, shape):
    factors = mx.sym.Variable(name, shape=shape, init=mx.init.One(), wd_mult=0.0)
    return mx.sym.SliceChannel(factors, axis=0, num_outputs=shape[0], squeeze_axis=False, name=f'{name}_slices')


def _stages(x, units, widths, unit, blocks, rows):
    index = 0
    for stage, (count, width) in enumerate(zip(units, widths), start=1):
        for number in range(1, count + 1):
            stride = 2 if number == 1 and stage > 1 else 1
            x = unit(x, width, stride, number == 1, f'stage{stage}_unit{number}', blocks[index], rows[index])
            index += 1
    return x


def _stem(x):
    x = _relu(_norm(_conv(x, 64, 7, 'conv0', 2), 'bn0'), 'relu0')
    return mx.sym.Pooling(x, kernel=(3, 3), stride=(2, 2), pad=(1, 1), pool_type='max')


def _classifier(x, num_classes):
    x = mx.sym.Flatten(mx.sym.Pooling(x, global_pool=True, kernel=(7, 7), pool_type='avg', name='pool1'))
    return mx.sym.SoftmaxOutput(mx.sym.FullyConnected(x, num_hidden=num_classes, name='fc1'), name='softmax')


def _conv(x, channels, kernel, name, stride=1, num_group=1):
    return mx.sym.Convolution(
        x,
        num_filter=channels,
        kernel=(kernel, kernel),
        stride=(stride, stride),
        pad=(kernel // 2, kernel // 2),
        num_group=num_group,
        no_bias=True,
        name=name,
    )


def _norm(x, name):
    return mx.sym.BatchNorm(x, fix_gamma=False, eps=1e-5, momentum=0.9, name=name)


def _relu(x, name):
    return mx.sym.Activation(x, act_type='relu', name=name)
