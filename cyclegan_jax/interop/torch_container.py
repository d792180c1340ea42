"""The two containers that torch.save writes: ZIP files and older files."""

import io
import struct
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

from cyclegan_jax.data.archive import DirectoryTooLargeError, LimitedReader
from cyclegan_jax.errors import one_line
from cyclegan_jax.interop.errors import (
  DamagedFileError,
  RefusedFileError,
  shown,
)
from cyclegan_jax.interop.torch_pickle import (
  MAX_PROGRAM_BYTES,
  Storage,
  load_program,
)

MAX_DIRECTORY_BYTES = 2**23

_ZIP = b'PK\x03\x04'
_ZIP_END = struct.Struct('<4s4H2LH')
_ZIP_HEADER_BYTES = 30  # without name and extra field
_UNNEEDED_FLAGS = 0xFFFF & ~0x0808  # UTF-8 names, sizes behind the content
_ZIP_ERRORS = (
  ArithmeticError,
  EOFError,
  RuntimeError,
  ValueError,
  struct.error,
  zipfile.BadZipFile,
)
# A whole program that only pushes the number by which older files begin.
_LEGACY = bytes.fromhex('80028a0a6cfc9c46f9206aa850192e')
_LEGACY_VERSION = 1001
_TAR, _TAR_OFFSET = b'ustar', 257


class Container(NamedTuple):
  """Open file of torch.save.

  Attributes:
    value: the saved value, as in `torch_pickle.Program`.
    read_storage: returns the bytes of a storage, or raises DamagedFileError.
  """

  value: Any
  read_storage: Callable[[Storage], bytes]


def open_container(file: BinaryIO) -> Container:
  """Loads the program of a file and locates its storages.

  Raises:
    DamagedFileError: the file is incomplete or contradicts itself.
    RefusedFileError: it is of another kind, or holds more than tensors.
  """
  num_bytes = file.seek(0, io.SEEK_END)
  file.seek(0)
  start = file.read(_TAR_OFFSET + len(_TAR))
  if start.startswith(_ZIP):
    return _open_zip(file)
  if start.startswith(_LEGACY):
    return _open_legacy(file, num_bytes)
  if start[_TAR_OFFSET:] == _TAR:
    raise RefusedFileError('is of the kind that torch wrote before 0.1.10')
  raise RefusedFileError('does not begin as files of torch.save do')


def _open_zip(file: BinaryIO) -> Container:
  reader: Any = LimitedReader(file, MAX_DIRECTORY_BYTES)
  try:
    archive = zipfile.ZipFile(reader)
  except DirectoryTooLargeError as error:
    raise RefusedFileError(str(error)) from error
  except _ZIP_ERRORS as error:
    raise DamagedFileError('its ZIP directory is invalid') from error
  reader.max_bytes = None
  _check_members(archive, file)
  members = {member.filename: member for member in archive.infolist()}
  folders = {name.partition('/')[0] for name in members}
  if len(folders) != 1:
    raise RefusedFileError(f'has {len(folders)} folders where torch has one')
  folder = folders.pop()

  def read_small(name: str) -> bytes | None:
    member = members.get(f'{folder}/{name}')
    if member is None:
      return None
    if member.file_size > MAX_PROGRAM_BYTES:
      raise RefusedFileError(
        f'has a {name} of more than {MAX_PROGRAM_BYTES:,} bytes'
      )
    return _read_member(archive, member)

  def read_storage(storage: Storage) -> bytes:
    member = members.get(f'{folder}/data/{storage.key}')
    if member is None:
      raise DamagedFileError(f'storage {shown(storage.key)} is missing')
    if member.file_size != storage.num_bytes:
      raise DamagedFileError(
        f'storage {shown(storage.key)} has {member.file_size:,} bytes instead '
        f'of {storage.num_bytes:,}'
      )
    return _read_member(archive, member)

  if f'{folder}/constants.pkl' in members:
    raise RefusedFileError('is a program of TorchScript')
  if read_small('byteorder') not in (None, b'little'):
    raise RefusedFileError('comes from a machine of another byte order')
  program = read_small('data.pkl')
  if program is None:
    raise DamagedFileError('it has no data.pkl')
  code = io.BytesIO(program)
  value = load_program(code).value
  if code.tell() != len(program):
    raise DamagedFileError('its program continues behind its end')
  return Container(value, read_storage)


def _check_members(archive: zipfile.ZipFile, file: BinaryIO) -> None:
  """Checks that the archive is a plain one, as torch.save writes it."""
  members = archive.infolist()
  file.seek(-_ZIP_END.size, io.SEEK_END)
  end = _ZIP_END.unpack(file.read(_ZIP_END.size))
  count = len(members)
  # Signature, two disks, two counts, size, start, length of a comment.
  if (end[:5], end[7]) != ((b'PK\x05\x06', 0, 0, count, count), 0):
    raise DamagedFileError('its end does not fit its ZIP directory')
  if len({member.filename for member in members}) < count:
    raise RefusedFileError('has two members of one name')
  place = 0
  for member in sorted(members, key=lambda member: member.header_offset):
    name = shown(member.filename)
    if member.flag_bits & _UNNEEDED_FLAGS:
      raise RefusedFileError(f'has an encrypted or patched member {name}')
    if (
      member.compress_type != zipfile.ZIP_STORED
      or member.compress_size != member.file_size
    ):
      raise RefusedFileError(f'has a compressed member {name}')
    if member.header_offset < place:
      raise RefusedFileError(f'has members that overlap, at {name}')
    place = member.header_offset + _ZIP_HEADER_BYTES + member.compress_size
  if place > archive.start_dir:
    raise RefusedFileError('has members that overlap its ZIP directory')


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
  try:
    return archive.read(member)
  except _ZIP_ERRORS as error:
    raise DamagedFileError(
      f'{shown(member.filename)} cannot be read: {shown(one_line(error))}'
    ) from error


def _open_legacy(file: BinaryIO, num_bytes: int) -> Container:
  file.seek(len(_LEGACY))
  programs = io.BytesIO(file.read(min(num_bytes, MAX_PROGRAM_BYTES)))
  version = load_program(programs).value
  if type(version) is not int or version != _LEGACY_VERSION:
    raise DamagedFileError(f'its version is not {_LEGACY_VERSION}')
  system = load_program(programs).value
  if type(system) is not dict or system.get('little_endian') is not True:
    raise RefusedFileError('comes from a machine of another byte order')
  value, storages = load_program(programs)
  keys = load_program(programs).value
  if type(keys) is not list or not all(type(key) is str for key in keys):
    raise DamagedFileError('it does not list its storages')
  places: dict[str, int] = {}
  place = len(_LEGACY) + programs.tell()
  for key in keys:
    storage = storages.get(key)
    if storage is None or key in places:
      raise DamagedFileError(f'storage {shown(key)} is listed without need')
    file.seek(place)
    count = int.from_bytes(file.read(8), 'little', signed=True)
    if count != storage.size:
      raise DamagedFileError(
        f'storage {shown(key)} has {count:,} numbers instead of '
        f'{storage.size:,}'
      )
    places[key] = place + 8
    place += 8 + storage.num_bytes
    if place > num_bytes:
      raise DamagedFileError(f'storage {shown(key)} is cut short')
  if place != num_bytes:
    raise DamagedFileError('it continues behind its last storage')

  def read_storage(storage: Storage) -> bytes:
    if storage.key not in places:
      raise DamagedFileError(f'storage {shown(storage.key)} is missing')
    file.seek(places[storage.key])
    return file.read(storage.num_bytes)

  return Container(value, read_storage)
