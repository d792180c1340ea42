"""Checksums of a folder's files, written last and believed first.

`manifest.json` names every file of the folder with its size and SHA-256, and
ends in a checksum of itself. What it covers is on the disk, not only in the
system's memory, before it is written.
"""

import hashlib
import json
import os
import pathlib
from io import BufferedReader
from typing import Any

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
      files[name] = _fingerprint(file)
  with (folder / MANIFEST_FILE).open('wb') as file:
    file.write(_encode({'format': format, 'files': files}))
    file.flush()
    os.fsync(file.fileno())
  for path in folder.rglob('*'):
    if path.is_dir():
      sync_folder(path)
  sync_folder(folder)


def read_format(folder: pathlib.Path) -> int:
  """The version of a folder's layout.

  Raises:
    DamagedError: the manifest is missing or not what was written.
  """
  return int(_read_manifest(folder)['format'])


def check_manifest(folder: pathlib.Path) -> None:
  """Compares every file with the manifest.

  Raises:
    DamagedError: one is missing or not what was written.
  """
  for name, expected in _read_manifest(folder)['files'].items():
    try:
      with (folder / name).open('rb') as file:
        size = os.fstat(file.fileno()).st_size
        if size != expected['size']:
          raise DamagedError(
            f'{name} has {size:,} bytes instead of {expected["size"]:,}'
          )
        found = _fingerprint(file)
    except OSError as error:
      reason = 'missing' if isinstance(error, FileNotFoundError) else error
      raise DamagedError(f'{name} is {reason}') from error
    if found != expected:
      raise DamagedError(f'{name} has another checksum than when it was saved')


def sync_folder(folder: pathlib.Path) -> None:
  """Makes the names in a folder survive a loss of power."""
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def _read_manifest(folder: pathlib.Path) -> dict[str, Any]:
  try:
    data = (folder / MANIFEST_FILE).read_bytes()
  except OSError as error:
    missing = isinstance(error, FileNotFoundError)
    reason = 'missing' if missing else f'unreadable ({error.strerror})'
    raise DamagedError(f'{MANIFEST_FILE} is {reason}') from error
  try:
    manifest = json.loads(data)
    del manifest['sha256']
    is_good = data == _encode(manifest)
  except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
    is_good = False
  if not is_good:
    raise DamagedError(f'{MANIFEST_FILE} is not what was saved')
  return manifest


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
  return sorted(path for path in folder.rglob('*') if path.is_file())


def _fingerprint(file: BufferedReader) -> dict[str, Any]:
  digest = hashlib.file_digest(file, 'sha256')
  return {'size': file.tell(), 'sha256': digest.hexdigest()}


def _encode(manifest: dict[str, Any]) -> bytes:
  """The only spelling of a manifest, with its own checksum."""
  checksum = hashlib.sha256(json.dumps(manifest).encode()).hexdigest()
  return json.dumps({**manifest, 'sha256': checksum}, indent=1).encode()
