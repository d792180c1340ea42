"""What the programs in torch's files may speak of: a closed list."""

import dataclasses
from typing import Any

from cyclegan_jax.interop.errors import (
  DamagedError,
  shown,
)

MAX_DIMS = 16

# How torch calls its storages, and NumPy what is in them.
STORAGES = {
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
ORDERED_DICT = ('collections', 'OrderedDict')
TENSOR = ('torch._utils', '_rebuild_tensor')
TENSOR_V2 = ('torch._utils', '_rebuild_tensor_v2')
PARAMETER = ('torch._utils', '_rebuild_parameter')
NAMES = {ORDERED_DICT, TENSOR, TENSOR_V2, PARAMETER, *STORAGES}


@dataclasses.dataclass(frozen=True, eq=False)
class Symbol:
  """One of NAMES, and nothing more."""

  name: tuple[str, str]  # module, attribute


@dataclasses.dataclass(frozen=True, eq=False)
class Storage:
  """Numbers in a row, somewhere in the file.

  Attributes:
    key: by which the file knows them.
    dtype: a value of STORAGES.
    size: elements of the whole, as the program claims.
    start: the first element of the part that is meant.
    count: elements of that part.
  """

  key: str
  dtype: str
  size: int
  start: int
  count: int


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
  """A view of a storage; strides and offset in elements, unchecked."""

  storage: Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


def typed(value: Any, kind: type) -> Any:
  """The value, if it is of this very type: True is no number here."""
  if type(value) is not kind:
    raise DamagedError(
      f'its program has a {type(value).__name__} where a {kind.__name__} '
      'belongs'
    )
  return value


def checked_key(value: Any) -> str | int:
  """The value, if it can be the key of a dict here."""
  # A tuple's hash is made from what is in it, which may be without end.
  return value if type(value) is int else typed(value, str)


def describe_storage(values: tuple[Any, ...]) -> Storage:
  """('storage', type, key, device, size), and in old files a view or None."""
  if len(values) not in (5, 6) or typed(values[0], str) != 'storage':
    raise DamagedError('a storage is not described as one')
  name = typed(values[1], Symbol).name
  if name not in STORAGES:
    raise DamagedError('a storage has a type that is none')
  key, size = typed(values[2], str), typed(values[4], int)
  start, count = 0, size
  if len(values) == 6 and values[5] is not None:
    view = typed(values[5], tuple)
    if len(view) != 3:
      raise DamagedError("a storage's view is not described as one")
    start, count = typed(view[1], int), typed(view[2], int)
  if min(start, count) < 0 or start + count > size:
    raise DamagedError(f'storage {shown(key)} has a part outside of it')
  return Storage(key, STORAGES[name], size, start, count)


def describe_tensor(values: tuple[Any, ...]) -> Tensor:
  """(storage, offset, shape, strides), and then what is of no use here."""
  if not 4 <= len(values) <= 7:
    raise DamagedError('a tensor is not described as one')
  shape, strides = typed(values[2], tuple), typed(values[3], tuple)
  if len(shape) != len(strides) or len(shape) > MAX_DIMS:
    raise DamagedError(
      f'a tensor has {len(shape)} dimensions and {len(strides)} strides'
    )
  for each in (*shape, *strides):
    if typed(each, int) < 0:
      raise DamagedError('a tensor has a negative size or stride')
  storage, offset = typed(values[0], Storage), typed(values[1], int)
  return Tensor(storage, offset, shape, strides)
