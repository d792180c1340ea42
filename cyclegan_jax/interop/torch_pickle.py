"""The pickled programs in torch.save files, read and written without torch.

A pickle is a program for a stack machine, and unpickling calls any function
that the program names. So a program is first checked without being run, and
then unpickled with a short list of names. Their functions here only describe
tensors and the storages that hold the numbers.
"""

import io
import math
import pickle
import pickletools
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from cyclegan_jax.interop.errors import (
  DamagedFileError,
  RefusedFileError,
  shown,
)

MAX_PROGRAM_BYTES = 2**26
# Bounds memory and time: a checkpoint of 500 layers with the state of Adam
# has about 100,000.
MAX_OPCODES = 1_000_000
_MAX_DIMS = 16
_MAX_ARGUMENTS = 7

_STORAGE_DTYPES = {
  ('torch', 'FloatStorage'): 'float32',
  ('torch', 'HalfStorage'): 'float16',
  ('torch', 'BFloat16Storage'): 'bfloat16',
  ('torch', 'DoubleStorage'): 'float64',
  ('torch', 'LongStorage'): 'int64',
  ('torch', 'IntStorage'): 'int32',
  ('torch', 'ShortStorage'): 'int16',
  ('torch', 'CharStorage'): 'int8',
  ('torch', 'ByteStorage'): 'uint8',
  ('torch', 'BoolStorage'): 'bool',
  ('torch.storage', 'UntypedStorage'): 'uint8',
}
# What torch.save writes with Python 2 and 3.
_OPCODES = frozenset(
  {
    *('PROTO', 'STOP', 'MARK', 'GLOBAL', 'REDUCE', 'BUILD', 'BINPERSID'),
    *('NONE', 'NEWTRUE', 'NEWFALSE', 'BINFLOAT'),
    *('BININT', 'BININT1', 'BININT2', 'LONG1'),
    *('BINUNICODE', 'BINSTRING', 'SHORT_BINSTRING'),
    *('EMPTY_TUPLE', 'TUPLE', 'TUPLE1', 'TUPLE2', 'TUPLE3'),
    *('EMPTY_LIST', 'APPEND', 'APPENDS', 'EMPTY_DICT', 'SETITEM', 'SETITEMS'),
    *('BINPUT', 'LONG_BINPUT', 'BINGET', 'LONG_BINGET'),
  }
)
_UNPICKLING_ERRORS = (
  ArithmeticError,
  AttributeError,
  EOFError,
  LookupError,
  TypeError,
  ValueError,
  pickle.UnpicklingError,
)
_KEY_TYPES = ('str', 'bytes_or_str', 'int')  # as pickletools names them


class Storage(NamedTuple):
  """Numbers in a row, somewhere in the file.

  Attributes:
    key: their name in the file.
    dtype: NumPy's name of their type, or 'bfloat16'.
    size: number of elements of the whole storage, as the program claims.
    start: first element of the part that is used.
    length: number of elements of that part.
  """

  key: str
  dtype: str
  size: int
  start: int
  length: int

  @property
  def stored_dtype(self) -> np.dtype[Any]:
    """NumPy dtype of the bytes in the file, always with the low byte first."""
    stored = {'bfloat16': 'uint16', 'bool': 'uint8'}
    return np.dtype(stored.get(self.dtype, self.dtype)).newbyteorder('<')

  @property
  def num_bytes(self) -> int:
    """Bytes that the whole storage takes in the file."""
    return self.size * self.stored_dtype.itemsize


class Tensor(NamedTuple):
  """View of a storage: offset and strides in elements, bounds unchecked."""

  storage: Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


class StateDict(dict[Any, Any]):
  """Stands for an OrderedDict, which would let a program set attributes."""

  __slots__ = ()

  def __setstate__(self, state: object) -> None:
    """Ignores the versions of layers, which are an attribute in torch."""


class Program(NamedTuple):
  """Result of a program.

  Attributes:
    value: a Tensor, Storage, number, text, None, or a dict, list or tuple of
      them, of any depth. A list or dict may contain itself.
    storages: every storage that the program names, by key.
  """

  value: Any
  storages: dict[str, Storage]


