"""Checkpoints that carry their config; the only place that knows Orbax.

A checkpoint is a folder `checkpoints/<step>` with the whole TrainState and a
JSON record of the config and of the versions that wrote it.
"""

import dataclasses
import importlib.metadata
import pathlib
from typing import Any, TypeAlias

import jax
import orbax.checkpoint as ocp

from cyclegan_jax.config import Config, from_config_dict
from cyclegan_jax.errors import WorkdirError
from cyclegan_jax.state import TrainState, create_train_state

FORMAT = 1

Manager: TypeAlias = ocp.CheckpointManager


def open_manager(
  folder: pathlib.Path, *, keep: int | None = None, read_only: bool = False
) -> Manager:
  """The manager of a run's checkpoints.

  Args:
    folder: `<workdir>/checkpoints`; made if it is not there.
    keep: how many of the newest stay; None for all.
    read_only: write nothing, not even the folder.

  Returns:
    A manager; saves are asynchronous, so close it or wait for it.
  """
  options = ocp.CheckpointManagerOptions(
    max_to_keep=keep, create=not read_only, read_only=read_only
  )
  return Manager(folder.absolute(), options=options)


def save(manager: Manager, state: TrainState, config: Config) -> None:
  """Starts to save; the state may be donated as soon as this returns.

  Args:
    manager: from `open_manager`.
    state: at the step that names the checkpoint.
    config: resolved, as it will be needed to read the state.

  Raises:
    OSError, ValueError: from the disk, here or at `wait_until_finished`.
  """
  record = {
    'format': FORMAT,
    'config': dataclasses.asdict(config),
    'versions': {
      name: importlib.metadata.version(name)
      for name in ('jax', 'flax', 'optax', 'orbax-checkpoint')
    },
  }
  manager.save(
    int(state.step),
    args=ocp.args.Composite(
      state=ocp.args.StandardSave(state), record=ocp.args.JsonSave(record)
    ),
  )


def restore(
  manager: Manager, step: int | None = None
) -> tuple[TrainState, Config]:
  """Reads a checkpoint onto one device, whatever devices wrote it.

  Args:
    manager: from `open_manager`.
    step: which; None for the newest.

  Returns:
    The state and the config that was saved with it.

  Raises:
    WorkdirError: there is none, or it is damaged or of a newer format.
  """
  step = manager.latest_step() if step is None else step
  if step is None:
    raise WorkdirError(
      f'{manager.directory} holds no checkpoint: give the folder of a run '
      'that has saved one'
    )
  name = f'{manager.directory}/{step}'
  try:
    record = manager.restore(
      step, args=ocp.args.Composite(record=ocp.args.JsonRestore())
    )['record']
    config = _config_of(record, name)
    target = ocp.args.StandardRestore(_abstract_state(config))
    restored = manager.restore(step, args=ocp.args.Composite(state=target))
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    older = [each for each in manager.all_steps() if each < step]
    rest = f'from step {max(older)}' if older else 'from the start'
    raise WorkdirError(
      f'{name} is damaged ({reason[:200]}): delete this folder to go on {rest}'
    ) from error
  return restored['state'], config


def load(path: str | pathlib.Path) -> tuple[TrainState, Config]:
  """Reads a checkpoint from a run's folder, or from one checkpoint's.

  Args:
    path: a workdir, its `checkpoints`, or `checkpoints/<step>`.

  Returns:
    The state and the config that was saved with it.

  Raises:
    WorkdirError: it is none of these.
  """
  path = pathlib.Path(path)
  step = None
  if path.name.isdigit() and (path / 'state').is_dir():
    path, step = path.parent, int(path.name)
  elif (path / 'checkpoints').is_dir():
    path = path / 'checkpoints'
  if not path.is_dir():
    raise WorkdirError(
      f'{path} is not a folder: give the folder of a run, or of one of its '
      'checkpoints'
    )
  with open_manager(path, read_only=True) as manager:
    return restore(manager, step)


def _config_of(record: dict[str, Any], name: str) -> Config:
  written = record.get('format')
  if written != FORMAT:
    raise WorkdirError(
      f'{name} has format {written}, but this version of cyclegan_jax reads '
      f'format {FORMAT}: use the version that wrote it'
    )
  return from_config_dict(record['config'])


def _abstract_state(config: Config) -> TrainState:
  state = jax.eval_shape(
    lambda key: create_train_state(config, key), jax.random.key(0)
  )
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), state
  )
