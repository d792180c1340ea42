"""The folder of a run: made, checked, and told apart from another run's."""

import contextlib
import dataclasses
import datetime
import fcntl
import json
import logging
import os
import pathlib
import platform
import shutil
import tempfile
from collections.abc import Iterator
from io import FileIO

from cyclegan_jax.config import (
  Config,
  differences,
  from_config_dict,
  option_at,
)
from cyclegan_jax.errors import ConfigError, WorkdirError
from cyclegan_jax.storage.atomic import (
  remove_abandoned,
  replace_text,
)
from cyclegan_jax.storage.disk_errors import (
  explain_disk_errors,
)

_LOCK_FILE = 'lock'


def make_workdir(root: pathlib.Path = pathlib.Path('runs')) -> pathlib.Path:
  """Makes the next free numbered folder, 'runs/00000' first.

  Raises:
    WorkdirError: root can't be written.
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


def discard_workdir(folder: pathlib.Path) -> None:
  """Removes the folder of a run that came to nothing."""
  with contextlib.suppress(OSError):  # once it holds something it stays
    if not {each.name for each in folder.iterdir()} - {_LOCK_FILE}:
      shutil.rmtree(folder)


@contextlib.contextmanager
def lock_workdir(folder: pathlib.Path) -> Iterator[None]:
  """Keeps every other process from training into a folder, which it makes.

  The system gives the lock back when the process ends, however it ends. The
  file `lock` stays; it names the process that has the lock, or died with it.

  Raises:
    WorkdirError: a living process has it, or the folder can't be written.
  """
  with explain_disk_errors(folder):
    if folder.exists() and not folder.is_dir():
      raise WorkdirError(f'{folder} is a file: give a folder with --workdir')
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
  # Closed at the end, which gives back the lock.
  with os.fdopen(descriptor, 'r+b', buffering=0) as file:
    is_ours_alone = True
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise WorkdirError(
        f'{folder} is in use by {_owner(file) or "another process"}: wait for '
        'it, stop it, or give another --workdir'
      ) from None
    except OSError as error:
      is_ours_alone = False
      logging.getLogger('cyclegan_jax').warning(
        '%s is on a disk without locks (%s): make sure that no other process '
        'trains into it',
        folder,
        error.strerror,
      )
    if dead := _owner(file):
      logging.getLogger('cyclegan_jax').warning(
        '%s has died while it trained into %s: taking over', dead, folder
      )
    now = datetime.datetime.now().astimezone()
    with explain_disk_errors(folder):
      # In place: another process may hold the file open, to wait for it.
      file.seek(0)
      file.truncate()
      owner = {
        'pid': os.getpid(),
        'host': platform.node(),
        'started': now.isoformat(sep=' ', timespec='seconds'),
      }
      file.write(json.dumps(owner).encode())
    if is_ours_alone:
      remove_abandoned(folder, seconds=0)
    try:
      yield
    finally:
      with contextlib.suppress(OSError):
        file.truncate(0)


def _owner(file: FileIO) -> str | None:
  """Who wrote the lock's file, for a message; None if it does not tell."""
  try:
    owner = json.loads(file.read())
    return (
      f'process {owner["pid"]} on {owner["host"]}, started {owner["started"]}'
    )
  except (ValueError, KeyError, TypeError):
    return None


def check_workdir(
  folder: pathlib.Path, config: Config, *, checkpoint_bytes: int
) -> None:
  """Makes sure that the folder can hold this run.

  Args:
    folder: locked; of a new run, or of one with an equal config.
    config: resolved.
    checkpoint_bytes: size of a checkpoint.

  Raises:
    WorkdirError: it belongs to another config, can't be written, or its disk
      has too little room.
  """
  with explain_disk_errors(folder):
    old = read_config(folder)
    if old is not None:
      check_same_run(folder, old, config)
    with tempfile.TemporaryFile(dir=folder) as probe:
      probe.write(b'x')
  # One more than are kept: the new one is written before an old one goes.
  # Those of a run that goes on are there already.
  keep = config.checkpoint.keep
  needed = checkpoint_bytes * (keep + 1 - min(keep, _num_checkpoints(folder)))
  free = shutil.disk_usage(folder).free
  if free < needed:
    raise WorkdirError(
      f'{folder} has {_mib(free)} free, but the checkpoints of this run take '
      f'{_mib(needed)}: free some, or give another --workdir'
    )


def write_config(folder: pathlib.Path, config: Config) -> None:
  """Writes config.json: once the config is known to be the run's."""
  text = json.dumps(dataclasses.asdict(config), indent=2)
  replace_text(folder / 'config.json', text + '\n')


def read_config(folder: pathlib.Path) -> Config | None:
  """The resolved config of the run in a folder; None for a new one.

  Raises:
    WorkdirError: config.json is there but can't be understood.
  """
  path = folder / 'config.json'
  try:
    return from_config_dict(json.loads(path.read_text(encoding='utf-8')))
  except (FileNotFoundError, NotADirectoryError):
    return None
  except (OSError, ValueError, ConfigError) as error:
    reason = getattr(error, 'strerror', None) or error
    raise WorkdirError(
      f'{path} can not be read ({reason}): delete it to go on with the '
      'options of that run, or give another --workdir'
    ) from error


def check_same_run(folder: pathlib.Path, old: Config, new: Config) -> None:
  """Makes sure that a run's config is not changed under it.

  Raises:
    WorkdirError: an option that changes what is learnt differs.
  """
  length: set[str] = set()
  if new.schedule.name in ('constant', 'step'):
    # With other schedules, each step's rate depends on the run's length.
    length = {'config.steps', 'config.epochs'}
  changed = [
    f'{path}: {before!r} -> {after!r}'
    for path, (before, after) in differences(old, new).items()
    if not (option_at(path).metadata['may_change'] or path in length)
  ]
  if changed:
    raise WorkdirError(
      f'{folder} belongs to a run with another config ({"; ".join(changed)}): '
      'give another --workdir, or the same options to go on with that run'
    )


def _num_checkpoints(folder: pathlib.Path) -> int:
  names = (each.name for each in (folder / 'checkpoints').glob('*'))
  return sum(name.isdecimal() for name in names)


def _mib(size: int) -> str:
  return f'{size / 2**20:.0f} MiB'
