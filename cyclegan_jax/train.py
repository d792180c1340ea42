"""The loop: from images and a config to two translators in a folder."""

import contextlib
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import jax
import rich.console

from cyclegan_jax import checkpoint, preflight
from cyclegan_jax.config import Config
from cyclegan_jax.data.loader import (
  sample_images,
  train_batches,
)
from cyclegan_jax.data.sources import Images, open_images
from cyclegan_jax.evaluate import EmbeddedScore, score_embedded
from cyclegan_jax.report.recorder import Recorder
from cyclegan_jax.signals import StopSignal
from cyclegan_jax.state import TrainState, create_train_state
from cyclegan_jax.update import CompiledUpdate, compile_update
from cyclegan_jax.workdir import check_workdir, explain_disk_errors, read_config


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
      state, _ = checkpoint.restore(manager)
    start = int(state.step)
    if start >= config.steps:
      return TrainResult(state, config, start, None, None)
    console.print('compiling the training step ...')
    update = compile_update(config, state)
    preflight.check_memory(config, update.num_bytes)
    facts = preflight.describe(config, sources, state, update.num_bytes)
    preflight.tell(config, facts, workdir, start_step=start, console=console)
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
      state = _loop(config, state, update, sources, recorder, manager, stop)
      score = None
      if config.data.name == 'embedded' and not stop.received:
        score = score_embedded(config, state.translators)
        recorder.gallery(int(state.step), score=str(score))
  return TrainResult(state, config, start, stop.received, score)


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
  with contextlib.closing(
    train_batches(config, sources, start_step=start)
  ) as batches:
    for step in range(start + 1, config.steps + 1):
      state, metrics = update.run(state, next(batches))
      # One step works while the next is prepared, and no more wait in line.
      jax.block_until_ready(previous)
      previous = metrics
      recorder.step(step, metrics)
      is_last = step == config.steps or stop.received is not None
      if step % config.log.samples_every_steps == 0 or step == config.steps:
        recorder.samples(step, state.translators)
      if step % config.log.checkpoint_every_steps == 0 or is_last:
        checkpoint.save(manager, state, config)
      if is_last:
        break
  return state
