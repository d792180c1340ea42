"""Checksums of the files in a folder.

`manifest.json` lists every file of the folder with its size and SHA-256, and
ends with a checksum of itself. It is written last, when all files that it
lists are on the disk. In every format it is a JSON object with 'format' and
'sha256', encoded as by `_encode`.
"""

import hashlib
import json
import os
import pathlib
import stat
from io import BufferedReader
from typing import Any

MANIFEST_FILE = 'manifest.json'


class DamagedError(Exception):
  """A file of the folder is not what was written; the message names it."""


def write_manifest(folder: pathlib.Path, format: int) -> None:
  """Writes the manifest of a complete folder, and syncs all of it.

  Args:
    folder: folder with files at any depth, none of them open.
    format: version of the folder's layout.

  Raises:
    OSError: a file cannot be read or written.
  """
  files = {}
  for path in sorted(path for path in folder.rglob('*') if path.is_file()):
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


def read_format(folder: pathlib.Path) -> int:
  """Returns the version of a folder's layout.

  Raises:
    DamagedError: the manifest is missing or damaged.
  """
  format = _read_manifest(folder).get('format')
  if type(format) is not int:
    raise DamagedError(f'{MANIFEST_FILE} is damaged')
  return format


def check_manifest(folder: pathlib.Path, *, only: str = '') -> None:
  """Compares every file with the manifest, or one alone.

  Raises:
    DamagedError: a file is missing or damaged.
  """
  for name, (size, checksum) in _read_files(folder).items():
    if not only or name == only:
      _check_file(folder / name, name, size, checksum)


def sync_folder(folder: pathlib.Path) -> None:
  """Makes the names in a folder survive a power loss, except on Windows."""
  if os.name == 'nt':  # it cannot open folders
    return
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def _check_file(
  path: pathlib.Path, name: str, size: int, checksum: str
) -> None:
  try:
    status = path.lstat()
    # A link may lead anywhere, and a pipe may never end.
    if not stat.S_ISREG(status.st_mode):
      raise DamagedError(f'{name} is not a file')
    if status.st_size != size:
      raise DamagedError(
        f'{name} has {status.st_size:,} bytes instead of {size:,}'
      )
    with path.open('rb') as file:
      is_equal = _checksum(file) == checksum
  except OSError as error:
    raise DamagedError(f'{name} is {_reason(error)}') from error
  if not is_equal:
    raise DamagedError(f'{name} has a wrong checksum')


def _read_manifest(folder: pathlib.Path) -> dict[str, Any]:
  """Reads a manifest of any format and checks its checksum."""
  try:
    data = (folder / MANIFEST_FILE).read_bytes()
    content = json.loads(data)
    del content['sha256']
    if data != _encode(content):
      raise ValueError('wrong checksum')
  except OSError as error:
    raise DamagedError(f'{MANIFEST_FILE} is {_reason(error)}') from error
  except (ValueError, LookupError, TypeError, RecursionError) as error:
    raise DamagedError(f'{MANIFEST_FILE} is damaged') from error
  return content


def _read_files(folder: pathlib.Path) -> dict[str, tuple[int, str]]:
  """Reads size and checksum of every file by name."""
  content = _read_manifest(folder)
  try:
    return {
      _inner_name(name): (int(facts['size']), str(facts['sha256']))
      for name, facts in content['files'].items()
    }
  # Anybody can write a manifest with a right checksum.
  except (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
  ) as error:
    raise DamagedError(f'{MANIFEST_FILE} is damaged') from error


def _inner_name(name: str) -> str:
  """Returns a name that lies within the folder; raises ValueError otherwise."""
  parts = pathlib.PurePosixPath(name).parts
  if not parts or name.startswith('/') or '..' in parts or '\0' in name:
    raise ValueError(name)
  return name


def _reason(error: OSError) -> str:
  is_missing = isinstance(error, FileNotFoundError)
  return 'missing' if is_missing else f'unreadable ({error.strerror})'


def _checksum(file: BufferedReader) -> str:
  return hashlib.file_digest(file, 'sha256').hexdigest()


def _encode(manifest: dict[str, Any]) -> bytes:
  """Encodes a manifest and its own checksum."""
  checksum = hashlib.sha256(json.dumps(manifest).encode()).hexdigest()
  return json.dumps({**manifest, 'sha256': checksum}, indent=1).encode()
