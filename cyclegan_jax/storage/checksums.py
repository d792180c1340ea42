"""Checksums of a folder's files, written last and believed first.

`manifest.json` names every file of the folder with its size and SHA-256, and
ends in a checksum of itself. What it covers is on the disk, not only in the
system's memory, before it is written.
"""

import hashlib
import json
import os
import pathlib
import stat
from io import BufferedReader
from typing import Any, NamedTuple

MANIFEST_FILE = 'manifest.json'


class DamagedError(Exception):
  """A file of the folder is not what was written; the text names it."""


def write_manifest(folder: pathlib.Path, format: int) -> None:
  """Writes the manifest of a folder that is complete, and syncs all of it.

  Args:
    folder: with files at any depth, none of them open.
    format: the version of the folder's layout.

  Raises:
    OSError: from the disk.
  """
  files = {}
  for path in _files(folder):
    name = path.relative_to(folder).as_posix()
    with path.open('rb') as file:
      os.fsync(file.fileno())
      files[name] = {
        'size': os.fstat(file.fileno()).st_size,
        'sha256': _checksum(file),
      }
  with (folder / MANIFEST_FILE).open('wb') as file:
    file.write(_encode({'format': format, 'files': files}))
    file.flush()
    os.fsync(file.fileno())
  for path in folder.rglob('*'):
    if path.is_dir():
      sync_folder(path)
  sync_folder(folder)


def read_format(folder: pathlib.Path, *, known: int) -> int:
  """The version of a folder's layout.

  It is read before anything else: of a newer version nothing is believed to
  be as it is here but that the manifest is a JSON object with a `format`.

  Args:
    folder: with a manifest.
    known: the newest version that this code knows.

  Raises:
    DamagedError: the manifest is missing or not what was written.
  """
  try:
    content = json.loads(_read(folder))
    format = content['format']
    # A bit that flipped in a number of ours makes no newer version.
    if type(format) is int and format > known and not _is_ours(content, known):
      return format
  except (ValueError, LookupError, TypeError, RecursionError):
    pass  # and told of by what follows
  return _read_manifest(folder).format


def check_manifest(folder: pathlib.Path, *, only: str = '') -> None:
  """Compares every file with the manifest, or one alone.

  Raises:
    DamagedError: one is missing or not what was written.
  """
  files = _read_manifest(folder).files
  if only:
    files = {only: files[only]} if only in files else {}
  for name, (size, checksum) in files.items():
    path = folder / name
    try:
      found = path.lstat()
      # Of a link or a pipe nobody knows where it leads, or when it ends.
      if not stat.S_ISREG(found.st_mode):
        raise DamagedError(f'{name} is not a file')
      if found.st_size != size:
        raise DamagedError(
          f'{name} has {found.st_size:,} bytes instead of {size:,}'
        )
      with path.open('rb') as file:
        is_good = _checksum(file) == checksum
    except OSError as error:
      is_missing = isinstance(error, FileNotFoundError)
      reason = 'missing' if is_missing else f'unreadable ({error.strerror})'
      raise DamagedError(f'{name} is {reason}') from error
    if not is_good:
      raise DamagedError(f'{name} has another checksum than when it was saved')


def sync_folder(folder: pathlib.Path) -> None:
  """Makes the names in a folder survive a loss of power."""
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


class _Manifest(NamedTuple):
  format: int
  files: dict[str, tuple[int, str]]  # size and checksum by name


def _is_ours(content: dict[str, Any], format: int) -> bool:
  """Whether a manifest proves itself once it has this format."""
  if content.keys() != {'format', 'files', 'sha256'}:
    return False
  rest = {'format': format, 'files': content['files']}
  return _self_checksum(rest) == content['sha256']


def _read(folder: pathlib.Path) -> bytes:
  try:
    return (folder / MANIFEST_FILE).read_bytes()
  except OSError as error:
    is_missing = isinstance(error, FileNotFoundError)
    reason = 'missing' if is_missing else f'unreadable ({error.strerror})'
    raise DamagedError(f'{MANIFEST_FILE} is {reason}') from error


def _read_manifest(folder: pathlib.Path) -> _Manifest:
  data = _read(folder)
  try:
    content = json.loads(data)
    del content['sha256']
    if data != _encode(content):
      raise ValueError
    # Whoever can write a checksum can write anything.
    return _Manifest(
      int(content['format']),
      {
        _inner(name): (int(each['size']), str(each['sha256']))
        for name, each in content['files'].items()
      },
    )
  except (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
  ) as error:
    raise DamagedError(f'{MANIFEST_FILE} is not what was saved') from error


def _inner(name: str) -> str:
  """The name, if it lies inside of the folder."""
  parts = pathlib.PurePosixPath(name).parts
  if not parts or name.startswith('/') or '..' in parts or '\0' in name:
    raise ValueError(name)
  return name


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
  return sorted(path for path in folder.rglob('*') if path.is_file())


def _checksum(file: BufferedReader) -> str:
  return hashlib.file_digest(file, 'sha256').hexdigest()


def _encode(manifest: dict[str, Any]) -> bytes:
  """The only spelling of a manifest, with its own checksum."""
  checksum = _self_checksum(manifest)
  return json.dumps({**manifest, 'sha256': checksum}, indent=1).encode()


def _self_checksum(manifest: dict[str, Any]) -> str:
  return hashlib.sha256(json.dumps(manifest).encode()).hexdigest()
