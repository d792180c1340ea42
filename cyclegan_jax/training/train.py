"""Training runs: from a config and images to two generators in a folder."""

import contextlib
import dataclasses
import functools
import logging
import pathlib
from collections.abc import Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

from cyclegan_jax import register
from cyclegan_jax.config import (
  Config,
  DistributedConfig,
  expand_paths,
  from_config_dict,
)
from cyclegan_jax.data.fingerprint import changes, fingerprint, listing
from cyclegan_jax.data.image_list import Images
from cyclegan_jax.data.loader import sample_images
from cyclegan_jax.data.own_source import ArraySequence, images_of_sequences
from cyclegan_jax.data.ranges import with_values
from cyclegan_jax.data.sources import open_stored_images
from cyclegan_jax.errors import DataError
from cyclegan_jax.evaluation.results import scores_line
from cyclegan_jax.evaluation.synthetic_scores import (
  DrawingScores,
  score_drawings,
)
from cyclegan_jax.metrics.goals import check_best_metric
from cyclegan_jax.report import tensorboard
from cyclegan_jax.report.run_log import RunLog
from cyclegan_jax.report.samples import translate_samples
from cyclegan_jax.signals import StoppedError, StopSignal
from cyclegan_jax.state import (
  TrainState,
  abstract_train_state,
  create_train_state,
)
from cyclegan_jax.step import metric_names
from cyclegan_jax.storage import checkpoint
from cyclegan_jax.storage.disk_errors import explain_disk_errors
from cyclegan_jax.storage.workdir import (
  check_free_space,
  check_same_run,
  lock_workdir,
  read_config,
  write_config,
)
from cyclegan_jax.terminal import stderr_console
from cyclegan_jax.training import preflight, processes
from cyclegan_jax.training.compiled_step import (
  CompiledStep,
  compile_step,
  is_state_finite,
)
from cyclegan_jax.training.fine_tune import (
  Networks,
  read_networks,
  with_network_options,
  with_networks,
)
from cyclegan_jax.training.loop import Evaluate, Loop, raise_save_error
from cyclegan_jax.training.periodic_evaluation import (
  PeriodicEvaluation,
  is_evaluation_missing,
)
from cyclegan_jax.types import Params

# How long a signal waits for the first checkpoint, which makes the run
# resumable.
_SETUP_PATIENCE_SECONDS = 7.0


class TrainResult(NamedTuple):
  """Result of a training run.

  Attributes:
    state: the last state, which is also saved.
    config: the resolved config.
    start_step: the step from which this call trained.
    signal: the signal that ended the run early, or None.
    score: of the synthetic data, where the truth is known; else None.
    evaluation: the scores of the newest evaluation and its step, as a line; ''
      if there is none.
  """

  state: TrainState
  config: Config
  start_step: int
  signal: int | None
  score: DrawingScores | None
  evaluation: str


class _Setup(NamedTuple):
  """Everything that is known before the training step is compiled."""

  config: Config  # resolved
  given: Config  # before counts were filled in
  images: Mapping[str, Images]  # by split: 'train_a', ...
  state: TrainState
  resumed: checkpoint.Checkpoint | None
  networks: Networks | None  # that a new run starts from
  samples: Mapping[str, np.ndarray]  # test images of the sample sheets
  data: dict[str, Any]  # fingerprint of the images
  image_list: dict[str, Any]  # names and sizes of the images
  survey: dict[str, str]  # what of the files is left out or converted


