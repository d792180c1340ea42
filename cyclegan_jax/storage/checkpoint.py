"""Self-describing, checksummed checkpoints; the only module that uses Orbax.

A checkpoint is a folder `checkpoints/<step>`:

  state/         the whole TrainState, by Orbax
  record.json    config, library versions, fingerprint of the data, metrics
  data.json.gz   names and sizes of the images, to find changes
  manifest.json  the format's version and a checksum of every file

It is written under another name and renamed when all of it is on the disk. So
a folder named by a step is complete, or was damaged later, which its checksums
reveal.
"""

import contextlib
import dataclasses
import gzip
import importlib.metadata
import json
import logging
import math
import os
import pathlib
import shutil
import sys
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from cyclegan_jax.config import Config, Direction, from_config_dict
from cyclegan_jax.errors import (
  ConfigError,
  MissingPartError,
  UserError,
  WorkdirError,
  printable,
)
from cyclegan_jax.metrics.goals import badness
from cyclegan_jax.nets import make_generator
from cyclegan_jax.parallel import check_devices
from cyclegan_jax.state import TrainState, abstract_train_state
from cyclegan_jax.storage import hub_folder
from cyclegan_jax.storage.checksums import (
  MANIFEST_FILE,
  DamagedError,
  check_manifest,
  read_format,
  sync_folder,
  write_manifest,
)
from cyclegan_jax.storage.disk_errors import error_reason, find_disk_error
from cyclegan_jax.storage.workdir import read_config
from cyclegan_jax.types import is_key
from cyclegan_jax.version import __version__

FORMAT = 1
RECORD_FILE = 'record.json'
IMAGE_LIST_FILE = 'data.json.gz'
DIRECTIONS: tuple[Direction, Direction] = ('ab', 'ba')
DOMAINS = ('a', 'b')

_PACKAGES = ('cyclegan_jax', 'jax', 'flax', 'optax', 'orbax-checkpoint')
_NO_VERSION = 'not installed'
# Options that a run records anew with each resume, since no result depends on
# them.
_DESCRIPTIONS = ('name', 'modality', 'rescale_type')
_MAX_RETRIES = 5  # while a run deletes the checkpoints that are read
_UNREADABLE = (OSError, EOFError, ValueError, LookupError, TypeError)


class Checkpoint(NamedTuple):
  """Content of a checkpoint."""

  state: TrainState
  config: Config  # resolved
  path: pathlib.Path
  data: dict[str, Any]  # fingerprint of the images; {} if unknown
  metrics: dict[str, float]  # metrics of its step
  directions: tuple[Direction, ...]  # directions of the trained generators
  discriminators: tuple[str, ...]  # domains of the trained discriminators
  history: tuple[dict[str, Any], ...] = ()  # changes of the config


