"""The loop: step after step, and around what goes wrong on the way."""

import contextlib
import json
import pathlib
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import jax
import jax.numpy as jnp

from cyclegan_jax import parallel
from cyclegan_jax.config import Config
from cyclegan_jax.data.loader import RawBatch, TrainBatches
from cyclegan_jax.data.sources import Images
from cyclegan_jax.errors import DataError, TrainingError, WorkdirError
from cyclegan_jax.report.run_log import RunLog
from cyclegan_jax.report.trace import TRACE_FOLDER, StepTrace
from cyclegan_jax.signals import StoppedError, StopSignal
from cyclegan_jax.state import TrainState, abstract_train_state
from cyclegan_jax.storage import checkpoint
from cyclegan_jax.storage.atomic import replace_text
from cyclegan_jax.storage.disk_errors import error_reason, explain_disk_errors
from cyclegan_jax.training import processes
from cyclegan_jax.training.compiled_step import (
  CompiledUpdate,
  Outcome,
  is_finite,
)
from cyclegan_jax.types import Params

SKIPPED_FILE = 'skipped.jsonl'

# The metrics of generators by name; none where a signal came before they were
# complete.
Evaluate = Callable[[int, dict[str, Params]], Mapping[str, float]]

_SECONDS_BETWEEN_REPEATS = 10.0  # texts on the way back from a lost loss
_FIRST_WAIT_SECONDS = 5.0  # for data, before it is told; then twice as long


class _NotFiniteError(Exception):
  """A loss or a number of the state is not finite at a step."""

  def __init__(self, step: int):
    super().__init__(step)
    self.step = step