def train(
  config: Config,
  workdir: pathlib.Path,
  *,
  explicit: Collection[str] | None = None,
  sources: Mapping[str, ArraySequence] | None = None,
) -> TrainResult:
  """Trains a new run, or resumes the run in the folder.

  Args:
    config: the run's options; counts of 0 are filled in from the data.
    workdir: folder of the run: config.json, metrics.jsonl, tensorboard/,
      evaluation.md, samples/, checkpoints/, index.html, lock, and
      skipped.jsonl if steps were skipped.
    explicit: dotted paths of the options that the user set for this run, as
      opposed to those of a recipe: a warning is logged for those that have no
      effect, and init_from replaces no others. None if that is not known:
      init_from then replaces none.
    sources: images in place of those of config.data: 'train_a', 'train_b', and
      optionally 'test_a' and 'test_b', each a sequence (`__len__` and
      `__getitem__`, as in Grain) of arrays [h, w, C], uint8, or float32 in
      [-1, 1]. `__getitem__` is called from several threads.

  Raises:
    UserError: the options, the images or the folder cannot be used; the
      message says what to do.
    StoppedError: a signal came before there was anything to save.
  """
  with contextlib.ExitStack() as stack:
    stop = stack.enter_context(StopSignal())
    stack.enter_context(processes.joined(config.distributed))
    config = expand_paths(config.replace(distributed=DistributedConfig()))
    config = config.replace(plugins=register.loaded_plugins())
    if sources is not None:
      config = config.replace(data={'name': 'sequences'})
    is_first = processes.is_first()  # only the first process writes
    console = stderr_console(quiet=not is_first)
    # They are logged after the facts, where they are seen.
    held = stack.enter_context(contextlib.ExitStack())
    held.enter_context(preflight.held_warnings())
    if is_first:
      stack.enter_context(lock_workdir(workdir))
    setup = stop.call(
      functools.partial(_set_up, config, workdir, explicit, sources),
      patience=_SETUP_PATIENCE_SECONDS,
    )
    config, state = setup.config, setup.state
    start_step = int(state.step)
    stack.enter_context(explain_disk_errors(workdir))
    if is_first:
      write_config(workdir, config)
    facts = preflight.describe(config, setup.images, state) | setup.survey
    if setup.networks:
      facts |= setup.networks.facts()
    preflight.print_facts(setup.given, facts, workdir, start_step, console)
    held.close()
    saver = stack.enter_context(
      checkpoint.Saver(
        workdir / 'checkpoints',
        config,
        data=setup.data,
        image_list=setup.image_list,
        resume_step=start_step if setup.resumed else None,
        is_writer=is_first,
      )
    )
    if setup.resumed is None:
      # A signal during compilation and a non-finite first loss need a
      # checkpoint to return to.
      saver.save(state)
    is_missing = is_evaluation_missing(config, setup.resumed)
    evaluation = None
    try:
      if is_first and (start_step < config.steps or is_missing):
        evaluation = stop.call(lambda: _open_evaluation(config, setup.images))
      if evaluation is not None:
        facts['evaluation'] = evaluation.describe()
        console.print(f'evaluation: {facts["evaluation"]}', soft_wrap=True)
      step = None
      if start_step < config.steps:
        console.print('compiling the training step ...')
        step = stop.call(lambda: _compile(config, state, setup.samples))
        preflight.check_memory(config, step.num_bytes)
        if step.num_bytes is not None:
          facts['memory of a step'] = preflight.gib(step.num_bytes)
          console.print(f'memory of a step: {facts["memory of a step"]}')
      run_log = stack.enter_context(
        RunLog(
          workdir,
          config,
          facts=facts,
          reals=setup.samples,
          # The record of an interrupted evaluation is written again.
          start_step=start_step - is_missing,
          console=console,
          is_writer=is_first,
        )
      )
      evaluate: Evaluate | None = None
      if evaluation is not None:
        evaluate = functools.partial(
          evaluation.run, workdir=workdir, run_log=run_log, stop=stop
        )
      elif config.evaluation.every_steps and not is_first:
        evaluate = _no_scores
      if is_missing and setup.resumed and evaluate:
        _evaluate_resumed(setup.resumed, evaluate, config, run_log, saver)
      if step is not None:
        if start_step == 0:
          run_log.add_samples(0, state.translators)
          stop.call(run_log.flush)  # the first step donates the state
        loop = Loop(
          config,
          workdir,
          setup.images,
          step,
          run_log,
          saver,
          stop,
          evaluate,
        )
        state = loop(state)
      score = None
      is_done = int(state.step) == config.steps
      if is_done and config.data.name == 'embedded' and is_first:
        score = stop.call(lambda: score_drawings(config, state.translators))
        run_log.update_page(
          int(state.step), score=str(score or 'no animal in view')
        )
    except StoppedError:
      saver.wait()
      if failure := saver.take_failure():
        raise_save_error(workdir, failure)
      return TrainResult(state, config, start_step, stop.received, None, '')
    signal = None if is_done else stop.received
    summary = evaluation.last if evaluation is not None else ''
    if not summary and setup.resumed:
      summary = scores_line(start_step, setup.resumed.metrics, config.data)
    return TrainResult(state, config, start_step, signal, score, summary)


