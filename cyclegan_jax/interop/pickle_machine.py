"""The programs in torch's files, carried out with nothing to call.

A .pth file holds a program for a stack machine that builds what was saved.
In Python's own reader a name in the program is any function of any module,
and the program calls it. Here a name is one of a short list of symbols, and
there is nothing behind it: what can be built are numbers, texts, lists,
dicts, and descriptions of tensors and of the storages they lie in. Every
opcode that torch doesn't write ends the reading.
"""

import struct
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

from cyclegan_jax.interop.errors import (
  DamagedError,
  RefusedError,
  shown,
)
from cyclegan_jax.interop.pickle_types import (
  NAMES,
  ORDERED_DICT,
  PARAMETER,
  TENSOR,
  TENSOR_V2,
  Storage,
  Symbol,
  Tensor,
  checked_key,
  describe_storage,
  describe_tensor,
  typed,
)

# By the number of opcodes, not of bytes, so that memory and time are bounded:
# a checkpoint of 500 layers with Adam's state takes about 100,000.
MAX_OPCODES = 1_000_000
MAX_TEXT_BYTES = 2**20
MAX_PROGRAM_BYTES = 2**26
_MAX_NAME_BYTES = 256
_MAX_LONG_BYTES = 16


class Result(NamedTuple):
  """What a program has built.

  Attributes:
    value: a Tensor, Storage, Symbol, number, text, None, or a dict, list or
      tuple of them: nested as deep as the program likes, and maybe inside of
      itself.
    storages: all that it spoke of, by their keys.
  """

  value: Any
  storages: dict[str, Storage]


def run_program(file: BinaryIO) -> Result:
  """Builds what the program at the file's place describes.

  Args:
    file: stands behind the program's last byte afterwards.

  Raises:
    DamagedError: it is no program.
    RefusedError: it is one, but not of the kind that saves weights.
  """
  return _Machine(file).run()


