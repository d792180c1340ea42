"""A run: from images and a config to two translators in a folder."""

import contextlib
import dataclasses
import functools
import logging
import pathlib
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np
import rich.console

from cyclegan_jax.config import Config, DistributedConfig, from_config_dict
from cyclegan_jax.data.fingerprint import changes, fingerprint, listing
from cyclegan_jax.data.loader import sample_images
from cyclegan_jax.data.ranges import with_values
from cyclegan_jax.data.sources import Images, open_images
from cyclegan_jax.errors import DataError
from cyclegan_jax.evaluation.synthetic_scores import (
  DrawingScores,
  score_drawings,
)
from cyclegan_jax.metrics.goals import check_best_metric
from cyclegan_jax.report import tensorboard
from cyclegan_jax.report.run_log import Recorder
from cyclegan_jax.report.samples import translate_samples
from cyclegan_jax.signals import StoppedError, StopSignal
from cyclegan_jax.state import (
  TrainState,
  abstract_train_state,
  create_train_state,
)
from cyclegan_jax.storage import checkpoint
from cyclegan_jax.storage.disk_errors import explain_disk_errors
from cyclegan_jax.storage.workdir import (
  check_same_run,
  check_workdir,
  lock_workdir,
  read_config,
  write_config,
)
from cyclegan_jax.training import preflight, processes
from cyclegan_jax.training.compiled_step import (
  CompiledUpdate,
  compile_update,
)
from cyclegan_jax.training.fine_tune import (
  Networks,
  read_networks,
  with_networks,
)
from cyclegan_jax.training.loop import (
  Evaluate,
  Loop,
  raise_failure,
)
from cyclegan_jax.training.periodic_evaluation import (
  Interim,
  check_options,
  is_owed,
)
from cyclegan_jax.types import Params

_PATIENCE_SECONDS = 7.0


class TrainResult(NamedTuple):
  """What a run came to."""

  state: TrainState
  config: Config  # resolved
  start_step: int  # that it went on from
  signal: int | None  # that ended it early, if one did
  score: DrawingScores | None  # where the data has the truth


def train(config: Config, workdir: pathlib.Path) -> TrainResult:
  """Trains, or goes on with the run that the folder holds.

  Args:
    config: of the run; counts that are 0 are filled in from the data.
    workdir: takes config.json, metrics.jsonl, tensorboard/, evaluation.md,
      samples/, checkpoints/, index.html, lock, and skipped.jsonl where steps
      were left out.

  Returns:
    The last state, which is saved, and what else there is to say.

  Raises:
    UserError: the options, the images or the folder can't be used; the
      message says what to do.
    StoppedError: a signal came before there was anything to save.
  """
  with contextlib.ExitStack() as stack:
    stop = stack.enter_context(StopSignal())
    stack.enter_context(processes.joined(config.distributed))
    config = config.replace(distributed=DistributedConfig())
    is_first = processes.is_first()  # of several processes, which alone writes
    console = rich.console.Console(stderr=True, quiet=not is_first)
    # A signal in the seconds before there is a state waits for the first
    # checkpoint, if that comes soon: then there is something to go on from.
    early = functools.partial(stop.call, patience=_PATIENCE_SECONDS)
    if is_first:
      checkpoint.check_format(workdir / 'checkpoints')
    check_options(config)
    networks = None
    if is_first:
      networks = early(functools.partial(_networks, config, workdir))
    sources = early(lambda: open_images(config.data))
    config = early(
      functools.partial(_resolve, config, sources, workdir, networks)
    )
    sources = with_values(sources, config.data)
    early(lambda: preflight.check_images(config, sources))
    if is_first:
      stack.enter_context(lock_workdir(workdir))
    key = jax.random.key(config.seed)
    state = early(lambda: create_train_state(config, key))
    if networks is not None:
      state = with_networks(state, networks)
    found = None
    folder = workdir / 'checkpoints'
    if is_first:
      num_bytes = preflight.num_bytes(state)
      check_workdir(workdir, config, checkpoint_bytes=num_bytes)
      found = early(lambda: checkpoint.restore_newest(folder))
    reals = early(lambda: sample_images(config, sources))
    stack.enter_context(explain_disk_errors(workdir))
    if found is not None:
      state = found.state
      check_same_run(workdir, found.config, config)
      _compare_data(found, config, sources)
    if is_first:
      write_config(workdir, config)
    state = processes.tree_from_first(
      lambda: state, abstract_train_state(config)
    )
    start = int(state.step)
    facts = preflight.describe(config, sources, state)
    preflight.tell(config, facts, workdir, start_step=start, console=console)
    if networks is not None:
      console.print(f'beginning with {networks}', soft_wrap=True)
    saver = stack.enter_context(
      checkpoint.Saver(
        folder,
        config,
        data=fingerprint(sources),
        listing=listing(sources),
        good_step=None if found is None else start,
        is_writer=is_first,
      )
    )
    if found is None:
      # A signal while the step compiles, and a first loss that is not
      # finite, have something to go back to.
      saver.save(state)
    try:
      update = None
      if start < config.steps:
        console.print('compiling the training step ...')
        update = stop.call(lambda: _compile(config, state, reals))
        preflight.check_memory(config, update.num_bytes)
        facts = preflight.describe(config, sources, state, update.num_bytes)
        console.print(f'memory: {facts["memory"]}', soft_wrap=True)
      interim, owed = None, is_owed(config, found)
      if config.evaluation.every_steps and (update or owed) and is_first:
        interim = stop.call(lambda: Interim(config, sources))
        facts['evaluation'] = interim.describe()
        console.print(f'evaluation: {facts["evaluation"]}', soft_wrap=True)
      if update is not None and is_first:
        names = [*update.metric_names, *(interim.names if interim else ())]
        check_best_metric(config, names)
      recorder = stack.enter_context(
        Recorder(
          workdir,
          config,
          facts=facts,
          reals=reals,
          # The record of an evaluation that a signal ended is made anew.
          start_step=start - owed,
          console=console,
          is_writer=is_first,
        )
      )
      judge: Evaluate | None = None
      if config.evaluation.every_steps and not is_first:
        judge = _no_scores
      if interim is not None:
        judge = functools.partial(
          interim.run, workdir=workdir, recorder=recorder, stop=stop
        )
      if owed and found is not None and judge is not None:
        _catch_up(found, judge, config, recorder, saver)
      if update is not None:
        if start == 0:
          recorder.samples(0, state.translators)
          stop.call(recorder.flush)  # the first step takes the state over
        loop = Loop(
          config, workdir, sources, update, recorder, saver, stop, judge
        )
        state = loop(state)
      score = None
      is_done = int(state.step) == config.steps
      if is_done and config.data.name == 'embedded' and is_first:
        score = stop.call(lambda: score_drawings(config, state.translators))
        recorder.gallery(int(state.step), score=str(score or 'no coat in view'))
    except StoppedError:
      saver.wait()
      if failure := saver.take_failure():
        raise_failure(workdir, failure)
      return TrainResult(state, config, start, stop.received, None)
    signal = None if is_done else stop.received
    return TrainResult(state, config, start, signal, score)


