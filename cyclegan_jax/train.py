"""The loop: from images and a config to two translators in a folder."""

import contextlib
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np
import rich.console

from cyclegan_jax import checkpoint, preflight
from cyclegan_jax.config import Config
from cyclegan_jax.data.loader import sample_images, train_batches
from cyclegan_jax.data.sources import Images, open_images
from cyclegan_jax.errors import DataError, TrainingError
from cyclegan_jax.evaluate import EmbeddedScore, score_embedded
from cyclegan_jax.report.recorder import Recorder
from cyclegan_jax.signals import StopSignal
from cyclegan_jax.state import TrainState, create_train_state
from cyclegan_jax.types import Metrics
from cyclegan_jax.update import CompiledUpdate, compile_update
from cyclegan_jax.workdir import (
  check_same_run,
  check_workdir,
  explain_disk_errors,
  read_config,
  write_config,
)


class TrainResult(NamedTuple):
  """What a run came to."""

  state: TrainState
  config: Config  # resolved
  start_step: int  # that it went on from
  signal: int | None  # that ended it early, if one did
  score: EmbeddedScore | None  # where the data has the truth


def train(config: Config, workdir: pathlib.Path) -> TrainResult:
  """Trains, or goes on with the run that the folder holds.

  Args:
    config: of the run; counts that are 0 are filled in from the data.
    workdir: takes config.json, metrics.jsonl, tensorboard/, samples/,
      checkpoints/ and index.html.

  Returns:
    The last state, which is saved, and what else there is to say.

  Raises:
    UserError: the options, the images or the folder can't be used; the
      message says what to do.
  """
  console = rich.console.Console(stderr=True)
  sources = open_images(config.data)
  config = preflight.resolve(config, sources, saved=read_config(workdir))
  preflight.check_images(config, sources)
  state = create_train_state(config, jax.random.key(config.seed))
  check_workdir(workdir, config, checkpoint_bytes=preflight.num_bytes(state))
  reals = sample_images(config, sources)
  with (
    StopSignal() as stop,
    explain_disk_errors(workdir),
    checkpoint.open_manager(
      workdir / 'checkpoints', keep=config.log.keep_checkpoints
    ) as manager,
  ):
    if manager.latest_step() is not None:
      state, saved = checkpoint.restore(manager)
      check_same_run(workdir, saved, config)
    write_config(workdir, config)
    start = int(state.step)
    facts = preflight.describe(config, sources, state)
    preflight.tell(config, facts, workdir, start_step=start, console=console)
    update = None
    if start < config.steps:
      console.print('compiling the training step ...')
      update = compile_update(config, state)
      preflight.check_memory(config, update.num_bytes)
      facts = preflight.describe(config, sources, state, update.num_bytes)
      console.print(f'memory: {facts["memory"]}', soft_wrap=True)
    with Recorder(
      workdir,
      config,
      facts=facts,
      reals=reals,
      start_step=start,
      console=console,
    ) as recorder:
      if start == 0:
        recorder.samples(0, state.translators)
      if update is not None:
        state = _loop(config, state, update, sources, recorder, manager, stop)
      if int(state.step) < config.steps:
        return TrainResult(state, config, start, stop.received, None)
      score = None
      if config.data.name == 'embedded':
        score = score_embedded(config, state.translators)
        recorder.gallery(int(state.step), score=str(score or 'no coat in view'))
  return TrainResult(state, config, start, None, score)


def _loop(
  config: Config,
  state: TrainState,
  update: CompiledUpdate,
  sources: Mapping[str, Images],
  recorder: Recorder,
  manager: checkpoint.Manager,
  stop: StopSignal,
) -> TrainState:
  start, previous = int(state.step), None
  try:
    with contextlib.closing(
      train_batches(config, sources, start_step=start)
    ) as batches:
      for step in range(start + 1, config.steps + 1):
        if stop.received is not None:
          break
        state, metrics = update.run(state, next(batches))
        # One step works while the next is prepared; no more wait in line.
        jax.block_until_ready(previous)
        previous = metrics
        recorder.step(step, metrics)
        is_due = step % config.log.checkpoint_every_steps == 0
        if is_due or step == config.steps:
          _check_finite(metrics, step, manager)
          checkpoint.save(manager, state, config)
        is_due = step % config.log.samples_every_steps == 0
        if is_due or step == config.steps:
          recorder.samples(step, state.translators)
  except DataError:
    _save_last(state, previous, config, manager)
    raise
  _save_last(state, previous, config, manager)
  return state


def _save_last(
  state: TrainState,
  metrics: Metrics | None,
  config: Config,
  manager: checkpoint.Manager,
) -> None:
  """Saves what a run came to when it ends between two checkpoints."""
  if manager.latest_step() != int(state.step):
    if metrics is not None:
      _check_finite(metrics, int(state.step), manager)
    checkpoint.save(manager, state, config)


def _check_finite(
  metrics: Metrics, step: int, manager: checkpoint.Manager
) -> None:
  """Lets no checkpoint take the place of a good one when the loss is lost."""
  lost = [name for name, value in metrics.items() if not np.isfinite(value)]
  if lost:
    last = manager.latest_step()
    raise TrainingError(
      f'{lost[0]} is not finite at step {step:,}: lower '
      'config.optimizer.learning_rate and give another --workdir; the last '
      f'good checkpoint is that of step {last or 0:,}'
    )
