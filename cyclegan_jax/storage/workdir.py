"""The folder of a run: created, locked, and checked before it is used."""

import contextlib
import dataclasses
import datetime
import json
import logging
import os
import pathlib
import platform
import shutil
from collections.abc import Iterator

import filelock

from cyclegan_jax.config import (
  Config,
  from_config_dict,
)
from cyclegan_jax.errors import ConfigError, WorkdirError
from cyclegan_jax.storage.atomic import remove_abandoned, replace_text
from cyclegan_jax.storage.disk_errors import explain_disk_errors

_LOCK_FILE = 'lock'
# The process that holds the lock, or died with it.
_OWNER_FILE = '.cyclegan_lock.json'


def make_workdir(root: pathlib.Path = pathlib.Path('runs')) -> pathlib.Path:
  """Creates the next free numbered folder, 'runs/00000' first.

  Raises:
    WorkdirError: root cannot be written.
  """
  with explain_disk_errors(root):
    root.mkdir(parents=True, exist_ok=True)
    taken = [int(p.name) for p in root.iterdir() if p.name.isdecimal()]
    number = max(taken, default=-1) + 1
    while True:
      folder = root / f'{number:05d}'
      try:
        folder.mkdir()
        return folder
      except FileExistsError:  # another run was faster
        number += 1


@contextlib.contextmanager
def lock_workdir(folder: pathlib.Path) -> Iterator[None]:
  """Creates a folder and keeps other processes from training into it.

  The operating system releases the lock when the process ends, however it
  ends. If nothing was added to the folder at the end, as after an error, a new
  lock file is removed, and with it the folder if this function created it.

  Raises:
    WorkdirError: a living process holds the lock, or the folder cannot be
      written.
  """
  with explain_disk_errors(folder):
    str(folder.absolute()).encode()  # checkpoints need a name in UTF-8
    # Without flock, filelock would use marker files, which outlive a process.
    lock = filelock.FileLock(folder / _LOCK_FILE, fallback_to_soft=False)
    if folder.exists() and not folder.is_dir():
      raise WorkdirError(f'{folder} is a file: pass a folder with --workdir')
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    names = {path.name for path in folder.iterdir()}
    is_locked = _acquire(lock, folder)
  try:
    if owner := _read_owner(folder):
      logging.getLogger('cyclegan_jax').warning(
        '%s died while it trained into %s: resuming its run', owner, folder
      )
    with explain_disk_errors(folder):
      _write_owner(folder)
    if is_locked:
      remove_abandoned(folder, seconds=0)
    yield
  finally:
    with contextlib.suppress(OSError):
      (folder / _OWNER_FILE).unlink(missing_ok=True)
    # While the lock is held, so that no other process loses its folder.
    with contextlib.suppress(OSError):
      if {path.name for path in folder.iterdir()} - {_LOCK_FILE} == names:
        (folder / _LOCK_FILE).unlink(missing_ok=True)
        if is_new:
          folder.rmdir()
    lock.release()


def _acquire(lock: filelock.BaseFileLock, folder: pathlib.Path) -> bool:
  """Whether the lock is held; False on a disk without locks."""
  try:
    lock.acquire(blocking=False)
  except filelock.Timeout:
    owner = _read_owner(folder) or 'another process'
    raise WorkdirError(
      f'{folder} is in use by {owner}: wait for it, stop it, or pass another '
      '--workdir'
    ) from None
  except (OSError, NotImplementedError) as error:
    if isinstance(error, PermissionError):
      raise
    logging.getLogger('cyclegan_jax').warning(
      '%s is on a disk without locks (%s): make sure that no other process '
      'trains into it',
      folder,
      error,
    )
    return False
  return True


def _write_owner(folder: pathlib.Path) -> None:
  now = datetime.datetime.now().astimezone()
  owner = {
    'pid': os.getpid(),
    'host': platform.node(),
    'started': now.isoformat(sep=' ', timespec='seconds'),
  }
  replace_text(folder / _OWNER_FILE, json.dumps(owner) + '\n')


def _read_owner(folder: pathlib.Path) -> str | None:
  """Describes the process that wrote the owner file, if there is one."""
  try:
    owner = json.loads((folder / _OWNER_FILE).read_text(encoding='utf-8'))
    return (
      f'process {owner["pid"]} on {owner["host"]}, started {owner["started"]}'
    )
  except (OSError, ValueError, KeyError, TypeError):
    return None


def check_free_space(
  folder: pathlib.Path, config: Config, checkpoint_bytes: int
) -> None:
  """Checks that the disk has room for the checkpoints of a run.

  Args:
    folder: the run's folder.
    config: its checkpoint section says how many are kept.
    checkpoint_bytes: size of a checkpoint.

  Raises:
    WorkdirError: it has not.
  """
  # One more than are kept: the new one is written before an old one is
  # deleted. A resumed run has some of them already.
  keep = config.checkpoint.keep
  needed = checkpoint_bytes * (keep + 1 - min(keep, _num_checkpoints(folder)))
  with explain_disk_errors(folder):
    free = shutil.disk_usage(folder).free
  if free < needed:
    raise WorkdirError(
      f'{folder} has {_mib(free)} free, but the checkpoints of this run take '
      f'{_mib(needed)}: free some space, or pass another --workdir'
    )


def write_config(folder: pathlib.Path, config: Config) -> None:
  """Writes config.json."""
  text = json.dumps(dataclasses.asdict(config), indent=2)
  replace_text(folder / 'config.json', text + '\n')


def read_config(folder: pathlib.Path) -> Config | None:
  """Reads the resolved config of the run in a folder; None for a new run.

  Raises:
    WorkdirError: config.json is damaged, or not of a run.
  """
  path = folder / 'config.json'
  try:
    config = from_config_dict(json.loads(path.read_text(encoding='utf-8')))
    if not config.steps:  # a run records its number
      raise ConfigError('config.steps is missing')
    return config
  except (FileNotFoundError, NotADirectoryError):
    return None
  except (OSError, ValueError, RecursionError, ConfigError) as error:
    reason = getattr(error, 'strerror', None) or error
    raise WorkdirError(
      f'{path} cannot be read ({reason}): move it away, or pass another '
      '--workdir'
    ) from error


def _num_checkpoints(folder: pathlib.Path) -> int:
  names = (path.name for path in (folder / 'checkpoints').glob('*'))
  return sum(name.isdecimal() for name in names)


def _mib(size: int) -> str:
  return f'{size / 2**20:.0f} MiB'
