"""The two kinds of file that torch.save writes."""

import io
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from cyclegan_jax.interop.errors import (
  DamagedError,
  RefusedError,
  shown,
)
from cyclegan_jax.interop.pickle_machine import (
  MAX_PROGRAM_BYTES,
  run_program,
)
from cyclegan_jax.interop.pickle_types import Storage
from cyclegan_jax.interop.zip_members import list_members, read_member

_ZIP = b'PK\x03\x04'
# A program that says no more than the number by which older files begin.
_LEGACY = bytes.fromhex('80028a0a6cfc9c46f9206aa850192e')
_LEGACY_VERSION = 1001
_TAR = 257  # where such a file says that it is one


class Container(NamedTuple):
  """An open file of torch.save.

  Attributes:
    value: what its program built, as `opcodes.Result`'s.
    fetch: reads the bytes of a storage; raises DamagedError.
  """

  value: Any
  fetch: Callable[[Storage], bytes]


def open_container(file: BinaryIO) -> Container:
  """Runs a file's program and finds its storages, of either kind of file.

  Raises:
    DamagedError: it is not what was written.
    RefusedError: it asks for anything but tensors, or is of another kind.
  """
  num_bytes = file.seek(0, io.SEEK_END)
  file.seek(0)
  start = file.read(_TAR + 5)
  if start.startswith(_ZIP):
    return _open_zip(file, num_bytes)
  if start.startswith(_LEGACY):
    return _open_legacy(file, num_bytes)
  if start[_TAR:] == b'ustar':
    raise RefusedError('is of the kind that torch wrote before 0.1.10')
  raise RefusedError('does not begin as files of torch.save do')


def _open_zip(file: BinaryIO, num_bytes: int) -> Container:
  members = list_members(file, num_bytes)
  folders = {name.partition('/')[0] for name in members}
  if len(folders) != 1:
    raise RefusedError(f'has {len(folders)} folders where torch has one')
  folder = folders.pop()
  if f'{folder}/constants.pkl' in members:
    raise RefusedError('is a program of TorchScript')
  order = members.get(f'{folder}/byteorder')
  if order and (order.size > 8 or read_member(file, order) != b'little'):
    raise RefusedError('comes from a machine of another byte order')
  program = members.get(f'{folder}/data.pkl')
  if program is None:
    raise DamagedError('it has no data.pkl')
  if program.size > MAX_PROGRAM_BYTES:
    raise RefusedError(
      f'has a program of more than {MAX_PROGRAM_BYTES:,} bytes'
    )
  code = io.BytesIO(read_member(file, program))
  result = run_program(code)
  if code.tell() != program.size:
    raise DamagedError('its program goes on behind its end')

  def fetch(storage: Storage) -> bytes:
    member = members.get(f'{folder}/data/{storage.key}')
    if member is None:
      raise DamagedError(f'storage {shown(storage.key)} is missing')
    _check_size(storage, member.size)
    return read_member(file, member)

  return Container(result.value, fetch)


def _open_legacy(file: BinaryIO, num_bytes: int) -> Container:
  file.seek(len(_LEGACY))
  version = run_program(file).value
  if type(version) is not int or version != _LEGACY_VERSION:
    raise DamagedError(f'its version is not {_LEGACY_VERSION}')
  system = run_program(file).value
  if type(system) is not dict or system.get('little_endian') is not True:
    raise RefusedError('comes from a machine of another byte order')
  result = run_program(file)
  keys = run_program(file).value
  if type(keys) is not list or not all(type(each) is str for each in keys):
    raise DamagedError('it does not list its storages')
  places: dict[str, int] = {}
  for key in keys:
    storage = result.storages.get(key)
    if storage is None or key in places:
      raise DamagedError(f'storage {shown(key)} is listed without need')
    count = int.from_bytes(file.read(8), 'little', signed=True)
    if count != storage.size:
      raise DamagedError(
        f'storage {shown(key)} has {count:,} numbers instead of '
        f'{storage.size:,}'
      )
    places[key] = file.tell()
    end = places[key] + count * raw_type(storage).itemsize
    if end > num_bytes:
      raise DamagedError(f'storage {shown(key)} is cut short')
    file.seek(end)
  if file.tell() != num_bytes:
    raise DamagedError('it goes on behind its last storage')

  def fetch(storage: Storage) -> bytes:
    if storage.key not in places:
      raise DamagedError(f'storage {shown(storage.key)} is missing')
    file.seek(places[storage.key])
    data = file.read(storage.size * raw_type(storage).itemsize)
    _check_size(storage, len(data))
    return data

  return Container(result.value, fetch)


def _check_size(storage: Storage, found: int) -> None:
  size = storage.size * raw_type(storage).itemsize
  if found != size:
    raise DamagedError(
      f'storage {shown(storage.key)} has {found:,} bytes instead of {size:,}'
    )


def raw_type(storage: Storage) -> np.dtype[Any]:
  """What the file holds; torch writes all of it with the low byte first."""
  raw = {'bfloat16': 'uint16', 'bool': 'uint8'}
  name = raw.get(storage.dtype, storage.dtype)
  return np.dtype(name).newbyteorder('<')
