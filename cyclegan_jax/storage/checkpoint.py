"""Checkpoints that describe and prove themselves; the only home of Orbax.

A checkpoint is a folder `checkpoints/<step>`:

  state/         the whole TrainState, by Orbax
  record.json    the config, library versions, the data's fingerprint, metrics
  data.json.gz   names and sizes of the images, to tell what changed
  manifest.json  the format's version and a checksum of every file

It is written under another name and renamed when all of it is on the disk, so
a folder named by a step is whole, or was damaged afterwards. Then its
checksums tell, and it is not believed.
"""

import contextlib
import copy
import dataclasses
import gzip
import importlib.metadata
import json
import logging
import math
import os
import pathlib
import re
import shutil
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Self

import jax
import orbax.checkpoint as ocp

from cyclegan_jax import parallel
from cyclegan_jax.config import Config, from_config_dict
from cyclegan_jax.errors import WorkdirError
from cyclegan_jax.metrics.goals import badness
from cyclegan_jax.state import TrainState, abstract_train_state
from cyclegan_jax.storage.checksums import (
  MANIFEST_FILE,
  DamagedError,
  check_manifest,
  read_format,
  sync_folder,
  write_manifest,
)

FORMAT = 2
RECORD_FILE = 'record.json'
LISTING_FILE = 'data.json.gz'
_PLAIN_LISTING_FILE = 'data.json'  # of older checkpoints of this format
DIRECTIONS = ('ab', 'ba')
DOMAINS = ('a', 'b')

_PACKAGES = ('cyclegan_jax', 'jax', 'flax', 'optax', 'orbax-checkpoint')
_RECORDED = (
  'config',
  'versions',
  'data',
  'metrics',
  'directions',
  'judges',
)
_NUM_LOOKS = 5  # at a folder whose newest is deleted while it is read


class Checkpoint(NamedTuple):
  """What a checkpoint holds."""

  path: pathlib.Path
  state: TrainState
  config: Config  # resolved
  data: dict[str, Any]  # the fingerprint of the images; {} if not known
  metrics: dict[str, float]  # of its step
  directions: tuple[str, ...] = DIRECTIONS  # that are of any use
  judges: tuple[str, ...] = DOMAINS  # domains that are judged by trained ones