class Saver:
  """Saves checkpoints in the background; keeps the newest and the best.

  A save that fails leaves the previous checkpoints in place and is reported by
  `take_failure`.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    config: Config,
    *,
    data: Mapping[str, Any] | None = None,
    image_list: Mapping[str, Any] | None = None,
    resume_step: int | None = None,
    history: Sequence[dict[str, Any]] = (),
    directions: tuple[Direction, ...] = DIRECTIONS,
    discriminators: tuple[str, ...] = DOMAINS,
    is_writer: bool = True,
  ):
    """Removes incomplete checkpoints of a killed process.

    Args:
      folder: `<workdir>/checkpoints`; created with the first checkpoint. No
        other process may write to it meanwhile.
      config: resolved config; its checkpoint section says what is kept.
      data: fingerprint of the images, as JSON.
      image_list: names and sizes of the images, as JSON.
      resume_step: step of the valid checkpoint that the run resumes from.
      history: changes of the config so far, as JSON.
      directions: directions of the trained generators.
      discriminators: domains of the trained discriminators.
      is_writer: whether this process writes; only one of a run does.
    """
    self._is_writer = is_writer
    self._folder = folder.absolute()
    self._config = config
    # Encoded once: the list of a million images takes seconds and 140 MiB.
    text = json.dumps(image_list or {})
    self._image_list = gzip.compress(text.encode(), mtime=0)
    self._record = {
      'config': dataclasses.asdict(config),
      'versions': {name: _installed_version(name) for name in _PACKAGES},
      'data': dict(data or {}),
      'history': list(history),
      'directions': directions,
      'discriminators': discriminators,
    }
    self._valid_steps = set() if resume_step is None else {resume_step}
    self._thread: threading.Thread | None = None
    self._failure: tuple[int, Exception] | None = None
    self._remove_leftovers('.*.tmp', '.*.old')

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self.wait()
    self._remove_leftovers('.*.tmp', '.*.old')

  def save(
    self,
    state: TrainState,
    metrics: Mapping[str, float] | None = None,
    *,
    replace: bool = False,
  ) -> None:
    """Starts a save after the last one has ended.

    Args:
      state: state on one device; its step names the checkpoint. It may be
        donated as soon as this returns.
      metrics: metrics of that step, for `checkpoint.best_metric`.
      replace: whether to replace a valid checkpoint of this step, which may
        lack metrics; otherwise nothing is done.
    """
    self.wait()
    step = int(state.step)
    if not self._is_writer or (step in self._valid_steps and not replace):
      return
    numbers = {name: float(value) for name, value in (metrics or {}).items()}
    self._thread = threading.Thread(
      target=self._save,
      args=(step, jax.tree.map(_to_host, state), numbers),
      name='checkpoint',
    )
    self._thread.start()

  @property
  def last_step(self) -> int | None:
    """Step of the newest valid checkpoint."""
    return max(self._valid_steps, default=None)

  def rewind(self, step: int) -> None:
    """Records `step` as the newest valid checkpoint."""
    self._valid_steps = {s for s in self._valid_steps if s < step} | {step}

  def wait(self) -> None:
    """Waits for a save in progress."""
    if self._thread is not None:
      self._thread.join()
      self._thread = None

  def take_failure(self) -> tuple[int, Exception] | None:
    """Returns the step and the error of a failed save, once."""
    failure, self._failure = self._failure, None
    return failure

  def fail(self, step: int, error: Exception) -> None:
    """Records that the checkpoint of a step cannot be saved."""
    self._failure = (step, error)
    self._remove_leftovers(f'.{step}.tmp')

  def _save(
    self, step: int, arrays: TrainState, metrics: Mapping[str, float]
  ) -> None:
    final, temporary = self._folder / str(step), self._folder / f'.{step}.tmp'
    with _suppress_duplicate_errors():
      try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        sync_folder(self._folder.parent)
        _write_arrays(temporary / 'state', arrays)
        record = json.dumps({**self._record, 'metrics': metrics})
        (temporary / RECORD_FILE).write_text(record, encoding='utf-8')
        (temporary / IMAGE_LIST_FILE).write_bytes(self._image_list)
        write_manifest(temporary, FORMAT)
        replaced = self._folder / f'.{step}.old'
        shutil.rmtree(replaced, ignore_errors=True)
        if final.exists():  # damaged, or without metrics that came later
          os.rename(final, replaced)
        os.rename(temporary, final)
        sync_folder(self._folder)
        shutil.rmtree(replaced, ignore_errors=True)
      except Exception as error:  # of Orbax, TensorStore and the system
        self.fail(step, error)
        return
    self._valid_steps.add(step)
    self._failure = None
    with contextlib.suppress(OSError):  # the next save deletes more
      self._prune(step)

  def _remove_leftovers(self, *patterns: str) -> None:
    """Removes incomplete checkpoints.

    After a failed save, threads of TensorStore may write for a moment.
    """
    for seconds in (0, 0.1, 0.4, 1.6) if self._is_writer else ():
      time.sleep(seconds)
      paths = [path for each in patterns for path in self._folder.glob(each)]
      for path in paths:
        shutil.rmtree(path, ignore_errors=True)
      if not paths:
        return

  def _prune(self, last_step: int) -> None:
    """Deletes all checkpoints but the newest and the best.

    Those of later steps, which could not be read, do not count.
    """
    options = self._config.checkpoint
    best = best_step(self._folder, options.best_metric, options.best_mode)
    steps = [step for step in list_steps(self._folder) if step <= last_step]
    for step in steps[: -options.keep]:
      if step != best:
        self._delete(step)

  def _delete(self, step: int) -> None:
    # Renamed first: a folder named by a step must be complete.
    doomed = self._folder / f'.{step}.old'
    shutil.rmtree(doomed, ignore_errors=True)
    os.rename(self._folder / str(step), doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def recover_replaced(folder: pathlib.Path) -> None:
  """Brings back a checkpoint whose replacement was interrupted.

  Args:
    folder: `<workdir>/checkpoints`, which no other process writes.
  """
  for path in folder.glob('.*.old'):
    final = folder / path.name.removeprefix('.').removesuffix('.old')
    with contextlib.suppress(DamagedError, OSError):
      if not final.exists():
        check_manifest(path)
        os.rename(path, final)


def list_steps(folder: pathlib.Path) -> list[int]:
  """Returns the steps of the checkpoints in `<workdir>/checkpoints`, sorted."""
  if not folder.is_dir():
    return []
  return sorted(
    int(path.name)
    for path in folder.iterdir()
    if path.name.isascii() and path.name.isdigit() and path.is_dir()
  )


def best_step(folder: pathlib.Path, metric: str, mode: str) -> int | None:
  """Returns the newest step with the best value of a metric, if any has one.

  Args:
    folder: `<workdir>/checkpoints`.
    metric: name of a metric; '' for none.
    mode: 'auto', 'min' or 'max', as in `config.checkpoint.best_mode`.
  """
  ranked = []
  for step in list_steps(folder):
    try:
      check_manifest(folder / str(step), only=RECORD_FILE)
      value = float(_read_record(folder / str(step))['metrics'][metric])
    except (DamagedError, LookupError, TypeError, ValueError, OverflowError):
      continue
    if math.isfinite(value):
      ranked.append((-badness(metric, value, mode=mode), step))
  return max(ranked)[1] if ranked else None


def check_format(folder: pathlib.Path) -> None:
  """Checks that a run's checkpoints have the format of this version.

  This comes first, since everything else in a run of a newer version may
  differ, too.

  Args:
    folder: `<workdir>/checkpoints`; may be missing.

  Raises:
    WorkdirError: the newest checkpoint with a readable format has another.
  """
  for step in reversed(list_steps(folder)):
    with contextlib.suppress(DamagedError):  # reported when it is loaded
      _check_format(folder / str(step))
      return


def load(
  path: str | pathlib.Path, *, direction: Direction | None = None
) -> Checkpoint:
  """Loads a checkpoint onto one device.

  Args:
    path: a run's folder or its `checkpoints`, for the newest valid checkpoint,
      or one `checkpoints/<step>`; or a folder of `cyclegan export --format
      hub`, or 'hf:owner/name' for one on a hub, which hold generators only.
    direction: 'ab' or 'ba' if its generator is required.

  Raises:
    WorkdirError: there is no checkpoint, it is damaged or of another version,
      or it lacks the generator.
    WeightsError: the files of a hub's folder are damaged.
  """
  check_devices()
  path = hub_folder.local_folder(path)
  if not os.path.isdir(path):  # Path.is_dir raises for names that are too long
    raise WorkdirError(
      f'{path} is not a folder: pass the folder of a run, or of one of its '
      'checkpoints'
    )
  checkpoint: Checkpoint | None
  # In a newer format there may be no state/, but there is a manifest.
  if (path / 'state').is_dir() or (path / MANIFEST_FILE).is_file():
    try:
      checkpoint = _load(path)
    except DamagedError as error:
      raise WorkdirError(
        f'{path} is damaged ({error}): pass another checkpoint, or the '
        "run's folder for the newest valid one"
      ) from error
  elif (path / 'checkpoints').is_dir():
    # Even if the run was also exported into its own folder, some time ago.
    checkpoint = load_newest(path / 'checkpoints')
  elif hub_folder.is_hub_folder(path):
    checkpoint = _load_hub_folder(path)
  else:
    checkpoint = load_newest(path)
  if checkpoint is None:
    raise WorkdirError(
      f'{path} has no checkpoint: pass the folder of a run that has saved one'
    )
  if direction not in (None, *checkpoint.directions):
    known = ' and '.join(checkpoint.directions)
    raise WorkdirError(
      f'{checkpoint.path} has no trained generator for {direction}, only for '
      f'{known}: pass --direction {known}'
    )
  return checkpoint


def load_newest(folder: pathlib.Path) -> Checkpoint | None:
  """Loads the newest valid checkpoint onto one device.

  Damaged checkpoints are skipped with a warning.

  Args:
    folder: `<workdir>/checkpoints`.

  Returns:
    The checkpoint, or None if the folder has none.

  Raises:
    WorkdirError: all are damaged, or one is of another version.
  """
  damages: dict[int, str] = {}
  retries, steps = 0, list_steps(folder)
  while steps:
    path = folder / str(steps[-1])
    try:
      return _load(path)
    except (DamagedError, WorkdirError) as error:
      if not path.exists() and retries < _MAX_RETRIES:
        # Deleted by a run, which has saved a newer one before.
        retries += 1
        steps = [step for step in list_steps(folder) if step not in damages]
        continue
      if isinstance(error, WorkdirError):
        raise
      damages[steps.pop()] = text = f'{path} is damaged ({error})'
      logging.getLogger('cyclegan_jax').warning('%s', text)
  if damages:
    raise WorkdirError(
      f'{folder} has no valid checkpoint: {damages[max(damages)]}: restore a '
      'copy, or pass another --workdir to start anew'
    )
  return None


def load_image_list(path: pathlib.Path) -> dict[str, Any]:
  """Loads the list of the images that a checkpoint was trained on.

  Args:
    path: `checkpoints/<step>`.

  Raises:
    DamagedError: the file is damaged.
  """
  check_manifest(path, only=IMAGE_LIST_FILE)
  try:
    data = gzip.decompress((path / IMAGE_LIST_FILE).read_bytes())
    return dict(json.loads(data))
  except (*_UNREADABLE, zlib.error, RecursionError) as error:
    raise DamagedError(f'{IMAGE_LIST_FILE} is damaged') from error


def _check_encoding(path: pathlib.Path) -> None:
  """Raises WorkdirError for a path that Orbax's libraries do not take."""
  absolute = os.path.abspath(path)
  try:
    absolute.encode()
  except UnicodeEncodeError as error:
    raise WorkdirError(
      f'{printable(absolute)} is not UTF-8, as paths of checkpoints must be: '
      'rename the folder, or pass another'
    ) from error


