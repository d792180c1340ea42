"""Zip archives of unknown origin: checked as a whole, then read in memory.

Nothing is ever extracted. Each read opens the file anew, at a place that was
noted when the archive was listed: so any thread may read, none holds a file
open, and what is read is what was listed, by size and checksum.
"""

import os
import posixpath
import re
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable
from typing import BinaryIO, NamedTuple

from cyclegan_jax.errors import (
  DataError,
  one_line,
  printable,
)
from cyclegan_jax.media.decoding import (
  EXTENSIONS,
  ImageError,
)
from cyclegan_jax.media.listing import (
  Stamp,
  open_file,
)

# Zip files of images have thousands; a list of this many takes a second.
MAX_MEMBERS = 500_000
MAX_DIRECTORY_BYTES = MAX_MEMBERS * 2**8
# 100 million pixels of RGBA in 16 bits fit.
MAX_MEMBER_BYTES = 2**30
# Deflate can't do better: 258 bytes in 2 bits. Flat drawings in BMP get near.
MAX_MEMBER_RATIO = 1032
# Photographs hardly compress. A set of drawings may, but not a large one.
MAX_TOTAL_RATIO = 100
FREE_TOTAL_BYTES = 2**32

_ENCRYPTED = 0x1 | 0x40  # bits of a member's flags
_LOCAL_HEADER = 30  # bytes, and then the name and the extra fields
_UNPACK = 'unpack it with a tool that you trust, and give the folder'


class Member(NamedTuple):
  """A file in an archive, and where its bytes are."""

  name: str  # normalised: 'horses/trainA/1.png'
  size: int  # bytes
  offset: int  # of its local header
  packed_size: int
  method: int  # zipfile.ZIP_STORED or ZIP_DEFLATED
  crc: int


class Archive(NamedTuple):
  """A zip archive that was found harmless.

  Attributes:
    path: of the archive.
    images: members that are images by their names, in the archive's order.
    num_other_files: a count of the rest, hidden ones left out.
    stamp: of the archive as it was opened.
  """

  path: str
  images: tuple[Member, ...]
  num_other_files: int
  stamp: Stamp


def open_archive(path: str) -> Archive:
  """Lists the images in a zip archive and checks all of its members.

  Hidden files and macOS's '__MACOSX' are skipped.

  Raises:
    DataError: it can't be read, or a member could do harm: by its path, its
      kind, or the size that it claims.
  """
  with open_file(path) as file:
    status = os.fstat(file.fileno())
    num_bytes = status.st_size
    infos = _directory(path, file)
  spelled: dict[str, str] = {}
  images = []
  num_others = total = 0
  for info in infos:
    name = _checked_name(path, info, spelled)
    if info.orig_filename.endswith('/') or _is_hidden(name):
      continue
    if not name.lower().endswith(EXTENSIONS):
      num_others += 1
      continue
    _check_sizes(path, info, num_bytes)
    total += info.file_size
    images.append(
      Member(
        name,
        info.file_size,
        info.header_offset,
        info.compress_size,
        info.compress_type,
        info.CRC,
      )
    )
  if total > max(FREE_TOTAL_BYTES, MAX_TOTAL_RATIO * num_bytes):
    raise DataError(
      f'{printable(path)} has {num_bytes} bytes, and its images claim {total}: '
      f'more than {MAX_TOTAL_RATIO} times as many are not read from an '
      f'archive: {_UNPACK}'
    )
  stamp = Stamp(status.st_size, status.st_mtime_ns)
  return Archive(path, tuple(images), num_others, stamp)


def is_archive(path: str) -> bool:
  """Whether it is a zip archive, by its name, and no folder of that name."""
  return path.lower().endswith('.zip') and not os.path.isdir(path)


def read_member(path: str, member: Member) -> bytes:
  """The content of a member of the archive at `path`.

  Raises:
    ImageError: the archive can't be read, or is another than was listed.
  """
  try:
    with open_file(path) as file:
      packed = _packed(file, member)
  except (OSError, ImageError) as error:
    reason = error.reason if isinstance(error, ImageError) else one_line(error)
    raise ImageError(f'{path}/{member.name}', reason) from error
  try:
    data = _unpacked(packed, member)
  except zlib.error:
    data = b''
  # One byte more is asked for, so a size that is too small is noticed too.
  if len(data) != member.size or zlib.crc32(data) != member.crc:
    raise ImageError(
      f'{path}/{member.name}',
      'its bytes are not those that the archive lists for it',
    )
  return data


def _packed(file: BinaryIO, member: Member) -> bytes:
  file.seek(member.offset)
  header = file.read(_LOCAL_HEADER)
  lengths = header[26:28], header[28:30]
  file.seek(sum(int.from_bytes(each, 'little') for each in lengths), 1)
  return file.read(member.packed_size)


