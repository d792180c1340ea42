"""Reads and writes the tensors in torch.save files, without torch.

Both kinds of file are read: the ZIP files that torch has written since 1.6,
and the older ones, which are five pickled programs in a row and then the
numbers. A file that needs more than `torch_pickle` allows is refused; there is
no fallback to a reader that would run it.
"""

import math
import os
import pathlib
import zipfile
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np

from cyclegan_jax.errors import (
  WeightsError,
  one_line,
  printable,
)
from cyclegan_jax.interop.errors import (
  DamagedFileError,
  RefusedFileError,
  shown,
)
from cyclegan_jax.interop.torch_container import Container, open_container
from cyclegan_jax.interop.torch_pickle import Tensor, dump_program
from cyclegan_jax.media.decoding import ImageError
from cyclegan_jax.media.listing import open_file
from cyclegan_jax.storage.atomic import replacing
from cyclegan_jax.storage.checksums import sync_folder

MAX_BYTES = 2**31
MAX_ENTRIES = 100_000  # of all dicts and lists together
MAX_DEPTH = 32
MAX_NAME = 512  # characters
_MAX_ELEMENTS = 2**40  # applies even where one dimension is zero


def read_pth(
  path: str | pathlib.Path, *, max_bytes: int = MAX_BYTES
) -> dict[str, np.ndarray]:
  """Reads the tensors of a file that torch.save wrote.

  Args:
    path: path of the file.
    max_bytes: limit on the size of all tensors together.

  Returns:
    Arrays by name, each with memory of its own, in the file's order. The name
    of a tensor inside dicts and lists joins their keys and indices with dots:
    'state_dict.conv1.weight'. A file of one bare tensor gives it the name ''.
    bfloat16 becomes float32. Everything else in the file is left out.

  Raises:
    WeightsError: the file cannot be read, is damaged, or is refused because it
      holds more than tensors.
  """
  name = printable(str(path))
  try:
    with open_file(str(path)) as file:
      return _read_tensors(open_container(file), max_bytes)
  except (ImageError, OSError) as error:
    reason = error.reason if isinstance(error, ImageError) else one_line(error)
    raise WeightsError(
      f'{name} cannot be read ({reason}). Give a file that torch.save wrote.'
    ) from error
  except DamagedFileError as error:
    raise WeightsError(
      f'{name} is damaged ({error}). Get it from its source again.'
    ) from error
  except RefusedFileError as error:
    raise WeightsError(
      f'{name} is refused, as it {error}. If you trust its source, load it '
      'there and save the state_dict() alone.'
    ) from error


def write_pth(
  path: str | pathlib.Path, tensors: Mapping[str, np.ndarray]
) -> None:
  """Writes a state_dict for torch.load, whole or not at all.

  Args:
    path: path of the file; an existing one is replaced.
    tensors: arrays by name, of dtypes that torch has.

  Raises:
    ValueError: an array is of another dtype.
    OSError: the file cannot be written.
  """
  path = pathlib.Path(path)
  arrays = {name: np.asarray(array) for name, array in tensors.items()}
  program = dump_program(
    {name: (array.shape, array.dtype.name) for name, array in arrays.items()}
  )
  members: dict[str, Any] = {
    'data.pkl': program,
    'byteorder': b'little',
    'version': b'3\n',
  }
  for index, array in enumerate(arrays.values()):
    little = array.astype(array.dtype.newbyteorder('<'), copy=False)
    members[f'data/{index}'] = np.ascontiguousarray(little).data
  with replacing(path) as temporary, temporary.open('wb') as file:
    with zipfile.ZipFile(file, 'w') as archive:
      for name, content in members.items():
        # Without a date: equal tensors give equal files.
        archive.writestr(zipfile.ZipInfo(f'archive/{name}'), content)
    file.flush()
    os.fsync(file.fileno())
  sync_folder(path.parent)


