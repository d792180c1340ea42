"""Files of torch.save, read and written without torch, and never run.

Both kinds are read: the zip files that torch writes since 1.6, and the older
ones, which are five programs in a row and then the numbers. What a program
may ask for is in `opcodes`, how a zip file has to look in `zip_members`;
nothing falls back to a reader that would believe more.
"""

import math
import os
import pathlib
import zipfile
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cyclegan_jax.errors import (
  WeightsError,
  one_line,
  printable,
)
from cyclegan_jax.interop.errors import (
  DamagedError,
  RefusedError,
  shown,
)
from cyclegan_jax.interop.pickle_types import (
  Storage,
  Tensor,
)
from cyclegan_jax.interop.pickle_writer import write_program
from cyclegan_jax.interop.torch_container import (
  open_container,
  raw_type,
)
from cyclegan_jax.media.decoding import ImageError
from cyclegan_jax.media.listing import open_file
from cyclegan_jax.storage.atomic import replacing
from cyclegan_jax.storage.checksums import sync_folder

MAX_BYTES = 2**31
MAX_ENTRIES = 100_000  # of all dicts and lists together
MAX_DEPTH = 32
MAX_NAME = 512  # characters
_MAX_ELEMENTS = 2**40  # even where one dimension is zero


def read_pth(
  path: str | pathlib.Path, *, max_bytes: int = MAX_BYTES
) -> dict[str, np.ndarray]:
  """Reads the tensors of a file that torch.save wrote.

  Args:
    path: of the file.
    max_bytes: that all tensors together may take.

  Returns:
    Arrays by name, each with memory of its own, in the file's order. What
    lies in dicts and lists has their keys and places in its name, joined by
    dots: 'state_dict.conv1.weight'; a tensor that is all there is has the
    name ''. bfloat16 becomes float32. Whatever is no tensor is left out.

  Raises:
    WeightsError: it can't be read, is damaged, or asks for anything but
      tensors.
  """
  name = printable(str(path))
  try:
    with open_file(str(path)) as file:
      value, fetch = open_container(file)
      return _make_arrays(_leaves(value), fetch, max_bytes)
  except (ImageError, OSError) as error:
    reason = error.reason if isinstance(error, ImageError) else one_line(error)
    raise WeightsError(
      f'{name} can not be read ({reason}): give a file that torch.save wrote'
    ) from error
  except DamagedError as error:
    raise WeightsError(
      f'{name} is damaged ({error}): get it from its source again'
    ) from error
  except RefusedError as error:
    raise WeightsError(
      f'{name} is refused, as it {error}: if you trust its source, load it '
      'there and save the state_dict() alone'
    ) from error


def write_pth(
  path: str | pathlib.Path, tensors: Mapping[str, np.ndarray]
) -> None:
  """Writes a state_dict for torch.load, whole or not at all.

  Args:
    path: of the file, which is replaced if it is there.
    tensors: arrays by name, of a dtype that torch has.

  Raises:
    ValueError: an array is of another dtype.
    OSError: from the disk.
  """
  path = pathlib.Path(path)
  arrays = {name: np.ascontiguousarray(each) for name, each in tensors.items()}
  # ascontiguousarray makes a scalar a vector.
  shapes = {name: np.shape(each) for name, each in tensors.items()}
  members: dict[str, Any] = {
    'data.pkl': write_program(
      {name: (shapes[name], arrays[name].dtype.name) for name in arrays}
    ),
    'byteorder': b'little',
    'version': b'3\n',
  }
  for place, each in enumerate(arrays.values()):
    members[f'data/{place}'] = each.astype(each.dtype.newbyteorder('<')).data
  with replacing(path) as temporary, temporary.open('wb') as file:
    with zipfile.ZipFile(file, 'w') as archive:
      for name, content in members.items():
        # Of no date: what is equal is written equally.
        archive.writestr(zipfile.ZipInfo(f'archive/{name}'), content)
    file.flush()
    os.fsync(file.fileno())
  sync_folder(path.parent)


def _leaves(root: Any) -> dict[str, Tensor]:
  """The tensors in what a program built, by their joined names."""
  found: dict[str, Tensor] = {}
  waiting: list[tuple[str, Any, int]] = [('', root, 0)]
  num_entries = 0
  while waiting:
    name, value, depth = waiting.pop()
    if type(value) is Tensor:
      if name in found:
        raise RefusedError(f'has two tensors of the name {shown(name)}')
      found[name] = value
    if type(value) is dict:
      items = list(value.items())
    elif type(value) in (list, tuple):
      items = list(enumerate(value))
    else:
      continue
    # A list may be in itself, or each in the next one twice.
    num_entries += len(items)
    if num_entries > MAX_ENTRIES or depth == MAX_DEPTH:
      raise RefusedError(
        f'has more than {MAX_ENTRIES:,} entries, or deeper than {MAX_DEPTH}'
      )
    for key, inner in reversed(items):
      whole = f'{name}.{key}' if depth else str(key)
      if len(whole) > MAX_NAME:
        raise RefusedError(f'has a name of more than {MAX_NAME} characters')
      waiting.append((whole, inner, depth + 1))
  if not found:
    raise RefusedError('holds no tensors')
  return found


def _make_arrays(
  leaves: dict[str, Tensor], fetch: Callable[[Storage], bytes], max_bytes: int
) -> dict[str, np.ndarray]:
  """Reads storage after storage, each of them once."""
  by_storage = defaultdict(list)
  num_bytes = 0
  for name, tensor in leaves.items():
    num_bytes += _checked_size(name, tensor)
    whole = tensor.storage.size * raw_type(tensor.storage).itemsize
    if max(num_bytes, whole) > max_bytes:
      raise RefusedError(f'has tensors of more than {max_bytes:,} bytes')
    by_storage[tensor.storage.key].append(name)
  arrays: dict[str, np.ndarray] = {}
  for names in by_storage.values():
    data = fetch(leaves[names[0]].storage)
    for name in names:
      arrays[name] = _make_array(leaves[name], data)
  return {name: arrays[name] for name in leaves}


def _checked_size(name: str, tensor: Tensor) -> int:
  """Bytes of the tensor's array, if the tensor lies inside of its storage."""
  shape, count = tensor.shape, tensor.storage.count
  # A dimension of zero makes no numbers, but sizes that NumPy can't multiply.
  if math.prod(max(size, 1) for size in shape) > _MAX_ELEMENTS:
    raise RefusedError(f'has a tensor {shown(name)} of shape {shape}')
  last = sum((n - 1) * s for n, s in zip(shape, tensor.strides, strict=True))
  num_elements = math.prod(shape)
  if tensor.offset < 0 or (num_elements and tensor.offset + last >= count):
    raise DamagedError(f'{shown(name)} reaches beyond its storage')
  wide = 4 if tensor.storage.dtype == 'bfloat16' else 0
  return num_elements * max(wide, raw_type(tensor.storage).itemsize)


def _make_array(tensor: Tensor, data: bytes) -> np.ndarray:
  storage, raw = tensor.storage, raw_type(tensor.storage)
  shape = tensor.shape
  if not math.prod(shape):
    empty = 'float32' if storage.dtype == 'bfloat16' else storage.dtype
    return np.zeros(shape, empty)
  numbers = np.frombuffer(data, raw)[storage.start + tensor.offset :]
  # A stride along one element is never taken, so it may be anything.
  strides = [
    stride * raw.itemsize if size > 1 else 0
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
  return np.array(view, raw.newbyteorder('='), order='C')
