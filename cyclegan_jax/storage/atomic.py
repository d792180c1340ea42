"""Files that are written whole or not at all."""

import contextlib
import os
import pathlib
import secrets
import shutil
import time
from collections.abc import Iterator

from cyclegan_jax.storage.checksums import sync_folder

_ABANDONED_SECONDS = 3600
# Of temporary names only: the folder may hold files of others.
_TEMPORARY = f'.{"[0-9a-f]" * 16}.tmp'


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Gives a temporary path to write to, which replaces `path` at the end.

  Its name is hidden and random, so that two processes can write the same file.
  If the body fails, the temporary file is removed and `path` stays as it was.

  Raises:
    OSError: the file cannot be renamed.
  """
  # Without the name of the file: TensorBoard reads all names with 'tfevents'.
  temporary = path.with_name(f'.{secrets.token_hex(8)}.tmp')
  try:
    yield temporary
    os.replace(temporary, path)
  except BaseException:
    with contextlib.suppress(OSError):
      temporary.unlink()
    raise


@contextlib.contextmanager
def filling(path: pathlib.Path, *, last: str) -> Iterator[pathlib.Path]:
  """Gives a temporary folder to write to, whose files move to `path`.

  A new folder appears whole. In an existing one, files of the same names are
  replaced one by one, and all others stay. If the body fails, nothing changes.

  Args:
    path: path of the folder, whose parent exists.
    last: name of the file that is replaced after all others.

  Raises:
    OSError: a file cannot be renamed.
  """
  temporary = path.with_name(f'.{secrets.token_hex(8)}.tmp')
  temporary.mkdir()
  try:
    yield temporary
    if not path.exists():
      temporary.rename(path)
      return
    files = [file for file in temporary.rglob('*') if file.is_file()]
    for file in sorted(files, key=lambda file: file.name == last):
      target = path / file.relative_to(temporary)
      target.parent.mkdir(exist_ok=True)
      os.replace(file, target)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def replace_text(path: pathlib.Path, text: str) -> None:
  """Writes a UTF-8 file whole or not at all; it survives a power loss."""
  replace_bytes(path, text.encode())


def replace_bytes(path: pathlib.Path, data: bytes) -> None:
  """Writes a file whole or not at all; it survives a power loss."""
  with replacing(path) as temporary, temporary.open('wb') as file:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())
  sync_folder(path.parent)


def remove_abandoned(
  folder: pathlib.Path, *, seconds: float = _ABANDONED_SECONDS
) -> None:
  """Removes temporary files of killed processes in a folder and below it.

  Args:
    folder: folder that other processes may write to.
    seconds: minimum age of a file; newer ones may still be in use.
  """
  for path in folder.rglob(_TEMPORARY):
    with contextlib.suppress(OSError):
      if time.time() - path.stat().st_mtime >= seconds:
        path.unlink()
