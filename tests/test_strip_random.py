"""Networks that nobody would draw: random graphs of every kind of layer, with λ at random places and random channels dead, strip to the same function."""
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from strip_networks import IMAGE, SHAPES, images, predict, random_parameters, strip_twice, with_dead

from graphs.alive import AliveCounter
from graphs.graph import Graph
from graphs.onednn_workaround import guard_sums
from runtime import mx
from runtime.errors import NothingLeftError

EXAMPLES = 60


class Drawing:
    """A random network: every step takes tensors that exist already and makes another, of the same height and width."""

    def __init__(self, seed):
        self.random = np.random.RandomState(seed)
        self.count = 0
        self.tensors = [(self.convolution((mx.sym.Variable('data'), IMAGE[0])))]
        steps = [self.convolution, self.pointwise, self.grouped, self.depthwise, self.norm, self.scale, self.scale, self.activation, self.add, self.add,
                 self.concat, self.slice, self.pool, self.gate, self.maximum, self.there_and_back]
        for _ in range(self.random.randint(6, 16)):
            step = steps[self.random.randint(len(steps))]
            made = step(self.pick())
            if made is not None:
                self.tensors.append(made)

    def symbol(self):
        """All of the last few tensors concatenated, pooled (or flattened as they are) and classified."""
        ends = self.tensors[-self.random.randint(1, 4):]
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
        made = mx.sym.Convolution(tensor[0], kernel=(kernel, kernel), pad=(kernel // 2, kernel // 2), no_bias=bool(self.random.randint(2)),
                                  name=self.name('conv'), **options)
        return made, options['num_filter']

    def pointwise(self, tensor):
        return self.convolution(tensor, kernel=1)

    def grouped(self, tensor):
        return self.convolution(tensor, num_group=2, num_filter=6) if tensor[1] % 2 == 0 else None

    def depthwise(self, tensor):
        return self.convolution(tensor, num_group=tensor[1], num_filter=tensor[1])

    def norm(self, tensor):
        return mx.sym.BatchNorm(tensor[0], fix_gamma=bool(self.random.rand() < 0.3), name=self.name('bn')), tensor[1]

    def scale(self, tensor):
        factor = mx.sym.Variable(self.name('lambda_'), shape=(1, tensor[1], 1, 1))
        return mx.sym.broadcast_mul(tensor[0], factor), tensor[1]

    def activation(self, tensor):
        kind = self.random.choice(['relu', 'tanh', 'sigmoid', 'leaky'])
        made = mx.sym.LeakyReLU(tensor[0], act_type='leaky', slope=0.1) if kind == 'leaky' else mx.sym.Activation(tensor[0], act_type=kind)
        return made, tensor[1]

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
        return mx.sym.broadcast_mul(tensor[0], mx.sym.expand_dims(mx.sym.expand_dims(excited, axis=2), axis=3)), tensor[1]

    def there_and_back(self, tensor):
        moved = mx.sym.transpose(tensor[0], axes=(0, 2, 3, 1))
        return mx.sym.transpose(mx.sym.relu(moved), axes=(0, 3, 1, 2)), tensor[1]


@settings(max_examples=EXAMPLES)
@given(st.integers(0, 2 ** 32 - 1), st.sampled_from([0.3, 0.6, 0.95]), st.sampled_from([{}, {'fold_bn': True}, {'for_training': True}]))
def test_any_graph(seed, share, options):
    with mx.name.NameManager():
        symbol = Drawing(seed).symbol()
    arg_params, aux_params = random_parameters(symbol, seed=seed)
    random = np.random.RandomState(seed)
    dead = {name: random.uniform(size=array.shape) < share for name, array in arg_params.items() if 'lambda' in name}
    arg_params = with_dead(arg_params, dead)
    data = images()
    expected = logits(symbol, arg_params, aux_params, data)
    try:
        stripped = strip_twice(symbol, arg_params, aux_params, **options)
    except NothingLeftError:
        assert np.abs(expected - expected[:1]).max() <= 1e-6 * np.abs(expected).max()
        return
    assert np.abs(logits(*stripped[:3], data) - expected).max() <= 2e-5 * max(1, np.abs(expected).max())
    assert stripped.report['after']['macs'] <= stripped.report['before']['macs']
    assert not [name for name in stripped.symbol.list_arguments() if 'lambda' in name]
    assert AliveCounter(symbol, SHAPES)(arg_params).macs >= stripped.report['after']['macs']


def logits(symbol, arg_params, aux_params, data):
    """What stands in front of the softmax, by the operators as they are: see ``graphs.onednn_workaround``."""
    graph = Graph.from_symbol(symbol.get_internals()['fc1_output'])
    guard_sums(graph)
    return predict(graph.to_symbol(), arg_params, aux_params, data)