class Loop:
  """Calls a state to the last step of its run.

  A signal or the images end it early, with what it came to saved. A loss that
  is not finite sends it back to the last checkpoint; the step that lost it is
  found and left out.
  """

  def __init__(
    self,
    config: Config,
    workdir: pathlib.Path,
    sources: Mapping[str, Images],
    update: CompiledUpdate,
    run_log: RunLog,
    saver: checkpoint.Saver,
    stop: StopSignal,
    evaluate: Evaluate | None = None,
  ):
    """Takes what the run has opened.

    Args:
      config: resolved.
      workdir: the run's folder.
      sources: its images.
      update: the compiled step.
      run_log: takes metrics and samples.
      saver: takes the state.
      stop: tells of signals.
      evaluate: is called every evaluation.every_steps steps, and at the
        last.
    """
    self._config = config
    self._workdir = workdir
    self._sources = sources
    self._update = update
    self._run_log = run_log
    self._saver = saver
    self._stop = stop
    self._evaluate = evaluate
    self._next_wait = _FIRST_WAIT_SECONDS
    self._num_unexplained = 0  # losses that were finite the second time
    self._is_alone = processes.count() == 1
    self._agreed: int | None = None  # the signal, once all processes know

  def __call__(self, state: TrainState) -> TrainState:
    """Trains.

    Args:
      state: at any step; its memory is taken over.

    Returns:
      The state at the last step, or an earlier one if a signal came; either
      is saved.

    Raises:
      UserError: no more steps can be made, or the last can't be saved.
    """
    if processes.is_first():
      _drop_skipped_after(self._workdir, int(state.step))
    while True:
      try:
        return self._steps(state)
      except _NotFiniteError as lost:
        try:
          state = self._recover(lost.step)
        except StoppedError:
          return self._last_good()

  @property
  def _stopped_by(self) -> int | None:
    return self._stop.received if self._is_alone else self._agreed

  def _steps(self, state: TrainState) -> TrainState:
    log, checkpoint_options = self._config.log, self._config.checkpoint
    evaluation = self._config.evaluation
    state = self._update.place(state)
    step, last = int(state.step), self._config.steps
    unseen: Outcome | None = None  # of the last step
    with self._batches(step) as batches, self._trace(step) as trace:
      try:
        while step < last and self._stopped_by is None:
          raw = next(batches)
          self._next_wait = _FIRST_WAIT_SECONDS
          trace.before_step(step, state)
          with jax.profiler.StepTraceAnnotation('step', step_num=step + 1):
            outcome = self._run(state, raw)
          # One step works while the next is prepared; no more wait in line.
          if unseen is not None:
            self._see(step, unseen)
          state, unseen, step = outcome.state, outcome, step + 1
          is_shown = step % log.samples_every_steps == 0 or step == last
          is_judged = self._evaluate is not None and (
            step % evaluation.every_steps == 0 or step == last
          )
          # Scores belong to a checkpoint that one can go back to.
          is_saved = is_judged or (
            step % checkpoint_options.every_steps == 0 or step == last
          )
          if is_shown or is_saved:
            self._check(step, outcome)
            # The next step takes the state over. One copy at a time.
            self._run_log.flush()
            kept = parallel.unreplicate(state)
            if is_shown:
              self._run_log.add_samples(step, kept.translators)
            scores: Mapping[str, float] = {}
            if is_judged and self._evaluate is not None:
              # Not in the background: the record of a step and its checkpoint
              # hold the scores, so both would have to wait for them.
              scores = self._evaluate(step, kept.translators)
            self._see(step, outcome, scores)
            unseen = None
            if is_saved:
              self._save(kept)
          self._tell_failure()
      except StoppedError:
        pass
      except DataError:
        self._end(state, unseen)
        raise
      finally:
        self._run_log.add_wait(batches.waited)
    return self._end(state, unseen)

  def _batches(self, step: int) -> TrainBatches:
    return TrainBatches(
      self._config,
      self._sources,
      start_step=step,
      end_step=self._config.steps,
      on_wait=self._on_wait,
      share=(processes.index(), processes.count()),
    )

  def _run(self, state: TrainState, raw: RawBatch) -> Outcome:
    # One process alone stops at once. Several stop after the same step, so
    # each tells its own signal with the step, and learns of the others'.
    if self._is_alone:
      return self._update.run(state, raw)
    return self._update.run(state, raw, self._stop.received is not None)

  def _trace(self, step: int) -> contextlib.AbstractContextManager[StepTrace]:
    folder = self._workdir / TRACE_FOLDER if self._config.profile else None
    return StepTrace(
      folder, step, self._config.steps, report=self._run_log.print
    )

  def _on_wait(self, seconds: float, reading: str) -> None:
    if self._is_alone and self._stop.received is not None:
      raise StoppedError(self._stop.received)
    if seconds >= self._next_wait:
      self._run_log.print(f'waiting on data for {seconds:.0f} s: {reading}')
      self._next_wait *= 2

  def _see(
    self, step: int, outcome: Outcome, scores: Mapping[str, float] | None = None
  ) -> None:
    """Waits for a step, and records it; `scores` are more numbers of it."""
    self._hear(outcome)
    if not outcome.is_finite:
      raise _NotFiniteError(step)
    # Its metrics are fetched where they are needed.
    self._run_log.add_step(step, {**outcome.metrics, **(scores or {})})

  def _hear(self, outcome: Outcome) -> None:
    if not self._is_alone and outcome.is_stopped:
      self._agreed = self._stop.received or signal.SIGTERM
      self._stop.received = self._agreed

  def _check(self, step: int, outcome: Outcome) -> None:
    """Lets nothing that is not finite be shown or saved."""
    if not (outcome.is_finite and is_finite(outcome.state)):
      raise _NotFiniteError(step)

  def _save(self, state: TrainState) -> None:
    """Saves a state that nobody takes over, behind the records of its step."""

    def save(metrics: Mapping[str, Any]) -> None:
      # What a checkpoint goes on from is on the disk before it is.
      try:
        self._run_log.sync()
      except OSError as error:
        self._saver.wait()
        self._saver.fail(int(state.step), error)
      else:
        self._saver.save(state, metrics)

    self._run_log.call_after(int(state.step), save)

  def _wait_for_records(self) -> None:
    self._run_log.flush()
    self._saver.wait()

  def _tell_failure(self) -> None:
    """Tells of a checkpoint that could not be written, if there is one."""
    failure = self._saver.take_failure()
    if failure is None:
      return
    if self._config.faults.on_save_error == 'stop':
      raise_failure(self._workdir, failure)
    step, error = failure
    every = self._config.checkpoint.every_steps
    again = min(step + every - step % every, self._config.steps)
    good = self._saver.last_step
    self._run_log.print(
      f'checkpoint of step {step:,} could not be written '
      f'({error_reason(error)}); '
      + (f'the last good one is of step {good:,}; ' if good is not None else '')
      + f'trying again at step {again:,}'
    )

  def _end(self, state: TrainState, unseen: Outcome | None) -> TrainState:
    """Saves what the loop came to, where that was not done; returns it."""
    step = int(state.step)
    self._wait_for_records()
    self._tell_failure()
    try:
      if unseen is not None:
        self._check(step, unseen)
        self._see(step, unseen)
      self._save(parallel.unreplicate(state))
    except _NotFiniteError:
      # The run ends for another reason. It will be found again, and then
      # there is time to look into it.
      self._run_log.print(f'the loss is not finite at step {step:,}')
      return self._last_good()
    self._wait_for_records()
    failure = self._saver.take_failure()
    if failure is not None:
      raise_failure(self._workdir, failure)
    self._run_log.update_page(step)
    return state

  def _recover(self, lost_step: int) -> TrainState:
    """Goes back to the last good checkpoint, and round what lost the run.

    Returns:
      The state after the step that is left out: nothing was learnt in it.

    Raises:
      TrainingError: too many were left out, or there is no checkpoint.
      StoppedError: a signal came.
    """
    self._wait_for_records()
    self._run_log.print(
      f'the loss is not finite at step {lost_step:,}: going back to the last '
      'good checkpoint to find what lost it'
    )
    culprit = None
    for step, outcome in self._repeat(lost_step):
      if not (outcome.is_finite and is_finite(outcome.state)):
        culprit = step
        break
    if culprit is None:
      self._pass_over(lost_step)
    else:
      self._skip(culprit)
    before = (culprit or lost_step) - 1
    state = self._last_good()
    for _, outcome in self._repeat(before):
      state = outcome.state
    self._run_log.rewind(before)
    if culprit is None:
      return state
    self._run_log.add_skipped_step(culprit)
    return _pass(state)

  def _repeat(self, last_step: int) -> Iterator[tuple[int, Outcome]]:
    """The steps since the last checkpoint again, without those left out."""
    state = self._update.place(self._last_good())
    step = int(state.step)
    skipped = {each['step'] for each in self._skipped()}
    told = time.monotonic()
    with self._batches(step) as batches:
      while step < last_step:
        if self._stopped_by is not None:
          raise StoppedError(self._stopped_by)
        raw, step = next(batches), step + 1
        self._next_wait = _FIRST_WAIT_SECONDS
        if step in skipped:
          outcome = Outcome(_pass(state), {}, jnp.array(True), jnp.array(False))
        else:
          outcome = self._run(state, raw)
        state = outcome.state
        jax.block_until_ready(outcome.is_finite)
        self._hear(outcome)
        if time.monotonic() - told > _SECONDS_BETWEEN_REPEATS:
          told = time.monotonic()
          self._run_log.print(f'step {step:,} of {last_step:,} again')
        yield step, outcome

  def _pass_over(self, step: int) -> None:
    """Tells that a step was finite when it was repeated."""
    self._num_unexplained += 1
    if self._num_unexplained > self._config.faults.max_skipped_steps:
      raise TrainingError(
        'the loss is not finite again and again, but finite when the same '
        'steps are repeated: look after this machine, or, on a GPU, set '
        'config.deterministic=True and give another --workdir'
      )
    self._run_log.print(
      f'this time step {step:,} is finite: this machine does not give the '
      'same bits twice; going on'
    )

  def _last_good(self) -> TrainState:
    def read() -> TrainState:
      found = checkpoint.load_newest(self._workdir / 'checkpoints')
      if found is None:
        raise TrainingError(
          f'the loss is not finite, and {self._workdir} has no checkpoint to '
          'go back to: lower config.optimizer.learning_rate and give another '
          '--workdir'
        )
      return found.state

    state = processes.tree_from_first(read, abstract_train_state(self._config))
    self._saver.rewind(int(state.step))
    return state

  def _skipped(self) -> list[dict[str, Any]]:
    return processes.from_first(lambda: read_skipped(self._workdir))

  def _skip(self, step: int) -> None:
    """Writes down a step that is left out, with the images of its batch."""
    # Step 1 takes the first batch, which is batch 0.
    with self._batches(step - 1) as batches:
      next(batches)  # finds out which of its images can't be read
      record = {'step': step, **batches.names(step - 1)}
    path = self._workdir / SKIPPED_FILE
    lines = [*self._skipped(), record]
    if processes.is_first():
      replace_text(path, ''.join(json.dumps(each) + '\n' for each in lines))
    budget = self._config.faults.max_skipped_steps
    if len(lines) > budget:
      raise TrainingError(
        f'the loss was not finite at {len(lines)} steps, more than '
        f'config.faults.max_skipped_steps={budget}: look at their images in '
        f'{path}; if these are in order, lower '
        'config.optimizer.learning_rate and give another --workdir'
      )
    self._run_log.print(
      f'step {step:,} is left out ({len(lines)} of at most {budget}): its '
      f'images are in {path}'
    )


