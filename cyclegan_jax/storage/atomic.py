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


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Gives another name to write to, which becomes `path` at the end.

  The name is hidden and nobody else's, so that two processes that write the
  same file do not meet. Where the body fails, nothing is left of it.

  Raises:
    OSError: the file can't be renamed, and so on.
  """
  # Nothing of the name: TensorBoard reads whatever has 'tfevents' in it.
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
  """Gives another folder to write to, whose files become those of `path`.

  A folder that is new appears whole. In one that is there, files of the same
  names are replaced one by one, and all others stay. Where the body fails,
  nothing is changed.

  Args:
    path: of the folder; its parent is there.
    last: the file that comes when all others are there.

  Raises:
    OSError: a file can't be renamed, and so on.
  """
  temporary = path.with_name(f'.{secrets.token_hex(8)}.tmp')
  temporary.mkdir()
  try:
    yield temporary
    if not path.exists():
      temporary.rename(path)
      return
    files = [each for each in temporary.rglob('*') if each.is_file()]
    for file in sorted(files, key=lambda each: each.name == last):
      target = path / file.relative_to(temporary)
      target.parent.mkdir(exist_ok=True)
      os.replace(file, target)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def replace_text(path: pathlib.Path, text: str) -> None:
  """Writes a file whole or not at all, so that it survives a loss of power."""
  replace_bytes(path, text.encode())


def replace_bytes(path: pathlib.Path, data: bytes) -> None:
  """As `replace_text`."""
  with replacing(path) as temporary, temporary.open('wb') as file:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())
  sync_folder(path.parent)


def remove_abandoned(
  folder: pathlib.Path, *, seconds: float = _ABANDONED_SECONDS
) -> None:
  """Removes what killed processes left in a folder and below it.

  Args:
    folder: that others may write to.
    seconds: since it was written to last; what is newer may still be theirs.
  """
  for path in folder.rglob('.*.tmp'):
    with contextlib.suppress(OSError):
      if time.time() - path.stat().st_mtime >= seconds:
        path.unlink()
