"""Disk errors as messages that say what to do."""

import contextlib
import errno
import os
import pathlib
import re
from collections.abc import Iterator

from cyclegan_jax.errors import WorkdirError, printable

# How TensorStore spells the system's error number.
_ERROR_NUMBER = re.compile(r"os_error_code='(\d+)'|OS error (\d+)")
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def explain_disk_errors(
  folder: pathlib.Path, *, option: str = '--workdir'
) -> Iterator[None]:
  """Turns the disk's errors into a WorkdirError that says what to do.

  Args:
    folder: folder that is written to.
    option: option that chooses the folder.

  Raises:
    WorkdirError: the disk refused something.
  """
  try:
    yield
  except PermissionError as error:
    raise WorkdirError(
      f'{folder} cannot be written (permission denied): change its '
      f'permissions, or pass another {option}'
    ) from error
  except UnicodeEncodeError as error:  # TensorStore takes UTF-8 only
    raise WorkdirError(
      f'{printable(str(folder))} cannot be used, as its name is not UTF-8: '
      f'pass another {option}'
    ) from error
  except (OSError, ValueError, RuntimeError) as error:
    # Orbax and TensorStore wrap the system's errors.
    if os.strerror(errno.ENOSPC) in str(error) or (
      isinstance(error, OSError) and error.errno in _FULL_DISK
    ):
      raise WorkdirError(
        f'{folder} is on a full disk: free some space, then run the same '
        f'command again{" to resume" if option == "--workdir" else ""}'
      ) from error
    if not isinstance(error, OSError):
      raise
    reason, name = error_reason(error), error.filename
    is_existing = isinstance(error, FileExistsError)
    if is_existing and name and pathlib.Path(name).is_file():
      raise WorkdirError(
        f'{name} is a file, but a folder is needed: pass another {option}'
      ) from error
    if name and pathlib.Path(name) != folder:
      reason += f': {name}'
    raise WorkdirError(
      f'{folder} cannot be written ({reason}): pass another {option}, or '
      'repair the disk and run the same command again'
    ) from error


def find_disk_error(error: BaseException | None) -> Exception | None:
  """Returns the disk's error among an error and its causes, if any is one."""
  while isinstance(error, Exception):
    if isinstance(error, OSError) or _ERROR_NUMBER.search(str(error)):
      return error
    error = error.__cause__ or error.__context__
  return None


def error_reason(error: Exception) -> str:
  """Returns the reason that the disk or a library gives, in one line."""
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  text = str(error).strip() or type(error).__name__
  # TensorStore's message has the number in the middle of much else.
  if number := _ERROR_NUMBER.search(text):
    return os.strerror(int(number[1] or number[2]))
  return text.splitlines()[0][:200]