class _Machine:
  """The stack, the memo, and what is left of the allowance."""

  def __init__(self, file: BinaryIO) -> None:
    self._file = file
    self._stack: list[Any] = []
    self._marks: list[int] = []  # heights of the stack
    self._memo: dict[int, Any] = {}
    self._storages: dict[str, Storage] = {}
    self._num_steps = self._num_bytes = 0

  def run(self) -> Result:
    while True:
      self._count_steps(1)
      opcode = self._read(1)
      if opcode == b'.':
        break
      action = _ACTIONS.get(opcode)
      if action is None:
        raise RefusedError(
          f'uses opcode 0x{opcode[0]:02x}, which torch.save does not write'
        )
      action(self)
    if len(self._stack) != 1 or self._marks:
      raise DamagedError('its program ends half-way')
    return Result(self._stack[0], self._storages)

  # The file.

  def _count_steps(self, count: int) -> None:
    self._num_steps += count
    if self._num_steps > MAX_OPCODES:
      raise RefusedError(f'has a program of more than {MAX_OPCODES:,} steps')

  def _read(self, size: int) -> bytes:
    data = self._file.read(size)
    self._note_bytes(size)
    if len(data) != size:
      raise DamagedError('it ends in the middle of its program')
    return data

  def _note_bytes(self, count: int) -> None:
    self._num_bytes += count
    if self._num_bytes > MAX_PROGRAM_BYTES:
      raise RefusedError(
        f'has a program of more than {MAX_PROGRAM_BYTES:,} bytes'
      )

  def _unsigned(self, size: int) -> int:
    return int.from_bytes(self._read(size), 'little')

  def _line(self) -> str:
    line = self._file.readline(_MAX_NAME_BYTES)
    self._note_bytes(len(line))
    if not line.endswith(b'\n'):
      raise DamagedError('its program has a name without an end')
    return line[:-1].decode('ascii', 'backslashreplace')

  # The stack.

  def _pop(self, kind: type | None = None) -> Any:
    if len(self._stack) <= (self._marks[-1] if self._marks else 0):
      raise DamagedError('its program takes from an empty stack')
    value = self._stack.pop()
    return value if kind is None else typed(value, kind)

  def _top(self, kind: type) -> Any:
    value = self._pop(kind)
    self._stack.append(value)
    return value

  def _pop_to_mark(self) -> list[Any]:
    if not self._marks:
      raise DamagedError('its program misses a mark')
    height = self._marks.pop()
    values = self._stack[height:]
    del self._stack[height:]
    return values

  # The opcodes.

  def check_protocol(self) -> None:
    version = self._unsigned(1)
    if version != 2:
      raise RefusedError(
        f'was saved with pickle_protocol={version}, and 2 is what is read'
      )

  def push_mark(self) -> None:
    self._marks.append(len(self._stack))

  def push_text(self, length_bytes: int, encoding: str) -> None:
    length = self._unsigned(length_bytes)
    if length > MAX_TEXT_BYTES:
      raise RefusedError(
        f'has a text of {length:,} bytes, more than {MAX_TEXT_BYTES:,}'
      )
    try:
      self._stack.append(self._read(length).decode(encoding))
    except UnicodeDecodeError as error:
      raise DamagedError('a text of its program is not UTF-8') from error

  def push_integer(self, size: int, *, signed: bool = False) -> None:
    data = self._read(size)
    self._stack.append(int.from_bytes(data, 'little', signed=signed))

  def push_long(self) -> None:
    size = self._unsigned(1)
    if size > _MAX_LONG_BYTES:
      raise RefusedError(f'has a number of {size} bytes')
    self.push_integer(size, signed=True)

  def push_float(self) -> None:
    self._stack.append(struct.unpack('>d', self._read(8))[0])

  def push(self, value: Any) -> None:
    self._stack.append(value)

  def push_tuple(self, size: int) -> None:
    values = [self._pop() for _ in range(size)]
    self._stack.append(tuple(reversed(values)))

  def push_marked_tuple(self) -> None:
    values = self._pop_to_mark()
    self._stack.append(tuple(values))

  def append(self) -> None:
    value = self._pop()
    self._top(list).append(value)

  def append_marked(self) -> None:
    values = self._pop_to_mark()
    self._top(list).extend(values)

  def set_item(self) -> None:
    value, key = self._pop(), self._pop()
    self._top(dict)[checked_key(key)] = value

  def set_marked_items(self) -> None:
    values = self._pop_to_mark()
    if len(values) % 2:
      raise DamagedError('its program has a key without a value')
    keys = [checked_key(each) for each in values[::2]]
    self._top(dict).update(zip(keys, values[1::2], strict=True))

  def memoize(self, size: int) -> None:
    index = self._unsigned(size)
    value = self._pop()
    self._memo[index] = value
    self._stack.append(value)

  def recall(self, size: int) -> None:
    index = self._unsigned(size)
    if index not in self._memo:
      raise DamagedError('its program recalls what it never noted')
    self._stack.append(self._memo[index])

  def push_symbol(self) -> None:
    name = self._line(), self._line()
    if name not in NAMES:
      raise RefusedError(
        f'asks for {shown(".".join(name))}, which no weights need'
      )
    self._stack.append(Symbol(name))

  def push_storage(self) -> None:
    storage = describe_storage(self._pop(tuple))
    known = self._storages.setdefault(storage.key, storage)
    if (known.dtype, known.size) != (storage.dtype, storage.size):
      raise DamagedError(
        f'storage {shown(storage.key)} is described in two ways'
      )
    self._stack.append(storage)

  def reduce(self) -> None:
    values = self._pop(tuple)
    name = self._pop(Symbol).name
    if name == ORDERED_DICT:
      self._stack.append(self._ordered_dict(values))
    elif name in (TENSOR, TENSOR_V2):
      self._stack.append(describe_tensor(values))
    elif name == PARAMETER:
      if not values:
        raise DamagedError('a parameter is described by nothing')
      self._stack.append(typed(values[0], Tensor))
    else:
      raise RefusedError(f'calls {".".join(name)}')

  def build(self) -> None:
    # Of an OrderedDict: the versions of torch's layers, in '_metadata'.
    self._pop(dict)
    self._top(dict)

  def _ordered_dict(self, values: tuple[Any, ...]) -> dict[Any, Any]:
    """Empty, or of the pairs in a list, as Python 2 wrote it."""
    if not values:
      return {}
    if len(values) != 1:
      raise DamagedError('an OrderedDict is described by too much')
    pairs = typed(values[0], list)
    self._count_steps(len(pairs))
    if any(type(each) not in (list, tuple) or len(each) != 2 for each in pairs):
      raise DamagedError('an OrderedDict is made of what are no pairs')
    return {checked_key(key): value for key, value in pairs}


_ACTIONS: dict[bytes, Callable[[_Machine], None]] = {
  b'\x80': _Machine.check_protocol,
  b'(': _Machine.push_mark,
  b'N': lambda m: m.push(None),
  b'\x88': lambda m: m.push(True),
  b'\x89': lambda m: m.push(False),
  b'K': lambda m: m.push_integer(1),
  b'M': lambda m: m.push_integer(2),
  b'J': lambda m: m.push_integer(4, signed=True),
  b'\x8a': _Machine.push_long,
  b'G': _Machine.push_float,
  b'X': lambda m: m.push_text(4, 'utf-8'),
  b'U': lambda m: m.push_text(1, 'latin-1'),
  b'T': lambda m: m.push_text(4, 'latin-1'),
  b')': lambda m: m.push(()),
  b'\x85': lambda m: m.push_tuple(1),
  b'\x86': lambda m: m.push_tuple(2),
  b'\x87': lambda m: m.push_tuple(3),
  b't': _Machine.push_marked_tuple,
  b']': lambda m: m.push([]),
  b'a': _Machine.append,
  b'e': _Machine.append_marked,
  b'}': lambda m: m.push({}),
  b's': _Machine.set_item,
  b'u': _Machine.set_marked_items,
  b'q': lambda m: m.memoize(1),
  b'r': lambda m: m.memoize(4),
  b'h': lambda m: m.recall(1),
  b'j': lambda m: m.recall(4),
  b'c': _Machine.push_symbol,
  b'R': _Machine.reduce,
  b'b': _Machine.build,
  b'Q': _Machine.push_storage,
}