def _load(path: pathlib.Path) -> Checkpoint:
  """Loads `checkpoints/<step>`; raises DamagedError or WorkdirError."""
  _check_format(path)
  check_manifest(path)
  _check_encoding(path)
  record = _read_record(path)
  try:
    config = from_config_dict(record['config'])
  except ConfigError as error:
    raise WorkdirError(
      f'{path} has options that this version of cyclegan_jax does not have '
      f'({error}){_advise_versions(record["versions"], ("cyclegan_jax",))}'
    ) from error
  try:
    state = _read_state(path / 'state', config)
  except (MemoryError, MissingPartError):
    raise
  except Exception as error:
    if disk_error := find_disk_error(error):
      raise DamagedError(
        f'state is unreadable ({error_reason(disk_error)})'
      ) from error
    # Its checksums are right, so the libraries have changed.
    raise WorkdirError(
      f'{path} cannot be loaded ({error_reason(error)})'
      f'{_advise_versions(record["versions"])}'
    ) from error
  return Checkpoint(
    state,
    _with_present_descriptions(config, path),
    path,
    record['data'],
    record['metrics'],
    tuple(each for each in DIRECTIONS if each in record['directions']),
    tuple(each for each in DOMAINS if each in record['discriminators']),
    tuple(record['history']),
  )