def load_program(file: BinaryIO) -> Program:
  """Unpickles the program at the file's position.

  Args:
    file: a file in memory. Afterwards its position is behind the program.

  Raises:
    DamagedFileError: it is not a valid program.
    RefusedFileError: the program does more than describe tensors.
  """
  start = file.tell()
  _check_program(file)
  size = file.tell() - start
  file.seek(start)
  unpickler = _TensorUnpickler(file.read(size))
  try:
    value = unpickler.load()
  except _UNPICKLING_ERRORS as error:
    raise DamagedFileError(
      f'its program fails with {type(error).__name__}'
    ) from error
  return Program(value, unpickler.storages)


def _check_program(file: BinaryIO) -> None:
  """Reads a program up to its end without running it.

  Checks what the unpickler could not: the opcodes, how many there are, memo
  indices (memory grows with the largest) and keys of dicts (the hash of nested
  tuples takes exponential time).
  """
  stack: list[str] = []  # types, as pickletools names them
  marks: list[int] = []  # heights of the stack
  memo: dict[int, str] = {}
  opcodes = enumerate(pickletools.genops(file), start=1)
  try:
    for number, (opcode, operand, _) in opcodes:
      argument: Any = operand
      _check_opcode(opcode.name, argument, number)
      match opcode.name:
        case 'MARK':
          marks.append(len(stack))
        case 'BINPUT' | 'LONG_BINPUT':
          memo[argument] = stack[-1]
        case 'BINGET' | 'LONG_BINGET':
          stack.append(memo[argument])
        case 'SETITEM':
          _check_keys(stack[-2:-1])
          del stack[-2:]
        case 'SETITEMS':
          _check_keys(stack[marks[-1] :: 2])
          del stack[marks.pop() :]
        case 'APPENDS':
          del stack[marks.pop() :]
        case 'TUPLE':
          stack[marks.pop() :] = ['tuple']
        case _:
          # Where the stack is too small, the unpickler will stop here.
          height = max(0, len(stack) - len(opcode.stack_before))
          stack[height:] = [result.name for result in opcode.stack_after]
  # Backslashes in a name give a warning, which a filter may raise.
  except (LookupError, ValueError, Warning) as error:
    raise DamagedFileError('its program is cut short or invalid') from error


def _check_opcode(name: str, argument: Any, number: int) -> None:
  if name not in _OPCODES:
    raise RefusedFileError(
      f'uses the pickle opcode {name}, which torch.save does not write'
    )
  _check_count(number)
  if name == 'PROTO' and argument != 2:
    raise RefusedFileError(
      f'was saved with pickle_protocol={argument}; only 2 is supported'
    )
  if name in ('BINPUT', 'LONG_BINPUT') and argument >= number:
    raise RefusedFileError(f'has a memo index of {argument:,}')
  if name == 'LONG1' and argument.bit_length() > 63:
    raise RefusedFileError('has an integer of more than 63 bits')


def _check_count(number: int) -> None:
  if number > MAX_OPCODES:
    raise RefusedFileError(f'has a program of more than {MAX_OPCODES:,} steps')


def _check_keys(types: list[str]) -> None:
  for name in types:
    if name not in _KEY_TYPES:
      raise DamagedFileError(f'a key of a dict is of type {name}')


def _require(value: Any, kind: type) -> Any:
  """Returns the value if it is of exactly this type: True is no integer."""
  if type(value) is not kind:
    raise DamagedFileError(
      f'its program has a {type(value).__name__} in place of a {kind.__name__}'
    )
  return value


class _StorageType(NamedTuple):
  """Stands for a class such as torch.FloatStorage."""

  dtype: str


class _Function(NamedTuple):
  """Stands for a function of torch: a tuple, which no program can change."""

  function: Callable[..., Any]

  def __call__(self, *arguments: Any) -> Any:
    # A program may pass one long tuple to many calls.
    if len(arguments) > _MAX_ARGUMENTS:
      raise DamagedFileError(f'a call has {len(arguments):,} arguments')
    return self.function(*arguments)


