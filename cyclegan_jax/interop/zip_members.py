"""The zip files of torch, read by rules that leave no room for tricks.

torch.save writes one kind of zip file: nothing before it and nothing after,
no comment, every member stored as it is. Programs that read zip files differ
in what they make of any other kind, so any other kind is refused: two
members of one name or in one place, a directory that is not where the end
says, a header that says something else than the directory does.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from cyclegan_jax.interop.errors import (
  DamagedError,
  RefusedError,
  shown,
)

MAX_MEMBERS = 100_000
MAX_DIRECTORY_BYTES = 2**25

_END = struct.Struct('<4s4H2LH')
_LOCATOR = struct.Struct('<4sLQL')
_END_64 = struct.Struct('<4sQ2H2L4Q')
_ENTRY = struct.Struct('<4s6H3L5H2L')
_HEADER = struct.Struct('<4s5H3L2H')
_FULL_16, _FULL_32 = 2**16 - 1, 2**32 - 1  # 'see the 64-bit field'
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_SIZES_FOLLOW = 0x8  # behind the content


class Member(NamedTuple):
  """A file in a zip file."""

  name: str
  header: int  # where its header begins
  size: int  # bytes
  crc: int
  start: int = 0  # of its content


class _Directory(NamedTuple):
  start: int
  size: int  # bytes
  num_members: int


def list_members(file: BinaryIO, num_bytes: int) -> dict[str, Member]:
  """Lists the members of a zip file by their names, all of them checked.

  Args:
    file: seekable.
    num_bytes: of the file.

  Raises:
    DamagedError: it is cut short, or no zip file.
    RefusedError: it is not as torch.save would write it.
  """
  directory = _find_directory(file, num_bytes)
  found: dict[str, Member] = {}
  for member in _entries(file, directory):
    if member.name in found:
      raise RefusedError(f'has two members of the name {shown(member.name)}')
    found[member.name] = member
  end = 0
  for member in sorted(found.values(), key=lambda each: each.header):
    if member.header < end:
      raise RefusedError(f'has members that overlap, at {shown(member.name)}')
    start = _check_header(file, member)
    end = start + member.size
    if end > directory.start:
      raise RefusedError(
        f'has a member {shown(member.name)} of {member.size:,} bytes that '
        'goes on into its directory'
      )
    found[member.name] = member._replace(start=start)
  return found


def read_member(file: BinaryIO, member: Member) -> bytes:
  """The content of a member.

  Raises:
    DamagedError: it is not what was written.
  """
  file.seek(member.start)
  data = file.read(member.size)
  if len(data) != member.size:
    raise DamagedError(f'{shown(member.name)} is cut short')
  if zlib.crc32(data) != member.crc:
    raise DamagedError(f'{shown(member.name)} has another checksum')
  return data


def _read_at(
  file: BinaryIO, place: int, layout: struct.Struct
) -> tuple[Any, ...]:
  file.seek(max(place, 0))
  data = file.read(layout.size)
  if place < 0 or len(data) != layout.size:
    raise DamagedError('it is cut short')
  return layout.unpack(data)


def _find_directory(file: BinaryIO, num_bytes: int) -> _Directory:
  end = num_bytes - _END.size
  mark, disk, first, here, count, size, start, comment = _read_at(
    file, end, _END
  )
  if mark != b'PK\x05\x06' or comment:
    raise DamagedError('its end is not the end of a zip file')
  if end >= _LOCATOR.size:
    mark, disk_64, place, num_disks = _read_at(
      file, end - _LOCATOR.size, _LOCATOR
    )
    if mark == b'PK\x06\x07':
      end = end - _LOCATOR.size - _END_64.size
      if place != end or disk_64 or num_disks != 1:
        raise RefusedError('has a second end that is somewhere else')
      mark, length, *_, here_64, count_64, size_64, start_64 = _read_at(
        file, end, _END_64
      )
      if (
        mark != b'PK\x06\x06'
        or length != _END_64.size - 12
        or here_64 != count_64
        or count not in (count_64, _FULL_16)
        or size not in (size_64, _FULL_32)
        or start not in (start_64, _FULL_32)
      ):
        raise RefusedError('has two ends that contradict each other')
      count, size, start = count_64, size_64, start_64
      here = count
  if disk or first or here != count:
    raise RefusedError('is one of several parts')
  if start + size != end:
    raise RefusedError('has a directory that is not before its end')
  if size > MAX_DIRECTORY_BYTES or count > MAX_MEMBERS:
    raise RefusedError(f'lists {count:,} members')
  return _Directory(start, size, count)


def _entries(file: BinaryIO, directory: _Directory) -> Iterator[Member]:
  file.seek(directory.start)
  data = io.BytesIO(file.read(directory.size))
  for _ in range(directory.num_members):
    # Made by, needs, flags, method, time, date, checksum, packed size, ...
    fields = _unpack(data, _ENTRY)
    if fields[0] != b'PK\x01\x02':
      raise DamagedError('its directory is not one')
    name = _checked_name(data.read(fields[10]))
    extra = data.read(fields[11])
    data.seek(fields[12], 1)
    wide = _wide_fields(extra)
    size, packed, header = (
      next(wide, each) if each == _FULL_32 else each
      for each in (fields[9], fields[8], fields[16])
    )
    if fields[3] & _ENCRYPTED:
      raise RefusedError(f'has an encrypted member {shown(name)}')
    if fields[4] or size != packed:
      raise RefusedError(f'has a compressed member {shown(name)}')
    yield Member(name, header, size, fields[7])
  if data.tell() != directory.size:
    raise DamagedError('its directory has another length than its end says')


def _unpack(data: io.BytesIO, layout: struct.Struct) -> tuple[Any, ...]:
  part = data.read(layout.size)
  if len(part) != layout.size:
    raise DamagedError('its directory is cut short')
  return layout.unpack(part)


def _wide_fields(extra: bytes) -> Iterator[int]:
  """The 64-bit numbers for those that the entry's 32 bits don't hold."""
  place = 0
  while place + 4 <= len(extra):
    kind, length = struct.unpack_from('<2H', extra, place)
    place += 4
    if kind == 1:
      field = extra[place : place + length]
      for (number,) in struct.iter_unpack('<Q', field[: length // 8 * 8]):
        yield number
      return
    place += length


def _checked_name(data: bytes) -> str:
  try:
    name = data.decode('utf-8')
  except UnicodeDecodeError as error:
    raise DamagedError('a name in its directory is not UTF-8') from error
  parts = name.split('/')
  if '' in parts or '..' in parts or any(each in name for each in '\\:\0'):
    raise RefusedError(f'has a member of the name {shown(name)}')
  return name


def _check_header(file: BinaryIO, member: Member) -> int:
  """Where the member's content begins, if header and directory agree."""
  fields = _read_at(file, member.header, _HEADER)
  mark, _, flags, method, *_, crc, packed, size, name_length, extra = fields
  name = file.read(name_length)
  is_same = (packed, size, crc) == (member.size, member.size, member.crc)
  # Left out where the writer knew them afterwards, or had too few bits.
  is_left_out = flags & _SIZES_FOLLOW or _FULL_32 in (packed, size)
  if mark != b'PK\x03\x04' or name != member.name.encode():
    raise RefusedError(f'has no header where it lists {shown(member.name)}')
  if flags & _ENCRYPTED or method or not (is_same or is_left_out):
    raise RefusedError(f'lists {shown(member.name)} as something else')
  return member.header + _HEADER.size + name_length + extra
