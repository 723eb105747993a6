"""The pickle inside a PyTorch file, read as data.

A pickle is a program. This machine knows only the instructions that a state dict is made of, and none of them calls
anything: a class or function that the pickle names stays a name, a call of it becomes a note of what would have been
called with what. So nothing can be executed, whatever the file says, and neither ``pickle`` nor PyTorch is needed.
"""

import collections
import pickletools
import struct

from runtime.errors import CheckpointError

# Some 40 a tensor: enough for ResNet-152 with the state of its optimizer, and read in under a second.
MAX_INSTRUCTIONS = 200_000
# The name of a class is one line; a longer number takes Python minutes.
MAX_LINE = 1000

Name = collections.namedtuple('Name', 'dotted')
Call = collections.namedtuple('Call', 'function arguments')
Stored = collections.namedtuple('Stored', 'reference')
_MARK = object()

_PUSH_ARGUMENT = {
    'BININT',
    'BININT1',
    'BININT2',
    'LONG1',
    'BINFLOAT',
    'BINUNICODE',
    'SHORT_BINUNICODE',
    'BINUNICODE8',
    'BINBYTES',
    'SHORT_BINBYTES',
    'BINSTRING',
    'SHORT_BINSTRING',
}
_PUSH_NEW = {
    'NONE': lambda: None,
    'NEWTRUE': lambda: True,
    'NEWFALSE': lambda: False,
    'EMPTY_TUPLE': tuple,
    'EMPTY_LIST': list,
    'EMPTY_DICT': dict,
}
_TUPLE_SIZES = {'TUPLE1': 1, 'TUPLE2': 2, 'TUPLE3': 3}
_IGNORED = {'PROTO', 'FRAME'}


def read_pickle(source, path, size):
    """Read one pickle from the binary file ``source`` of ``size`` bytes, which then stands behind it.

    Returns plain Python values, with ``Name`` for a class or function, ``Call`` for a call and ``Stored`` for a
    persistent reference. An ``OrderedDict()`` is a dict. Raises CheckpointError for anything that no state dict holds.
    """
    machine = _Machine()
    try:
        for count, (instruction, argument, _) in enumerate(pickletools.genops(_WithinFile(source, size))):
            if count > MAX_INSTRUCTIONS:
                raise CheckpointError('the pickle is longer than any state dict')
            if instruction.name == 'STOP':
                return machine.pop()
            machine.step(instruction.name, argument)
    except CheckpointError as error:
        raise CheckpointError(f'{path}: {error}') from None
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, struct.error) as error:
        raise CheckpointError(
            f'{path}: the pickle in it is damaged ({type(error).__name__}: {str(error)[:100]})'
        ) from None
    raise CheckpointError(f'{path}: the pickle in it does not end')


class _WithinFile:
    """A file that never reads past its end: a plain ``read`` allocates any length that a damaged file claims."""

    def __init__(self, source, size):
        self.source, self.size = source, size
        self.tell = source.tell

    def read(self, count):
        return self.source.read(min(count, self.size - self.source.tell()))

    def readline(self):
        return self.source.readline(MAX_LINE)


class _Machine:
    """A stack and a memo, as in pickle, without the power to call."""

    def __init__(self):
        self.stack, self.memo = [], {}

    def step(self, name, argument):
        if name in _PUSH_ARGUMENT:
            self.stack.append(argument)
        elif name in _PUSH_NEW:
            self.stack.append(_PUSH_NEW[name]())
        elif name in _TUPLE_SIZES:
            self.stack.append(tuple(self.pop_many(_TUPLE_SIZES[name])))
        elif name not in _IGNORED:
            handler = _HANDLERS.get(name)
            if handler is None:
                raise CheckpointError(
                    f'the pickle in it uses {name}, which no state dict needs; save model.state_dict() instead'
                )
            handler(self, argument)

    def pop(self):
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError('a mark where a value should be')
        return value

    def pop_many(self, count):
        return [self.pop() for _ in range(count)][::-1]

    def pop_to_mark(self):
        items = []
        while self.stack[-1] is not _MARK:
            items.append(self.stack.pop())
        self.stack.pop()
        return items[::-1]

    def remember(self, key):
        self.memo[key] = self.stack[-1]

    def recall(self, key):
        self.stack.append(self.memo[key])

    def push_name(self, *parts):
        # A tuple that holds another one twice, which holds another one twice, would be a name without end.
        if not all(isinstance(part, str) for part in parts):
            raise ValueError('a name that is not text')
        self.stack.append(Name('.'.join(parts)))

    def call(self):
        function, arguments = self.pop_many(2)
        is_empty_dict = function == Name('collections.OrderedDict') and arguments == ()
        self.stack.append({} if is_empty_dict else Call(function, arguments))

    def set_items(self, pairs):
        target = self.stack[-1]
        if len(pairs) % 2:
            raise ValueError('a key without a value')
        for key, value in zip(pairs[::2], pairs[1::2]):
            # Other keys (a deeply nested tuple, say) could exhaust the stack of C while they are hashed.
            if not isinstance(key, (str, int)):
                raise ValueError('a key that is neither text nor number')
            if isinstance(target, dict):
                target[key] = value

    def append_items(self, items):
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)


_HANDLERS = {
    'MARK': lambda machine, _: machine.stack.append(_MARK),
    'TUPLE': lambda machine, _: machine.stack.append(tuple(machine.pop_to_mark())),
    'BINPUT': _Machine.remember,
    'LONG_BINPUT': _Machine.remember,
    'MEMOIZE': lambda machine, _: machine.remember(len(machine.memo)),
    'BINGET': _Machine.recall,
    'LONG_BINGET': _Machine.recall,
    'GLOBAL': lambda machine, name: machine.push_name(name.replace(' ', '.')),
    'STACK_GLOBAL': lambda machine, _: machine.push_name(*machine.pop_many(2)),
    'BINPERSID': lambda machine, _: machine.stack.append(Stored(machine.pop())),
    'REDUCE': lambda machine, _: machine.call(),
    'NEWOBJ': lambda machine, _: machine.call(),
    # The state of an object is not needed: an OrderedDict carries its _metadata there.
    'BUILD': lambda machine, _: machine.pop(),
    'SETITEM': lambda machine, _: machine.set_items(machine.pop_many(2)),
    'SETITEMS': lambda machine, _: machine.set_items(machine.pop_to_mark()),
    'APPEND': lambda machine, _: machine.append_items(machine.pop_many(1)),
    'APPENDS': lambda machine, _: machine.append_items(machine.pop_to_mark()),
}
