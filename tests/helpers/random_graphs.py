"""Random networks of every kind of layer, with λ at random places and in every form that it may be written in."""

import numpy as np

from helpers.strip_networks import IMAGE
from runtime import mx

BLOCKS, ROWS, GROUPS = 4, 3, 2


class Drawing:
    """A random network: every step takes tensors that exist already and makes another, of the same height and width."""

    def __init__(self, seed):
        self.random = np.random.RandomState(seed)
        self.count = 0
        self.squeezed = bool(self.random.randint(2))
        self.blocks = mx.sym.SliceChannel(mx.sym.Variable('lambda_block', shape=(BLOCKS,)), axis=0, num_outputs=BLOCKS)
        self.rows = mx.sym.SliceChannel(
            mx.sym.Variable('lambda_group', shape=(ROWS, GROUPS)), axis=0, num_outputs=ROWS, squeeze_axis=self.squeezed
        )
        self.tensors = [(self.convolution((mx.sym.Variable('data'), IMAGE[0])))]
        steps = [
            self.convolution,
            self.pointwise,
            self.grouped,
            self.depthwise,
            self.norm,
            self.activation,
            self.add,
            self.add,
            self.concat,
            self.slice,
            self.pool,
            self.gate,
            self.maximum,
            self.there_and_back,
            self.shuffle,
            self.scale,
            self.scale_rank_1,
            self.scale_block,
            self.scale_first,
            self.scale_last,
            self.scale_groups,
            self.scale_weight,
            self.scale_norm,
        ]
        for _ in range(self.random.randint(6, 16)):
            step = steps[self.random.randint(len(steps))]
            made = step(self.pick())
            if made is not None:
                self.tensors.append(made)

    def symbol(self):
        """All of the last few tensors concatenated, pooled (or flattened as they are) and classified."""
        ends = self.tensors[-self.random.randint(1, 4) :]
        x = mx.sym.Concat(*[x for x, _ in ends], dim=1) if len(ends) > 1 else ends[0][0]
        if self.random.rand() < 0.5:
            x = mx.sym.Pooling(x, global_pool=True, kernel=(1, 1), pool_type='avg')
        return mx.sym.SoftmaxOutput(mx.sym.FullyConnected(mx.sym.Flatten(x), num_hidden=5, name='fc1'), name='softmax')

    def pick(self, channels=None):
        fitting = [tensor for tensor in self.tensors if channels in (None, tensor[1])]
        # The newest are the likeliest, so that networks grow deep.
        return fitting[-1 - min(self.random.geometric(0.5) - 1, len(fitting) - 1)]

    def name(self, kind):
        self.count += 1
        return f'{kind}{self.count}'

    def convolution(self, tensor, kernel=3, **options):
        channels = self.random.choice([4, 6, 8])
        options.setdefault('num_filter', channels)
        made = mx.sym.Convolution(
            tensor[0],
            kernel=(kernel, kernel),
            pad=(kernel // 2, kernel // 2),
            no_bias=bool(self.random.randint(2)),
            name=self.name('conv'),
            **options,
        )
        return made, options['num_filter']

    def pointwise(self, tensor):
        return self.convolution(tensor, kernel=1)

    def grouped(self, tensor):
        return self.convolution(tensor, num_group=2, num_filter=6) if tensor[1] % 2 == 0 else None

    def depthwise(self, tensor):
        return self.convolution(tensor, num_group=tensor[1], num_filter=tensor[1])

    def norm(self, tensor):
        return mx.sym.BatchNorm(tensor[0], fix_gamma=bool(self.random.rand() < 0.3), name=self.name('bn')), tensor[1]

    def activation(self, tensor):
        kind = self.random.choice(['relu', 'tanh', 'sigmoid', 'leaky'])
        if kind == 'leaky':
            return mx.sym.LeakyReLU(tensor[0], act_type='leaky', slope=0.1), tensor[1]
        return mx.sym.Activation(tensor[0], act_type=kind), tensor[1]

    def add(self, tensor):
        return tensor[0] + self.pick(tensor[1])[0], tensor[1]

    def maximum(self, tensor):
        return mx.sym.broadcast_maximum(tensor[0], self.pick(tensor[1])[0]), tensor[1]

    def concat(self, tensor):
        other = self.pick()
        return mx.sym.Concat(tensor[0], other[0], dim=1), tensor[1] + other[1]

    def slice(self, tensor):
        half = tensor[1] // 2
        if half < 2:
            return None
        if tensor[1] % 2 == 0 and self.random.rand() < 0.5:
            return mx.sym.SliceChannel(tensor[0], num_outputs=2, axis=1)[self.random.randint(2)], half
        return mx.sym.slice_axis(tensor[0], axis=1, begin=1, end=-1), tensor[1] - 2

    def pool(self, tensor):
        kind = self.random.choice(['max', 'avg'])
        return mx.sym.Pooling(tensor[0], kernel=(3, 3), pad=(1, 1), stride=(1, 1), pool_type=kind), tensor[1]

    def gate(self, tensor):
        squeezed = mx.sym.Flatten(mx.sym.Pooling(tensor[0], global_pool=True, kernel=(1, 1), pool_type='avg'))
        excited = mx.sym.sigmoid(mx.sym.FullyConnected(squeezed, num_hidden=tensor[1], name=self.name('fc')))
        excited = mx.sym.expand_dims(mx.sym.expand_dims(excited, axis=2), axis=3)
        return mx.sym.broadcast_mul(tensor[0], excited), tensor[1]

    def there_and_back(self, tensor):
        moved = mx.sym.transpose(tensor[0], axes=(0, 2, 3, 1))
        return mx.sym.transpose(mx.sym.relu(moved), axes=(0, 3, 1, 2)), tensor[1]

    def shuffle(self, tensor):
        """The halves of the channels in turn; the shapes in codes or in numbers."""
        half = tensor[1] // 2
        if tensor[1] % 2:
            return None
        codes = bool(self.random.randint(2))
        split = mx.sym.reshape(tensor[0], shape=(0, -4, 2, -1, -2) if codes else (0, 2, half, *IMAGE[1:]))
        swapped = mx.sym.SwapAxis(split, dim1=1, dim2=2) if codes else mx.sym.transpose(split, axes=(0, 2, 1, 3, 4))
        return mx.sym.reshape(swapped, shape=(0, -3, -2) if codes else (0, tensor[1], *IMAGE[1:])), tensor[1]

    # λ, in all the forms that it may multiply in.

    def factor(self, *shape):
        """A λ of its own."""
        return mx.sym.Variable(self.name('lambda_'), shape=shape)

    def scale(self, tensor):
        return mx.sym.broadcast_mul(tensor[0], self.factor(1, tensor[1], 1, 1)), tensor[1]

    def scale_rank_1(self, tensor):
        """λ (1,) times a map of rank 4."""
        return mx.sym.broadcast_mul(tensor[0], self.factor(1)), tensor[1]

    def scale_block(self, tensor):
        """A piece (1,) of the vector of all blocks."""
        return mx.sym.broadcast_mul(tensor[0], self.blocks[self.random.randint(BLOCKS)]), tensor[1]

    def scale_first(self, tensor, factor=None):
        """λ (C,1,1,1) along the first axis, between two transpositions."""
        factor = self.factor(tensor[1]) if factor is None else factor
        moved = mx.sym.transpose(tensor[0], axes=(1, 0, 2, 3))
        moved = mx.sym.broadcast_mul(moved, mx.sym.reshape(factor, shape=(tensor[1], 1, 1, 1)))
        return mx.sym.transpose(self.perhaps_relu(moved), axes=(1, 0, 2, 3)), tensor[1]

    def scale_last(self, tensor, factor=None):
        """λ (C,) or (1,1,1,C) along the last axis, between two transpositions."""
        factor = self.factor(tensor[1]) if factor is None else factor
        if self.random.randint(2):
            factor = mx.sym.reshape(factor, shape=(1, 1, 1, tensor[1]))
        moved = mx.sym.broadcast_mul(mx.sym.transpose(tensor[0], axes=(0, 2, 3, 1)), factor)
        return mx.sym.transpose(self.perhaps_relu(moved), axes=(0, 3, 1, 2)), tensor[1]

    def scale_groups(self, tensor):
        """A row of the matrix of all groups, repeated over the channels of each group."""
        if tensor[1] % GROUPS:
            return None
        row = self.rows[self.random.randint(ROWS)]
        row = mx.sym.repeat(row, repeats=tensor[1] // GROUPS, axis=0 if self.squeezed else 1)
        row = mx.sym.reshape(row, shape=(-1,))
        return (self.scale_first if self.random.randint(2) else self.scale_last)(tensor, row)

    def scale_weight(self, tensor):
        """λ in the weight of a convolution, one for the whole or one for each channel."""
        channels, name = int(self.random.choice([4, 6, 8])), self.name('conv')
        shape = (channels, tensor[1], 1, 1)
        weight = mx.sym.Variable(f'{name}_weight', shape=shape)
        if self.random.randint(2):
            weight = mx.sym.broadcast_mul(weight, mx.sym.reshape(self.factor(channels), shape=(-1, 1, 1, 1)))
        else:
            weight = mx.sym.dot(self.factor(1, 1), mx.sym.reshape(weight, shape=(1, -1))).reshape(shape)
        return mx.sym.Convolution(
            tensor[0], weight=weight, num_filter=channels, kernel=(1, 1), no_bias=True, name=name
        ), channels

    def scale_norm(self, tensor):
        """λ in γ and β of a batch normalisation."""
        factor, name = self.factor(tensor[1]), self.name('bn')
        gamma, beta = (mx.sym.Variable(f'{name}_{role}', shape=(tensor[1],)) * factor for role in ('gamma', 'beta'))
        return mx.sym.BatchNorm(tensor[0], gamma=gamma, beta=beta, fix_gamma=False, name=name), tensor[1]

    def perhaps_relu(self, x):
        return mx.sym.relu(x) if self.random.randint(2) else x
