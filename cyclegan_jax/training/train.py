"""Training runs: from a config and images to two generators in a folder."""

import contextlib
import functools
import pathlib
from collections.abc import Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import rich.console

from cyclegan_jax import parallel, register
from cyclegan_jax.config import (
  Config,
  DistributedConfig,
  expand_path,
  expand_paths,
)
from cyclegan_jax.data.image_list import Images
from cyclegan_jax.data.own_source import ArraySequence
from cyclegan_jax.errors import WorkdirError
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
)
from cyclegan_jax.step import metric_names
from cyclegan_jax.storage import checkpoint
from cyclegan_jax.storage.disk_errors import explain_disk_errors
from cyclegan_jax.storage.workdir import (
  lock_workdir,
  write_config,
)
from cyclegan_jax.terminal import stderr_console
from cyclegan_jax.training import preflight, processes
from cyclegan_jax.training.changes import (
  describe,
  write_history,
)
from cyclegan_jax.training.compiled_step import (
  CompiledStep,
  compile_step,
  is_state_finite,
)
from cyclegan_jax.training.loop import Evaluate, Loop, raise_save_error
from cyclegan_jax.training.periodic_evaluation import (
  PeriodicEvaluation,
  is_evaluation_missing,
)
from cyclegan_jax.training.setup import Setup, set_up
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


def train(
  config: Config,
  workdir: str | pathlib.Path,
  *,
  explicit: Collection[str] | None = None,
  may_change: bool = False,
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
    may_change: whether an existing run may continue with other options, as
      long as they keep the shapes of its state. More steps are always allowed.
    sources: images in place of those of config.data: 'train_a', 'train_b', and
      optionally 'test_a' and 'test_b', each a sequence (`__len__` and
      `__getitem__`, as in Grain) of arrays [h, w, C], uint8, uint16, int16 or
      float32. `__getitem__` is called from several threads.

  Raises:
    UserError: the options, the images or the folder cannot be used; the
      message says what to do.
    StoppedError: a signal came before there was anything to save.
  """
  with contextlib.ExitStack() as stack:
    stop = stack.enter_context(StopSignal())
    stack.enter_context(processes.joined(config.distributed))
    try:
      workdir = pathlib.Path(expand_path(str(workdir)))
    except ValueError as error:
      raise WorkdirError(str(error)) from error
    config = expand_paths(config.replace(distributed=DistributedConfig()))
    config = config.replace(plugins=register.loaded_plugins())
    if sources is not None:
      config = config.replace(data={'name': 'sequences'})
    parallel.check_devices()
    is_first = processes.is_first()  # only the first process writes
    console = stderr_console(quiet=not is_first)
    # They are logged after the facts, where they are seen.
    held = stack.enter_context(contextlib.ExitStack())
    held.enter_context(preflight.held_warnings())
    if is_first:
      stack.enter_context(lock_workdir(workdir))
    setup = stop.call(
      functools.partial(set_up, config, workdir, explicit, may_change, sources),
      patience=_SETUP_PATIENCE_SECONDS,
    )
    stack.enter_context(explain_disk_errors(workdir))
    if is_first and setup.resumed is None:
      write_config(workdir, setup.config)
    facts = preflight.describe(setup.config, setup.images, setup.state)
    facts |= setup.survey
    if setup.networks:
      facts |= setup.networks.facts()
    preflight.print_facts(
      setup.given, facts, workdir, setup.start_step, console
    )
    held.close()
    saver = stack.enter_context(_open_saver(setup, workdir))
    if setup.resumed is None:
      _save_start(saver, setup.state, workdir)
    try:
      return _run(setup, workdir, saver, stop, facts, console, stack)
    except StoppedError:
      saver.wait()
      if failure := saver.take_failure():
        raise_save_error(workdir, failure)
      return TrainResult(
        setup.state, setup.config, setup.start_step, stop.received, None, ''
      )


def _open_saver(setup: Setup, workdir: pathlib.Path) -> checkpoint.Saver:
  return checkpoint.Saver(
    workdir / 'checkpoints',
    setup.config,
    data=setup.data,
    image_list=setup.image_list,
    resume_step=setup.start_step if setup.resumed else None,
    history=setup.history,
    is_writer=processes.is_first(),
  )


def _save_start(
  saver: checkpoint.Saver, state: TrainState, workdir: pathlib.Path
) -> None:
  """Saves the state of a new run.

  A signal during compilation and a non-finite first loss need a checkpoint to
  return to.

  Raises:
    WorkdirError: it cannot be saved.
  """
  saver.save(state)
  saver.wait()
  if failure := saver.take_failure():
    # Later ones would most likely fail too, after hours of training.
    raise_save_error(workdir, failure)


def _save_change(
  saver: checkpoint.Saver,
  setup: Setup,
  workdir: pathlib.Path,
  console: rich.console.Console,
) -> None:
  """Saves a resumed run's options, and its state with them if they changed."""
  if setup.resumed and len(setup.history) > len(setup.resumed.history):
    # With the new config, so that the run resumes with it.
    saver.save(setup.state, setup.resumed.metrics, replace=True)
    console.print(
      f'changed at step {setup.start_step:,}: '
      f'{describe(setup.history[-1]["changes"])}',
      soft_wrap=True,
    )
  if processes.is_first():
    write_config(workdir, setup.config)
    write_history(workdir, setup.history)


def _run(
  setup: Setup,
  workdir: pathlib.Path,
  saver: checkpoint.Saver,
  stop: StopSignal,
  facts: dict[str, str],
  console: rich.console.Console,
  stack: contextlib.ExitStack,
) -> TrainResult:
  """Trains to the last step, and scores what can be scored.

  Raises:
    StoppedError: a signal came, and the state is that of the set-up.
  """
  config, state, start_step = setup.config, setup.state, setup.start_step
  is_first = processes.is_first()
  is_missing = is_evaluation_missing(config, setup.resumed)
  evaluation = None
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
  # Not before it is known that the step compiles and fits.
  _save_change(saver, setup, workdir, console)
  run_log = stack.enter_context(
    RunLog(
      workdir,
      config,
      facts=facts,
      history=setup.history,
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
      config, workdir, setup.images, step, run_log, saver, stop, evaluate
    )
    state = loop(state)
  score = None
  is_done = int(state.step) == config.steps
  signal = None if is_done else stop.received
  if is_done and config.data.name == 'embedded' and is_first:
    try:
      score = stop.call(lambda: score_drawings(config, state.translators))
      run_log.update_page(
        int(state.step), score=str(score or 'no animal in view')
      )
    except StoppedError:
      signal = stop.received
  summary = evaluation.last if evaluation is not None else ''
  if not summary and setup.resumed:
    summary = scores_line(start_step, setup.resumed.metrics, config.data)
  return TrainResult(state, config, start_step, signal, score, summary)


def _open_evaluation(
  config: Config, images: Mapping[str, Images]
) -> PeriodicEvaluation | None:
  """Reads the test images for evaluations, if the config asks for them."""
  if not config.evaluation.every_steps:
    return None
  evaluation = PeriodicEvaluation(config, images)
  check_best_metric(config, metric_names(config), scores=evaluation.names)
  return evaluation


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