def _networks(config: Config, workdir: pathlib.Path) -> Networks | None:
  """Those that a new run begins with; one that goes on has its own."""
  if not config.init_from or checkpoint.find_steps(workdir / 'checkpoints'):
    return None
  saved = read_config(workdir)
  known = saved.init_sha256 if saved else ''
  return read_networks(config, sha256=config.init_sha256 or known)


def _resolve(
  config: Config,
  sources: Mapping[str, Images],
  workdir: pathlib.Path,
  networks: Networks | None,
) -> Config:
  """`preflight.resolve` in the first process, for all.

  Raises:
    DataError: this process has other images than the first.
  """

  def resolve() -> Config:
    return preflight.resolve(
      config,
      sources,
      saved=read_config(workdir),
      init_sha256=networks.sha256 if networks else '',
    )

  if processes.count() == 1:
    return resolve()
  resolved, data = processes.from_first(
    lambda: (dataclasses.asdict(resolve()), fingerprint(sources))
  )
  if data != fingerprint(sources):
    raise DataError(
      f'process {processes.index()} has other images than the first: give all '
      'processes the same'
    )
  return from_config_dict(resolved)


def _no_scores(step: int, gen: dict[str, Params]) -> dict[str, float]:
  """In place of evaluations, in processes that leave them to the first."""
  return {}


def _compile(
  config: Config, state: TrainState, reals: Mapping[str, np.ndarray]
) -> CompiledUpdate:
  """Compiles the step, and at the same time what is called between steps."""
  with ThreadPoolExecutor() as threads:
    others: list[Future[Any]] = []
    if processes.is_first():
      others = [
        threads.submit(tensorboard.load),
        threads.submit(translate_samples, config, state.translators, reals),
      ]
    update = compile_update(config, state)
    for other in others:
      other.result()
  return update


def _catch_up(
  found: checkpoint.Checkpoint,
  judge: Evaluate,
  config: Config,
  recorder: Recorder,
  saver: checkpoint.Saver,
) -> None:
  """Evaluates a checkpoint that should have been, and records its step."""
  step = int(found.state.step)
  if step % config.log.samples_every_steps == 0 or step == config.steps:
    recorder.samples(step, found.state.translators)
  metrics = judge(step, found.state.translators)
  recorder.step(step, {**found.metrics, **metrics})
  if metrics:
    recorder.then(step, lambda _: recorder.sync())
    recorder.flush()
    saver.save(found.state, {**found.metrics, **metrics}, replace=True)


def _compare_data(
  found: checkpoint.Checkpoint, config: Config, sources: Mapping[str, Images]
) -> None:
  """Says what changed in the images since a checkpoint was saved.

  Raises:
    DataError: something did, and config.data.strict is set.
  """
  if not found.data or found.data == fingerprint(sources):
    return
  old = checkpoint.read_listing(found.path)
  what = '; '.join(changes(old, listing(sources)))
  text = f'the images are not those that this run began with ({what})'
  if config.data.strict:
    raise DataError(
      f'{text}: bring them back, or set config.data.strict=False to go on '
      'with what is there'
    )
  logging.getLogger('cyclegan_jax').warning(
    '%s: it goes on with what is there, so not as it would have otherwise',
    text,
  )