def _set_up(
  config: Config,
  workdir: pathlib.Path,
  explicit: Collection[str] | None,
  sources: Mapping[str, ArraySequence] | None,
) -> _Setup:
  """Reads, resolves and checks everything that a run needs.

  Only the first of several processes reads the folder; it sends the others
  the resolved config and the state.
  """
  resumed, saved, networks = None, None, None
  if processes.is_first():
    checkpoint.recover_replaced(workdir / 'checkpoints')
    resumed = checkpoint.load_newest(workdir / 'checkpoints')
    saved = resumed.config if resumed else read_config(workdir)
    if config.init_from and resumed is None:
      sha256 = config.init_sha256 or (saved.init_sha256 if saved else '')
      networks = read_networks(config, sha256=sha256, explicit=explicit)
      config = networks.config
    elif config.init_from and saved is not None and explicit is not None:
      config = with_network_options(
        config, saved, explicit, discriminators=config.init_discriminators
      )
    preflight.check_effects(config, explicit or (), is_new=saved is None)
  if config.init_from and explicit is not None:
    adapted = processes.from_first(lambda: dataclasses.asdict(config))
    config = from_config_dict(adapted)
  given = config
  if sources is None:
    stored = open_stored_images(config.data)
  else:
    stored = images_of_sequences(config.data, sources)
  config = _resolve(config, stored, saved, networks)
  if saved is not None:
    check_same_run(workdir, saved, config)
  images = with_values(stored, config.data)
  preflight.check_images(config, images)
  check_best_metric(config, metric_names(config))
  data, image_list = fingerprint(images), listing(images)
  if resumed is not None:
    state = resumed.state
    if resumed.data and resumed.data != data:
      _report_changed_images(resumed, config, image_list)
  else:
    state = create_train_state(config, jax.random.key(config.seed))
  if networks is not None:
    state = with_networks(state, networks)
  if processes.is_first():
    check_free_space(workdir, config, preflight.num_bytes(state))
  state = processes.tree_from_first(lambda: state, abstract_train_state(config))
  samples = sample_images(config, images)
  survey = preflight.survey(config, images) if processes.is_first() else {}
  return _Setup(
    config,
    given,
    images,
    state,
    resumed,
    networks,
    samples,
    data,
    image_list,
    survey,
  )


def _open_evaluation(
  config: Config, images: Mapping[str, Images]
) -> PeriodicEvaluation | None:
  """Reads the test images for evaluations, if the config asks for them."""
  if not config.evaluation.every_steps:
    return None
  evaluation = PeriodicEvaluation(config, images)
  check_best_metric(config, metric_names(config), scores=evaluation.names)
  return evaluation


def _resolve(
  config: Config,
  images: Mapping[str, Images],
  saved: Config | None,
  networks: Networks | None,
) -> Config:
  """Resolves the config in the first process, for all processes.

  Raises:
    DataError: this process has other images than the first.
  """

  def resolve() -> Config:
    return preflight.resolve(
      config,
      images,
      saved=saved,
      init_sha256=networks.sha256 if networks else '',
    )

  if processes.count() == 1:
    return resolve()
  resolved, first = processes.from_first(
    lambda: (dataclasses.asdict(resolve()), fingerprint(images))
  )
  if first != fingerprint(images):
    raise DataError(
      f'process {processes.index()} has other images than the first: give all '
      'processes the same'
    )
  return from_config_dict(resolved)


def _compile(
  config: Config, state: TrainState, samples: Mapping[str, np.ndarray]
) -> CompiledStep:
  """Compiles the step, and meanwhile what is called between steps."""
  with ThreadPoolExecutor() as threads:
    others: list[Future[Any]] = [threads.submit(is_state_finite, state)]
    if processes.is_first():
      others += [
        threads.submit(tensorboard.import_tensorboardx),
        threads.submit(translate_samples, config, state.translators, samples),
      ]
    step = compile_step(config, state)
    for other in others:
      other.result()
  return step


def _no_scores(step: int, gen: dict[str, Params]) -> dict[str, float]:
  """Stands in for evaluations, which only the first process makes."""
  return {}


def _evaluate_resumed(
  resumed: checkpoint.Checkpoint,
  evaluate: Evaluate,
  config: Config,
  run_log: RunLog,
  saver: checkpoint.Saver,
) -> None:
  """Evaluates a resumed checkpoint that lacks its scores, and records them."""
  step = int(resumed.state.step)
  if step % config.log.samples_every_steps == 0 or step == config.steps:
    run_log.add_samples(step, resumed.state.translators)
  metrics = evaluate(step, resumed.state.translators)
  run_log.add_step(step, {**resumed.metrics, **metrics})
  if metrics:
    run_log.call_after(step, lambda _: run_log.sync())
    run_log.flush()
    saver.save(resumed.state, {**resumed.metrics, **metrics}, replace=True)


def _report_changed_images(
  resumed: checkpoint.Checkpoint, config: Config, image_list: dict[str, Any]
) -> None:
  """Warns of images that changed since a checkpoint was saved.

  Raises:
    DataError: config.data.strict is set.
  """
  old = checkpoint.load_image_list(resumed.path)
  text = (
    'the images changed since this run began '
    f'({"; ".join(changes(old, image_list))})'
  )
  if config.data.strict:
    raise DataError(
      f'{text}: restore them, or set config.data.strict=False to continue with '
      'the present images'
    )
  logging.getLogger('cyclegan_jax').warning(
    '%s: training continues with the present images, so the result will '
    'differ from an uninterrupted run',
    text,
  )