def _find_tensors(root: Any) -> dict[str, Tensor]:
  """Returns the tensors inside a loaded value by their joined names."""
  tensors: dict[str, Tensor] = {}
  waiting: list[tuple[str, Any, int]] = [('', root, 0)]
  num_entries = 0
  while waiting:
    name, value, depth = waiting.pop()
    if type(value) is Tensor:
      if name in tensors:
        raise RefusedFileError(f'has two tensors of the name {shown(name)}')
      tensors[name] = value
    if isinstance(value, dict):
      items = list(value.items())
    elif type(value) in (list, tuple):
      items = list(enumerate(value))
    else:
      continue
    # A list may contain itself, or one that contains another twice and so on.
    num_entries += len(items)
    if num_entries > MAX_ENTRIES or depth == MAX_DEPTH:
      raise RefusedFileError(
        f'has more than {MAX_ENTRIES:,} entries, or deeper than {MAX_DEPTH}'
      )
    for key, inner in reversed(items):
      whole = f'{name}.{key}' if depth else str(key)
      if len(whole) > MAX_NAME:
        raise RefusedFileError(f'has a name of more than {MAX_NAME} characters')
      waiting.append((whole, inner, depth + 1))
  if not tensors:
    raise RefusedFileError('holds no tensors')
  return tensors


def _read_tensors(
  container: Container, max_bytes: int
) -> dict[str, np.ndarray]:
  tensors = _find_tensors(container.value)
  names_by_storage = defaultdict(list)
  num_bytes = 0
  for name, tensor in tensors.items():
    num_bytes += _checked_size(name, tensor)
    if max(num_bytes, tensor.storage.num_bytes) > max_bytes:
      raise RefusedFileError(f'has tensors of more than {max_bytes:,} bytes')
    names_by_storage[tensor.storage.key].append(name)
  arrays: dict[str, np.ndarray] = {}
  for names in names_by_storage.values():  # each storage is read once
    storage = tensors[names[0]].storage
    data = container.read_storage(storage)
    if len(data) != storage.num_bytes:
      raise DamagedFileError(f'storage {shown(storage.key)} is cut short')
    for name in names:
      arrays[name] = _make_array(tensors[name], data)
  return {name: arrays[name] for name in tensors}


def _checked_size(name: str, tensor: Tensor) -> int:
  """Returns the bytes of a tensor's array, if it lies inside its storage."""
  storage, shape = tensor.storage, tensor.shape
  # NumPy cannot multiply huge sizes even where another one is zero.
  if math.prod(max(size, 1) for size in shape) > _MAX_ELEMENTS:
    raise RefusedFileError(
      f'has a tensor {shown(name)} of shape {shown(str(shape))}'
    )
  last = sum((n - 1) * s for n, s in zip(shape, tensor.strides, strict=True))
  num_elements = math.prod(shape)
  if num_elements and tensor.offset + last >= storage.length:
    raise DamagedFileError(f'{shown(name)} reaches beyond its storage')
  wide = 4 if storage.dtype == 'bfloat16' else 0
  return num_elements * max(wide, storage.stored_dtype.itemsize)


def _make_array(tensor: Tensor, data: bytes) -> np.ndarray:
  """Copies a tensor, whose bounds are checked, out of its storage's bytes."""
  storage, stored = tensor.storage, tensor.storage.stored_dtype
  shape = tensor.shape
  if not math.prod(shape):
    empty = 'float32' if storage.dtype == 'bfloat16' else storage.dtype
    return np.zeros(shape, empty)
  numbers = np.frombuffer(data, stored)[storage.start + tensor.offset :]
  # The stride of a dimension of one element is never used: it may be anything.
  strides = [
    stride * stored.itemsize if size > 1 else 0
    for size, stride in zip(shape, tensor.strides, strict=True)
  ]
  view = np.lib.stride_tricks.as_strided(
    numbers, shape, strides, writeable=False
  )
  if storage.dtype == 'bfloat16':  # the upper half of a float32
    wide = np.empty(shape, np.uint32)
    np.left_shift(view, 16, out=wide, dtype=np.uint32)
    return wide.view(np.float32)
  if storage.dtype == 'bool':
    return np.asarray(view != 0)
  return np.array(view, stored.newbyteorder('='), order='C')