def _pass(state: TrainState) -> TrainState:
  """The state after a step in which nothing is learnt."""
  return state.replace(step=state.step + 1)


def raise_failure(
  workdir: pathlib.Path, failure: tuple[int, Exception]
) -> NoReturn:
  """Raises the WorkdirError of a checkpoint that could not be written."""
  step, error = failure
  try:
    with explain_disk_errors(workdir):
      raise error
  except WorkdirError:
    raise
  except Exception as error:
    raise WorkdirError(
      f'{workdir}: the checkpoint of step {step:,} could not be written '
      f'({error_reason(error)}): run the same command again to go on '
      'from the last good one'
    ) from error


def read_skipped(workdir: pathlib.Path) -> list[dict[str, Any]]:
  """The steps that a run has left out, each with its images' names.

  Raises:
    WorkdirError: the file is damaged.
  """
  path = workdir / SKIPPED_FILE
  try:
    lines = path.read_text(encoding='utf-8').splitlines()
    records = [json.loads(line) for line in lines]
    if all(type(each['step']) is int for each in records):
      return records
  except FileNotFoundError:
    return []
  except (ValueError, TypeError, KeyError):
    pass
  raise WorkdirError(
    f'{path} is damaged: delete it, and what it tells is found again'
  )


def _drop_skipped_after(workdir: pathlib.Path, step: int) -> None:
  records = read_skipped(workdir)
  kept = [each for each in records if each['step'] <= step]
  if kept != records:
    text = ''.join(json.dumps(each) + '\n' for each in kept)
    replace_text(workdir / SKIPPED_FILE, text)
