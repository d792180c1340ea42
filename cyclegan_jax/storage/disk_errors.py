"""Disk errors as messages that say what to do."""

import contextlib
import errno
import os
import pathlib
from collections.abc import Iterator

from cyclegan_jax.errors import WorkdirError


@contextlib.contextmanager
def explain_disk_errors(
  folder: pathlib.Path, *, option: str = '--workdir'
) -> Iterator[None]:
  """Turns the disk's errors into a WorkdirError that says what to do.

  Args:
    folder: that is written.
    option: by which another folder is given.
  """
  try:
    yield
  except PermissionError as error:
    raise WorkdirError(
      f'{folder} can not be written (permission denied): change its '
      f'permissions, or give another {option}'
    ) from error
  except (OSError, ValueError, RuntimeError) as error:
    if not _is_disk_error(error):
      raise
    if _is_full(error):
      raise WorkdirError(
        f'{folder} is on a full disk: free some space, then run the same '
        f'command again{" to go on" if option == "--workdir" else ""}'
      ) from error
    reason = getattr(error, 'strerror', None) or str(error)
    name = getattr(error, 'filename', None)
    if (
      isinstance(error, FileExistsError)
      and name
      and pathlib.Path(name).is_file()
    ):
      raise WorkdirError(
        f'{name} is a file, where a folder has to be: give another {option}'
      ) from error
    if name and pathlib.Path(name) != folder:
      reason += f': {name}'
    raise WorkdirError(
      f'{folder} can not be written ({reason}): give another {option}, or '
      'mend the disk and run the same command again'
    ) from error


def _is_disk_error(error: Exception) -> bool:
  # Orbax and TensorStore wrap the system's errors in their own words.
  return isinstance(error, OSError) or _is_full(error)


def _is_full(error: Exception) -> bool:
  full = (errno.ENOSPC, errno.EDQUOT)
  if isinstance(error, OSError) and error.errno in full:
    return True
  return os.strerror(errno.ENOSPC) in str(error)