def _with_present_descriptions(config: Config, path: pathlib.Path) -> Config:
  """The config with what its run by now says about its domains."""
  folder = path.absolute().parent
  with contextlib.suppress(UserError):
    if folder.name == 'checkpoints' and (run := read_config(folder.parent)):
      options = [
        f'{name}_{domain}' for name in _DESCRIPTIONS for domain in 'ab'
      ]
      return config.replace(
        data={option: getattr(run.data, option) for option in options}
      )
  return config


def _load_hub_folder(path: pathlib.Path) -> Checkpoint:
  generator, gen, directions = hub_folder.read_hub_folder(path)
  state = TrainState(
    step=jnp.int32(generator.step),
    key=jax.random.key(generator.config.seed),
    gen=gen,
    gen_ema=None,
    disc={},
    gen_opt=(),
    disc_opt=(),
    pools={},
  )
  return Checkpoint(state, generator.config, path, {}, {}, directions, ())


def _check_format(path: pathlib.Path) -> None:
  format = read_format(path)
  if format != FORMAT:
    advice = 'upgrade' if format > FORMAT else 'use an older version of'
    raise WorkdirError(
      f'{path} has format {format}, but this version reads format {FORMAT}: '
      f'{advice} cyclegan_jax'
    )


def _read_record(path: pathlib.Path) -> dict[str, Any]:
  kinds = {
    'config': dict,
    'versions': dict,
    'data': dict,
    'metrics': dict,
    'history': list,
    'directions': list,
    'discriminators': list,
  }
  try:
    record = json.loads((path / RECORD_FILE).read_text(encoding='utf-8'))
    return {name: kind(record[name]) for name, kind in kinds.items()}
  except (*_UNREADABLE, RecursionError) as error:
    raise DamagedError(f'{RECORD_FILE} is damaged') from error


