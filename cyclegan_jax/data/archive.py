"""Zip archives of images, read in place: nothing is ever unpacked to disk."""

import io
import os
import posixpath
import re
import threading
import weakref
import zipfile
from typing import Any, BinaryIO, NoReturn

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
from cyclegan_jax.media.medical import may_be_dicom, starts_as_dicom

# Data sets have thousands of images; a list of this many takes seconds.
MAX_ENTRIES = 500_000
MAX_DIRECTORY_BYTES = 2**27  # as listed in the archive
# 100 million pixels of RGBA with 16 bits fit.
MAX_IMAGE_BYTES = 2**30
# Photos hardly compress. Drawings may, but 4 GiB of them are no longer few.
MAX_RATIO = 100
MAX_BYTES_OF_ANY_RATIO = 2**32

_IS_ENCRYPTED = 0x1  # a flag bit
_START_BYTES = 132  # that hold the magic of DICOM
# The other methods unpack any number of bytes at once.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class DirectoryTooLargeError(Exception):
  """The list of a zip archive's entries is too large."""


class LimitedReader:
  """Limits the size of a read while `zipfile` lists the entries.

  It reads the directory at once and makes an object of some 600 bytes of each
  entry of at least 46 bytes. Set `max_bytes` to None after that.
  """

  def __init__(self, file: BinaryIO, max_bytes: int) -> None:
    self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable
    self.max_bytes: int | None = max_bytes
    self._file = file

  def read(self, size: int = -1) -> bytes:
    """Reads as the file does.

    Raises:
      DirectoryTooLargeError: the size is above the limit.
    """
    if self.max_bytes is not None and size > self.max_bytes:
      raise DirectoryTooLargeError(f'has a directory of {size:,} bytes')
    return self._file.read(size)


class Archive:
  """A zip archive that is open for reading, from any thread.

  Attributes:
    path: of the archive.
    images: its entries with names of images, in the archive's order. Their
      `filename` is normalized: 'horses/trainA/1.png'.
    other_files: names of other entries, without hidden files.
    stamp: identifies the version of the archive that was opened.
  """

  def __init__(self, path: str) -> None:
    """Opens an archive, and checks its entries.

    Hidden files and macOS's '__MACOSX' are skipped.

    Raises:
      DataError: it is no zip archive, an entry has a path that leads out of
        it, or there are too many entries or bytes.
    """
    self.path = path
    file = open_file(path)  # zipfile would wait for a pipe
    weakref.finalize(self, file.close)
    status = os.fstat(file.fileno())
    self.stamp = Stamp(status.st_size, status.st_mtime_ns)
    reader: Any = LimitedReader(file, MAX_DIRECTORY_BYTES)
    try:
      self._zip = zipfile.ZipFile(reader)
    except Exception as error:  # damaged bytes end in several of them
      file.close()
      raise DataError(
        f'{printable(path)} cannot be read as a zip archive: {one_line(error)}'
      ) from error
    reader.max_bytes = None
    self._lock = threading.Lock()
    entries = self._zip.infolist()
    if len(entries) > MAX_ENTRIES:
      self._refuse(f'it has {len(entries):,} files, more than {MAX_ENTRIES:,}')
    images: dict[str, zipfile.ZipInfo] = {}
    other_files: set[str] = set()
    for entry in entries:
      self._normalize_name(entry)
      name = entry.filename
      if not name or _is_hidden(name):
        continue
      if name.lower().endswith(EXTENSIONS) or self._is_dicom(entry):
        self._check_image(entry)
        images[name] = entry  # the last of a name, as if it were unpacked
      else:
        other_files.add(name)
    self.images = list(images.values())
    self.other_files = frozenset(other_files)
    total = sum(image.file_size for image in self.images)
    if total > max(MAX_BYTES_OF_ANY_RATIO, MAX_RATIO * status.st_size):
      self._refuse(
        f'its images have {total:,} bytes, more than {MAX_RATIO} times its '
        f'own {status.st_size:,}'
      )

  def read(self, entry: zipfile.ZipInfo) -> bytes:
    """Reads an image's file.

    Args:
      entry: from `images`.

    Raises:
      ImageError: the entry or the archive is damaged.
    """
    try:
      # ZipFile counts its open entries without a lock of its own; reads have
      # one, so several threads decompress at once.
      with self._lock:
        file = self._zip.open(entry)
      try:
        # Without a size, any number of bytes would be unpacked.
        data = file.read(entry.file_size)
      finally:
        with self._lock:
          file.close()
    except Exception as error:
      raise ImageError(
        f'{self.path}/{entry.filename}', one_line(error)
      ) from error
    if len(data) != entry.file_size:
      raise ImageError(f'{self.path}/{entry.filename}', 'it is truncated')
    return data

  def _normalize_name(self, entry: zipfile.ZipInfo) -> None:
    """Sets `entry.filename`, '' for a folder; checks where it leads to."""
    name = entry.filename.replace('\\', '/')
    if name.startswith('/') or re.match('[A-Za-z]:', name):
      self._refuse(f'its entry {printable(name)} has an absolute path')
    if '..' in name.split('/'):
      self._refuse(f"its entry {printable(name)} has '..' in its path")
    entry.filename = '' if name.endswith('/') else posixpath.normpath(name)

  def _is_dicom(self, entry: zipfile.ZipInfo) -> bool:
    """Whether an entry without an ending is a DICOM file, by its magic."""
    if (
      not may_be_dicom(entry.filename)
      or entry.flag_bits & _IS_ENCRYPTED
      or entry.compress_type not in _METHODS
    ):
      return False
    try:
      with self._zip.open(entry) as file:
        return starts_as_dicom(io.BytesIO(file.read(_START_BYTES)))
    except Exception:  # damaged bytes end in several of them
      return False

  def _check_image(self, entry: zipfile.ZipInfo) -> None:
    name, size = printable(entry.filename), entry.file_size
    if entry.flag_bits & _IS_ENCRYPTED:
      self._refuse(f'its entry {name} is encrypted')
    if entry.compress_type not in _METHODS:
      self._refuse(
        f'its entry {name} is compressed by method {entry.compress_type}, '
        'and not by deflate'
      )
    if size > MAX_IMAGE_BYTES:
      self._refuse(
        f'its entry {name} has {size:,} bytes, more than {MAX_IMAGE_BYTES:,}'
      )

  def _refuse(self, reason: str) -> NoReturn:
    raise DataError(
      f'{printable(self.path)} is not read: {reason}. If you trust it, unpack '
      'it and give the folder'
    )


def is_archive(path: str) -> bool:
  """Whether the name is that of a zip archive, and not of a folder."""
  return path.lower().endswith('.zip') and not os.path.isdir(path)


def _is_hidden(name: str) -> bool:
  parts = name.split('/')
  return '__MACOSX' in parts or any(part.startswith('.') for part in parts)
