"""The pickle inside a PyTorch file, read as data.

A pickle is a program. The machine in this module knows only the instructions that a state dict is made of, and none of
them calls anything: a class or function becomes a ``Name``, a call becomes a ``Call``, which holds the function and the
arguments. So nothing can be executed, whatever the file says, and neither ``pickle`` nor PyTorch is needed.
"""

import pickletools
import struct
from typing import Any, BinaryIO, Callable, Dict, List, NamedTuple, Sequence

from runtime.errors import CheckpointError

# Some 40 a tensor: enough for ResNet-152 with the state of its optimizer, and read in under a second.
MAX_INSTRUCTIONS = 200_000
# The name of a class is one line; a longer number takes Python minutes.
MAX_LINE = 1000


class Name(NamedTuple):
    """A class or a function, by its module and name with dots between."""

    dotted: str


class Call(NamedTuple):
    """A call that the pickle asks for and that is not made: a function and its arguments, as far as they are sound."""

    function: Any
    arguments: Any


class Stored(NamedTuple):
    """A persistent reference: in PyTorch's files, what describes a storage."""

    reference: Any


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
_PUSH_NEW: Dict[str, Callable[[], object]] = {
    'NONE': lambda: None,
    'NEWTRUE': lambda: True,
    'NEWFALSE': lambda: False,
    'EMPTY_TUPLE': tuple,
    'EMPTY_LIST': list,
    'EMPTY_DICT': dict,
}
_TUPLE_SIZES = {'TUPLE1': 1, 'TUPLE2': 2, 'TUPLE3': 3}
_IGNORED = {'PROTO', 'FRAME'}


def read_pickle(source: BinaryIO, path: str, size: int) -> Any:
    """Read one pickle from the current position of the binary file ``source`` of ``size`` bytes.

    Returns plain Python values, with ``Name`` for a class or function, ``Call`` for a call and ``Stored`` for a
    persistent reference. An ``OrderedDict()`` is a dict. Raises CheckpointError for anything that no state dict holds;
    ``path`` is what it calls the file.
    """
    machine = _Machine()
    try:
        # It needs nothing but read, readline and tell, though its type asks for all of a file.
        instructions = pickletools.genops(_WithinFile(source, size))  # type: ignore[arg-type]
        for count, (instruction, argument, _) in enumerate(instructions):
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

    def __init__(self, source: BinaryIO, size: int) -> None:
        self.source, self.size = source, size
        self.tell = source.tell

    def read(self, count: int) -> bytes:
        """Up to ``count`` bytes."""
        return self.source.read(min(count, self.size - self.source.tell()))

    def readline(self) -> bytes:
        """The next line, at most MAX_LINE bytes of it."""
        return self.source.readline(MAX_LINE)


class _Machine:
    """A stack and a memo, as in pickle, that cannot call anything. Where an instruction makes no sense, it raises
    ValueError, IndexError, KeyError or TypeError.
    """

    def __init__(self) -> None:
        self.stack: List[Any] = []
        self.memo: Dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Carry out the instruction ``name`` of ``pickletools``. Raises CheckpointError for one that no state dict
        needs.
        """
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

    def pop(self) -> Any:
        """Take the last value off the stack."""
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError('a mark where a value should be')
        return value

    def pop_many(self, count: int) -> List[Any]:
        """Take the last ``count`` values off the stack, in the order in which they were put there."""
        return [self.pop() for _ in range(count)][::-1]

    def pop_to_mark(self) -> List[Any]:
        """Take all values behind the last mark, and the mark, off the stack."""
        items = []
        while self.stack[-1] is not _MARK:
            items.append(self.stack.pop())
        self.stack.pop()
        return items[::-1]

    def remember(self, key: int) -> None:
        """Keep the last value of the stack in the memo."""
        self.memo[key] = self.stack[-1]

    def recall(self, key: int) -> None:
        """Put a value of the memo onto the stack."""
        self.stack.append(self.memo[key])

    def push_name(self, *parts: object) -> None:
        # A tuple that holds another one twice, which holds another one twice, would be a name without end.
        """Put a Name of these ``parts`` onto the stack."""
        texts = [part for part in parts if isinstance(part, str)]
        if len(texts) < len(parts):
            raise ValueError('a name that is not text')
        self.stack.append(Name('.'.join(texts)))

    def call(self) -> None:
        """Replace a function and its arguments by a Call, or by a dict for ``OrderedDict()``."""
        function, arguments = self.pop_many(2)
        is_empty_dict = function == Name('collections.OrderedDict') and arguments == ()
        self.stack.append({} if is_empty_dict else Call(function, arguments))

    def set_items(self, pairs: Sequence[Any]) -> None:
        """Put ``pairs``, keys and values in turn, into the dict on the stack; other objects ignore them."""
        target = self.stack[-1]
        if len(pairs) % 2:
            raise ValueError('a key without a value')
        for key, value in zip(pairs[::2], pairs[1::2]):
            # Other keys (a deeply nested tuple, say) could exhaust the stack of C while they are hashed.
            if not isinstance(key, (str, int)):
                raise ValueError('a key that is neither text nor number')
            if isinstance(target, dict):
                target[key] = value

    def append_items(self, items: Sequence[Any]) -> None:
        """Put ``items`` into the list on the stack; other objects ignore them."""
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)


_HANDLERS: Dict[str, Callable[[_Machine, Any], object]] = {
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