class _TensorUnpickler(pickle.Unpickler):
  """Unpickles a checked program with a closed list of names."""

  def __init__(self, program: bytes) -> None:
    # Python 2 wrote texts as bytes.
    super().__init__(io.BytesIO(program), encoding='latin-1')
    self.storages: dict[str, Storage] = {}
    self._num_pairs = 0
    self._names: dict[tuple[str, str], object] = {
      ('collections', 'OrderedDict'): _Function(self._make_dict),
      ('torch._utils', '_rebuild_tensor'): _Function(_make_tensor),
      ('torch._utils', '_rebuild_tensor_v2'): _Function(_make_tensor),
      ('torch._utils', '_rebuild_parameter'): _Function(_unwrap_parameter),
    }
    for name, dtype in _STORAGE_DTYPES.items():
      self._names[name] = _StorageType(dtype)

  def find_class(self, module: str, name: str) -> object:
    """Looks a name up in the list; nothing is imported."""
    if (module, name) not in self._names:
      raise RefusedFileError(
        f'asks for {shown(f"{module}.{name}")}, which no weights need'
      )
    return self._names[module, name]

  def persistent_load(self, pid: Any) -> Storage:
    """Describes a storage.

    Args:
      pid: ('storage', type, key, device, size), in old files with a view or
        None behind it. The view is (key, first element, number of elements).
    """
    kind, storage_type, key, _, size, *rest = _require(pid, tuple)
    if _require(kind, str) != 'storage' or len(rest) > 1:
      raise DamagedFileError('a reference to a storage is malformed')
    _require(key, str)
    dtype = _require(storage_type, _StorageType).dtype
    start, length = 0, _require(size, int)
    if rest and rest[0] is not None:
      _, start, length = _require(rest[0], tuple)
    end = _require(start, int) + _require(length, int)
    if min(start, length, size - end) < 0:
      raise DamagedFileError(f'a part of storage {shown(key)} is outside of it')
    storage = Storage(key, dtype, size, start, length)
    first = self.storages.setdefault(key, storage)
    if (first.dtype, first.size) != (dtype, size):
      raise DamagedFileError(f'storage {shown(key)} has two descriptions')
    return storage

  def _make_dict(self, pairs: Any = ()) -> StateDict:
    """Makes a dict: empty, or of the list of pairs that Python 2 wrote."""
    # A program may pass one long list to many calls.
    self._num_pairs += len(pairs)
    _check_count(self._num_pairs)
    for key, _ in pairs:
      if type(key) is not int:
        _require(key, str)
    return StateDict(pairs)


def _make_tensor(
  storage: Any, offset: Any, shape: Any, strides: Any, *_: Any
) -> Tensor:
  """Describes a tensor; what torch adds behind the strides is not needed."""
  _require(storage, Storage)
  if len(_require(shape, tuple)) != len(_require(strides, tuple)):
    raise DamagedFileError('a tensor has other dimensions than strides')
  if len(shape) > _MAX_DIMS:
    raise RefusedFileError(f'has a tensor of {len(shape)} dimensions')
  if any(_require(number, int) < 0 for number in (offset, *shape, *strides)):
    raise DamagedFileError('a tensor has a negative size, stride or offset')
  return Tensor(storage, offset, shape, strides)


def _unwrap_parameter(tensor: Any, *_: Any) -> Tensor:
  return _require(tensor, Tensor)


_STORAGE_NAMES = {
  dtype: f'{module}\n{name}\n'.encode()
  for (module, name), dtype in _STORAGE_DTYPES.items()
  if module == 'torch'
}
_EMPTY_ORDERED_DICT = b'ccollections\nOrderedDict\n)R'


def dump_program(tensors: Mapping[str, tuple[tuple[int, ...], str]]) -> bytes:
  """Writes a program that builds an OrderedDict of tensors.

  pickle.Pickler cannot write it: it imports the modules that it names.

  Args:
    tensors: shape and dtype by name. The storage of the n-th tensor, counted
      from zero, has the key 'n' and holds the elements row by row.

  Raises:
    ValueError: torch has no such dtype.
  """
  parts = [b'\x80\x02', _EMPTY_ORDERED_DICT, b'(']
  for index, (name, (shape, dtype)) in enumerate(tensors.items()):
    if dtype not in _STORAGE_NAMES:
      raise ValueError(f'{name} is of {dtype}, which torch does not have')
    strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    parts += [
      _opcodes(name),
      b'ctorch._utils\n_rebuild_tensor_v2\n(',
      b'(' + _opcodes('storage') + b'c' + _STORAGE_NAMES[dtype],
      *map(_opcodes, (str(index), 'cpu', math.prod(shape))),
      b'tQ',
      *map(_opcodes, (0, shape, strides, False)),  # no gradient is needed
      _EMPTY_ORDERED_DICT + b'tR',  # no hooks
    ]
  return b''.join([*parts, b'u.'])


def _opcodes(value: object) -> bytes:
  """Opcodes that push a value: its pickle without the first and last."""
  return pickle.dumps(value, protocol=2)[2:-1]