def _advise_versions(
  versions: Mapping[str, str], packages: tuple[str, ...] = _PACKAGES
) -> str:
  """Names the libraries that differ from the installed ones, if any do."""
  changed = [
    f'{name} {versions[name]}'
    for name in packages
    if versions.get(name, _NO_VERSION)
    not in (_NO_VERSION, _installed_version(name))
  ]
  return f': install {", ".join(changed)}, which wrote it' if changed else ''


def _installed_version(package: str) -> str:
  if package == 'cyclegan_jax':
    return __version__
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return _NO_VERSION


def _to_host(x: jax.Array) -> np.ndarray:
  """Copies an array, or the data of a PRNG key, to the host."""
  return np.array(jax.random.key_data(x) if is_key(x) else x)


def _write_arrays(path: pathlib.Path, arrays: Any) -> None:
  options = _this_process_only()
  handler = ocp.PyTreeCheckpointHandler(
    # Compression takes twice the time and saves 8%: weights are noise.
    use_compression=False,
    multiprocessing_options=options,
  )
  with ocp.Checkpointer(handler, multiprocessing_options=options) as writer:
    writer.save(path, args=ocp.args.PyTreeSave(arrays))


def _read_state(path: pathlib.Path, config: Config) -> TrainState:
  try:
    state = abstract_train_state(config)
  except MissingPartError:
    return _read_generators(path, config)
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

  def target(x: Any) -> jax.ShapeDtypeStruct:
    data = jax.eval_shape(jax.random.key_data, x) if is_key(x) else x
    return jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=device)

  options = _this_process_only()
  with ocp.StandardCheckpointer(multiprocessing_options=options) as reader:
    arrays = reader.restore(path.absolute(), jax.tree.map(target, state))
  return jax.tree.map(
    lambda kind, x: jax.random.wrap_key_data(x) if is_key(kind) else x,
    state,
    arrays,
  )


def _read_generators(path: pathlib.Path, config: Config) -> TrainState:
  """Reads what translates, where a plugin of the discriminators is missing.

  Raises:
    MissingPartError: the generators need one, too.
  """
  make_generator(config.generator)
  options = _this_process_only()
  with ocp.StandardCheckpointer(multiprocessing_options=options) as reader:
    arrays = reader.restore(path.absolute())
  return TrainState(
    step=arrays['step'],
    key=jax.random.wrap_key_data(arrays['key']),
    gen=arrays['gen'],
    gen_ema=arrays.get('gen_ema'),
    disc={},
    gen_opt=(),
    disc_opt=(),
    pools={},
  )


def _this_process_only() -> ocp.options.MultiprocessingOptions:
  """Returns options by which Orbax does not wait for other processes."""
  if jax.process_count() == 1:
    return ocp.options.MultiprocessingOptions()
  index = jax.process_index()
  return ocp.options.MultiprocessingOptions(
    primary_host=None,  # no process that others wait for
    active_processes={index},
    barrier_sync_key_prefix=f'process_{index}',
  )


@contextlib.contextmanager
def _suppress_duplicate_errors() -> Iterator[None]:
  """Keeps Orbax from printing errors that it also raises.

  It logs the traceback of a failed write. The other writes then call back into
  an event loop that is closed, which Python prints as unraisable errors.
  """

  def is_foreign(record: logging.LogRecord) -> bool:
    return 'orbax' not in record.pathname

  def hook(unraisable: Any) -> None:
    if 'Event loop is closed' not in str(unraisable.exc_value):
      old_hook(unraisable)

  logger, old_hook = logging.getLogger('absl'), sys.unraisablehook
  logger.addFilter(is_foreign)
  sys.unraisablehook = hook
  try:
    yield
  finally:
    logger.removeFilter(is_foreign)
    if sys.unraisablehook is hook:
      sys.unraisablehook = old_hook