class Saver:
  """Saves checkpoints in the background; keeps the newest and the best.

  A save that fails leaves what was there, and is told by `take_failure`.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    config: Config,
    *,
    data: Mapping[str, Any] | None = None,
    listing: Mapping[str, Any] | None = None,
    good_step: int | None = None,
    directions: tuple[str, ...] = DIRECTIONS,
    judges: tuple[str, ...] = DOMAINS,
    is_writer: bool = True,
  ):
    """Removes what a dead process left half-written.

    Args:
      folder: `<workdir>/checkpoints`; made with the first checkpoint. No
        other process may write it meanwhile.
      config: resolved; its checkpoint section says what is kept.
      data: the fingerprint of the images, as JSON takes it.
      listing: of the images, likewise.
      good_step: of the checkpoint that the run goes on from.
      directions: whose generators know anything.
      judges: domains whose discriminators do.
      is_writer: of several processes only one is; the others' does nothing.
    """
    self._is_writer = is_writer
    self._folder = folder.absolute()
    self._config = config
    self._data = dict(data or {})
    # Once, for all checkpoints: a million files take seconds to spell, and
    # 140 MiB as they are.
    self._listing = gzip.compress(json.dumps(listing or {}).encode(), mtime=0)
    self._directions = directions
    self._judges = judges
    self._versions = {name: _version(name) for name in _PACKAGES}
    self._good = set() if good_step is None else {good_step}
    self._thread: threading.Thread | None = None
    self._failure: tuple[int, Exception] | None = None
    self._remove('.*.tmp', '.*.old')

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self.wait()
    self._remove('.*.tmp', '.*.old')

  def save(
    self,
    state: TrainState,
    metrics: Mapping[str, float] | None = None,
    *,
    replace: bool = False,
  ) -> None:
    """Starts to save, once the last save has ended.

    Args:
      state: at the step that names the checkpoint, on one device; it may be
        donated as soon as this returns.
      metrics: of that step; `checkpoint.best_metric` is one of them.
      replace: save it although there is a good one of this step, which may
        lack metrics; else nothing is done.
    """
    self.wait()
    step = int(state.step)
    if not self._is_writer or (step in self._good and not replace):
      return
    temporary = self._folder / f'.{step}.tmp'
    record = {
      'config': dataclasses.asdict(self._config),
      'versions': self._versions,
      'data': self._data,
      'metrics': {name: float(each) for name, each in (metrics or {}).items()},
      'directions': self._directions,
      'judges': self._judges,
    }
    # Not the manager of Orbax, which would name the folder before our
    # checksums are in it.
    writer = _make_writer()
    try:
      shutil.rmtree(temporary, ignore_errors=True)
      temporary.mkdir(parents=True)
      sync_folder(self._folder.parent)
      if jax.process_count() > 1:
        # Of several processes Orbax takes arrays that all of them have.
        state = parallel.replicate(state, jax.device_count())
      writer.save(temporary / 'state', args=ocp.args.PyTreeSave(state))
    except Exception as error:  # of TensorStore, Orbax and the system
      self.fail(step, error)
      with contextlib.suppress(Exception):
        writer.close()
      return
    self._thread = threading.Thread(
      target=self._finish, args=(writer, record, step), name='checkpoint'
    )
    self._thread.start()

  @property
  def last_step(self) -> int | None:
    """The step of the newest checkpoint that is known to be good."""
    return max(self._good, default=None)

  def go_back(self, step: int) -> None:
    """Takes note that the newest good checkpoint is of this step."""
    self._good = {each for each in self._good if each < step} | {step}

  def wait(self) -> None:
    """Returns when no save is under way."""
    if self._thread is not None:
      self._thread.join()
      self._thread = None

  def take_failure(self) -> tuple[int, Exception] | None:
    """The step and the error of a save that failed; told once."""
    failure, self._failure = self._failure, None
    return failure

  def _finish(
    self, writer: ocp.AsyncCheckpointer, record: Any, step: int
  ) -> None:
    final, temporary = self._folder / str(step), self._folder / f'.{step}.tmp'
    try:
      with writer:
        writer.wait_until_finished()
      (temporary / RECORD_FILE).write_text(json.dumps(record), encoding='utf-8')
      (temporary / LISTING_FILE).write_bytes(self._listing)
      write_manifest(temporary, FORMAT)
      if final.exists():  # damaged, or without metrics that came later
        self._delete(step)
      os.rename(temporary, final)
      sync_folder(self._folder)
    except Exception as error:
      self.fail(step, error)
      return
    self._good.add(step)
    self._failure = None
    with contextlib.suppress(OSError):  # the next one deletes more
      self._prune(step)

  def fail(self, step: int, error: Exception) -> None:
    """Takes note that the checkpoint of a step can't be had."""
    self._failure = (step, error)
    self._remove(f'.{step}.tmp')

  def _remove(self, *patterns: str) -> None:
    """Removes what was killed half-way, or failed.

    Of a save that failed, threads of Orbax may go on to write for a moment.
    """
    for seconds in (0, 0.1, 0.4, 1.6) if self._is_writer else ():
      time.sleep(seconds)
      left = [path for each in patterns for path in self._folder.glob(each)]
      for path in left:
        shutil.rmtree(path, ignore_errors=True)
      if not left:
        return

  def _prune(self, last: int) -> None:
    """Deletes all but the newest checkpoints and the best.

    Those of later steps, which could not be read, take no good one's place.
    """
    options = self._config.checkpoint
    best = best_step(self._folder, options.best_metric, options.best_mode)
    steps = [step for step in find_steps(self._folder) if step <= last]
    for step in steps[: -options.keep]:
      if step != best:
        self._delete(step)

  def _delete(self, step: int) -> None:
    # A folder named by a step is whole, also while it is being deleted.
    doomed = self._folder / f'.{step}.old'
    shutil.rmtree(doomed, ignore_errors=True)
    os.rename(self._folder / str(step), doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _make_writer() -> ocp.AsyncCheckpointer:
  options = _of_this_process()
  more: dict[str, Any] = {}
  if jax.process_count() > 1:
    # All of an array is written here, though other processes have it too.
    # Orbax has no public way to say so and to keep what it knows of keys.
    of_arrays: Any = copy.copy(ocp.type_handlers.get_type_handler(jax.Array))
    of_arrays._use_replica_parallel = False
    more['type_handler_registry'] = (
      ocp.type_handlers.create_type_handler_registry((jax.Array, of_arrays))
    )
  handler = ocp.PyTreeCheckpointHandler(
    # It takes twice the time for 8% of the bytes: weights are noise.
    use_compression=False,
    multiprocessing_options=options,
    **more,
  )
  return ocp.AsyncCheckpointer(handler, multiprocessing_options=options)


def _of_this_process() -> ocp.options.MultiprocessingOptions:
  """Has Orbax wait for no other process: one alone reads and writes."""
  if jax.process_count() == 1:
    return ocp.options.MultiprocessingOptions()
  index = jax.process_index()
  return ocp.options.MultiprocessingOptions(
    primary_host=None,  # none that others would wait for
    active_processes={index},
    barrier_sync_key_prefix=f'process_{index}',
  )


def _version(package: str) -> str:
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:  # run from its folder
    return 'not installed'


_ERROR_NUMBER = re.compile(r"os_error_code='(\d+)'|OS error (\d+)")


def find_steps(folder: pathlib.Path) -> list[int]:
  """The steps that a folder has checkpoints of, in their order."""
  if not folder.is_dir():
    return []
  return sorted(
    int(path.name)
    for path in folder.iterdir()
    if path.name.isascii() and path.name.isdigit() and path.is_dir()
  )


def best_step(folder: pathlib.Path, metric: str, mode: str) -> int | None:
  """The newest of the checkpoints whose metric is best, if one has it.

  Args:
    folder: `<workdir>/checkpoints`.
    metric: a name in the records' metrics; '' for none.
    mode: 'auto', 'min' or 'max', as `config.checkpoint.best_mode`.
  """
  ranked = []
  for step in find_steps(folder):
    try:
      check_manifest(folder / str(step), only=RECORD_FILE)
      value = float(_read_record(folder / str(step))['metrics'][metric])
    except (DamagedError, LookupError, TypeError, ValueError, OverflowError):
      continue
    if math.isfinite(value):
      ranked.append((-badness(metric, value, mode=mode), step))
  return max(ranked)[1] if ranked else None


def check_format(folder: pathlib.Path) -> None:
  """Makes sure that a run's checkpoints were not written by a newer version.

  That is the first thing to know of a run: all else of it may be new, too.

  Args:
    folder: `<workdir>/checkpoints`; it need not be there.

  Raises:
    WorkdirError: the newest that tells its format is of another.
  """
  for step in reversed(find_steps(folder)):
    with contextlib.suppress(DamagedError):  # told when it is read
      _check_format(folder / str(step))
      return


def restore_newest(folder: pathlib.Path) -> Checkpoint | None:
  """Reads the newest checkpoint that is whole, onto one device.

  A damaged one is named in a warning and passed over.

  Args:
    folder: `<workdir>/checkpoints`.

  Returns:
    The checkpoint, or None where the folder has none.

  Raises:
    WorkdirError: all are damaged, or one is of another format.
  """
  damages: dict[int, str] = {}
  looks, steps = 0, find_steps(folder)
  while steps:
    path = folder / str(steps[-1])
    try:
      return restore(path)
    except (DamagedError, WorkdirError) as error:
      if not path.exists() and looks < _NUM_LOOKS:
        # A run that goes on has deleted it, and saved a newer one before.
        looks += 1
        steps = [step for step in find_steps(folder) if step not in damages]
        continue
      if isinstance(error, WorkdirError):
        raise
      damages[steps.pop()] = text = f'{path} is damaged ({error})'
      logging.getLogger('cyclegan_jax').warning('%s', text)
  if damages:
    first = damages[max(damages)]
    raise WorkdirError(
      f'{folder} has no checkpoint left to go on from: {first}: bring a '
      'copy back, or give another --workdir to start anew'
    )
  return None


def restore(path: pathlib.Path) -> Checkpoint:
  """Reads one checkpoint onto one device, whatever devices wrote it.

  Args:
    path: `checkpoints/<step>`.

  Raises:
    DamagedError: it is not what was saved.
    WorkdirError: it is of another format, or of other versions of the
      libraries, which can't be read.
  """
  _check_format(path)
  check_manifest(path)
  record = _read_record(path)
  try:
    config = from_config_dict(record['config'])
    options = _of_this_process()
    with ocp.StandardCheckpointer(multiprocessing_options=options) as reader:
      state = reader.restore(path.absolute() / 'state', _abstract_state(config))
  except MemoryError:
    raise
  except Exception as error:  # Orbax wraps the disk's in ones of its own
    for cause in _chain(error):
      if isinstance(cause, OSError) or _ERROR_NUMBER.search(str(cause)):
        raise DamagedError(
          f'state is unreadable ({reason_of(cause)})'
        ) from error
    # It is what was saved: so what can't be read is ours.
    versions = ', '.join(f'{k} {v}' for k, v in record['versions'].items())
    raise WorkdirError(
      f'{path} can not be read here ({reason_of(error)}): it was written with '
      f'{versions}, so use those'
    ) from error
  return Checkpoint(
    path,
    state,
    config,
    record['data'],
    record['metrics'],
    tuple(record['directions']),
    tuple(record['judges']),
  )


def read_listing(path: pathlib.Path) -> dict[str, Any]:
  """The listing of the images that a checkpoint was trained on.

  Args:
    path: `checkpoints/<step>`.

  Raises:
    DamagedError: it is not what was saved.
  """
  is_packed = (path / LISTING_FILE).exists()
  name = LISTING_FILE if is_packed else _PLAIN_LISTING_FILE
  try:
    check_manifest(path, only=name)
    data = (path / name).read_bytes()
    return dict(json.loads(gzip.decompress(data) if is_packed else data))
  except (
    OSError,
    EOFError,
    zlib.error,
    ValueError,
    TypeError,
    RecursionError,
  ) as error:
    raise DamagedError(f'{name} is not what was saved') from error


def load(
  path: str | pathlib.Path, *, direction: str | None = None
) -> tuple[TrainState, Config]:
  """Reads a checkpoint from a run's folder, or from one checkpoint's.

  Args:
    path: a workdir or its `checkpoints`, for the newest that is whole, or
      `checkpoints/<step>`.
    direction: 'ab' or 'ba', if that is what is wanted of it.

  Returns:
    The state and the config that was saved with it.

  Raises:
    WorkdirError: it is none of these, or damaged, or was imported without
      the generator of this direction.
  """
  found = find(path, direction=direction)
  return found.state, found.config


def find(
  path: str | pathlib.Path, *, direction: str | None = None
) -> Checkpoint:
  """As `load`, with all that the checkpoint holds."""
  path = pathlib.Path(path)
  if not path.is_dir():
    raise WorkdirError(
      f'{path} is not a folder: give the folder of a run, or of one of its '
      'checkpoints'
    )
  # A newer version may have no such folder, but has a manifest.
  if (path / 'state').is_dir() or (path / MANIFEST_FILE).is_file():
    try:
      found: Checkpoint | None = restore(path)
    except DamagedError as error:
      raise WorkdirError(
        f'{path} is damaged ({error}): give another checkpoint, or the '
        "run's folder for the newest that is whole"
      ) from error
  else:
    inner = path / 'checkpoints'
    found = restore_newest(inner if inner.is_dir() else path)
  if found is None:
    raise WorkdirError(
      f'{path} holds no checkpoint: give the folder of a run that has saved one'
    )
  if direction not in (None, *found.directions):
    known = ' and '.join(found.directions)
    raise WorkdirError(
      f'{found.path} has no trained generator for {direction}: it was imported '
      f'for {known} alone'
    )
  return found


def reason_of(error: Exception) -> str:
  """What the disk or a library says, in a line."""
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  text = str(error).strip() or type(error).__name__
  # TensorStore's texts hold the system's number, in the middle of much else.
  number = _ERROR_NUMBER.search(text)
  if number:
    return os.strerror(int(number[1] or number[2]))
  return text.splitlines()[0][:200]


def _chain(error: BaseException | None) -> Iterator[Exception]:
  """An error, and those that it came from."""
  while isinstance(error, Exception):
    yield error
    error = error.__cause__ or error.__context__


def _check_format(path: pathlib.Path) -> None:
  # Format 1 was Orbax's own layout, without checksums.
  is_first = (path / 'record').is_dir()
  written = 1 if is_first else read_format(path, known=FORMAT)
  if written > FORMAT:
    raise WorkdirError(
      f'checkpoint {path} is of format {written}, and this version reads '
      f'format {FORMAT}: upgrade cyclegan_jax'
    )
  if written < FORMAT:
    raise WorkdirError(
      f'{path} has format {written}, but this version of cyclegan_jax reads '
      f'format {FORMAT}: use the version that wrote it'
    )


def _read_record(path: pathlib.Path) -> dict[str, Any]:
  try:
    record = json.loads((path / RECORD_FILE).read_text(encoding='utf-8'))
    for name, default in (('directions', DIRECTIONS), ('judges', DOMAINS)):
      record[name] = dict.fromkeys(map(str, record.get(name, default)))
    return {name: dict(record[name]) for name in _RECORDED}
  except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
    raise DamagedError(f'{RECORD_FILE} is not what was saved') from error


def _abstract_state(config: Config) -> TrainState:
  state = abstract_train_state(config)
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), state
  )