def _unpacked(packed: bytes, member: Member) -> bytes:
  if member.method == zipfile.ZIP_STORED:
    return packed
  return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, member.size + 1)


class _Directory:
  """A file of which zipfile reads no more at once than a directory takes."""

  def __init__(self, path: str, file: BinaryIO) -> None:
    self._path = path
    self._file = file
    self.seek, self.tell, self.close = file.seek, file.tell, file.close

  def seekable(self) -> bool:
    return True

  def read(self, size: int = -1) -> bytes:
    if size < 0:
      size = MAX_DIRECTORY_BYTES
    if size > MAX_DIRECTORY_BYTES:
      raise _too_many(self._path)
    return self._file.read(size)


def _directory(path: str, file: BinaryIO) -> list[zipfile.ZipInfo]:
  try:
    with zipfile.ZipFile(_Directory(path, file)) as archive:
      infos = archive.infolist()
  except DataError:
    raise
  except Exception as error:  # damage ends in several of them
    raise DataError(
      f"{printable(path)} can't be read: {one_line(error)}"
    ) from error
  if len(infos) > MAX_MEMBERS:
    raise _too_many(path)
  return infos


def _too_many(path: str) -> DataError:
  return DataError(
    f'{printable(path)} lists more than {MAX_MEMBERS} files: {_UNPACK}'
  )


def _checked_name(
  path: str, info: zipfile.ZipInfo, spelled: dict[str, str]
) -> str:
  """The member's name, normalised, if neither it nor the kind is harmful.

  Args:
    path: of the archive, for messages.
    info: of the member.
    spelled: how each path so far was spelled, by what file systems that fold
      case or Unicode would make of it.
  """
  name = info.orig_filename
  if not name:
    raise _refused(path, name, 'has no name')
  if '\\' in name:
    raise _refused(path, name, 'has a backslash in its path')
  if '\0' in name:
    raise _refused(path, name, 'has a zero byte in its path')
  if name.startswith('/') or re.match('[A-Za-z]:', name):
    raise _refused(path, name, 'has an absolute path')
  if '..' in name.split('/'):
    raise _refused(path, name, "has '..' in its path")
  mode = info.external_attr >> 16
  if stat.S_ISLNK(mode):
    raise _refused(path, name, 'is a link')
  if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
    raise _refused(path, name, 'is neither a file nor a folder')
  if info.flag_bits & _ENCRYPTED:
    raise _refused(path, name, 'is encrypted')
  whole = posixpath.normpath(name)
  if name[-1] != '/' and spelled.get(_folded(whole)) == whole:
    raise _refused(path, name, 'is there twice')
  for part in (whole, *_parents(whole)):
    other = spelled.setdefault(_folded(part), part)
    if other != part:
      raise _refused(
        path, name, f'differs from {printable(other)} by its spelling alone'
      )
  return whole


def _parents(name: str) -> Iterable[str]:
  while name := posixpath.dirname(name):
    yield name


def _folded(name: str) -> str:
  """Equal for names that some file system takes for one."""
  if name.isascii():
    return name.casefold()
  folded = unicodedata.normalize('NFD', name).casefold()
  return unicodedata.normalize('NFC', folded)


def _is_hidden(name: str) -> bool:
  parts = name.split('/')
  return '__MACOSX' in parts or any(part.startswith('.') for part in parts)


def _check_sizes(path: str, info: zipfile.ZipInfo, num_bytes: int) -> None:
  """Raises DataError where a member's sizes are too large, or a lie."""
  name, size, packed = info.orig_filename, info.file_size, info.compress_size
  if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
    method = info.compress_type
    raise _refused(path, name, f'is packed by method {method}, not by deflate')
  if size > MAX_MEMBER_BYTES:
    raise _refused(
      path, name, f'claims {size} bytes, more than {MAX_MEMBER_BYTES}'
    )
  is_stored = info.compress_type == zipfile.ZIP_STORED
  if size > packed * (1 if is_stored else MAX_MEMBER_RATIO):
    raise _refused(path, name, f'claims {size} bytes, packed into {packed}')
  if not 0 <= info.header_offset <= num_bytes - packed - _LOCAL_HEADER:
    raise _refused(path, name, 'lies beyond the end of the archive')


def _refused(path: str, name: str, trouble: str) -> DataError:
  return DataError(
    f'{printable(path)} is not read: its member {printable(name)} {trouble}: '
    + (
      'unpack it and give the folder'
      if trouble == 'is encrypted'
      else f'get it from its maker anew, or {_UNPACK}'
    )
  )
