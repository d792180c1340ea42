"""Training loop with checkpoints, signals and recovery from bad steps."""

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
from cyclegan_jax.data.image_list import Images
from cyclegan_jax.data.loader import RawBatch, TrainBatches
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
  CompiledStep,
  StepOutput,
  is_state_finite,
)
from cyclegan_jax.types import Params

SKIPPED_FILE = 'skipped.jsonl'

# Scores by name of the generators after a step; none if a signal came first.
Evaluate = Callable[[int, dict[str, Params]], Mapping[str, float]]

_SECONDS_BETWEEN_MESSAGES = 10.0  # while steps are repeated
_FIRST_WAIT_SECONDS = 5.0  # for data, before a message; doubles each time


class _NotFiniteError(Exception):
  """A loss or a number of the state is not finite after a step."""

  def __init__(self, step: int):
    super().__init__(step)
    self.step = step


class Loop:
  """Trains from a state to the last step of its run.

  A signal or unreadable images end it early, after the state is saved. After
  a non-finite loss it returns to the last checkpoint, repeats the steps to
  find the one that caused it, and skips that step.
  """

  def __init__(
    self,
    config: Config,
    workdir: pathlib.Path,
    images: Mapping[str, Images],
    step: CompiledStep,
    run_log: RunLog,
    saver: checkpoint.Saver,
    stop: StopSignal,
    evaluate: Evaluate | None = None,
  ):
    """Stores what the run has opened.

    Args:
      config: resolved.
      workdir: the run's folder.
      images: the run's images, by split.
      step: the compiled step.
      run_log: records metrics and samples.
      saver: saves checkpoints.
      stop: receives signals.
      evaluate: called every evaluation.every_steps steps, and at the last.
    """
    self._config = config
    self._workdir = workdir
    self._images = images
    self._step = step
    self._run_log = run_log
    self._saver = saver
    self._stop = stop
    self._evaluate = evaluate
    self._next_wait = _FIRST_WAIT_SECONDS
    self._num_unexplained = 0  # bad steps that were good when repeated
    self._is_only_process = processes.count() == 1
    self._agreed_signal: int | None = None  # once all processes know of it

  def __call__(self, state: TrainState) -> TrainState:
    """Trains.

    Args:
      state: at any step; its memory is donated.

    Returns:
      The state at the last step, or at an earlier one after a signal; it is
      saved.

    Raises:
      UserError: training cannot continue, or the last state cannot be saved.
    """
    if processes.is_first():
      _drop_skipped_after(self._workdir, int(state.step))
    while True:
      try:
        return self._train(state)
      except _NotFiniteError as error:
        try:
          state = self._recover(error.step)
        except StoppedError:
          return self._restore_last()

  @property
  def _stop_signal(self) -> int | None:
    received = self._stop.received
    return received if self._is_only_process else self._agreed_signal

  def _is_due(self, every_steps: int, step: int) -> bool:
    return step % every_steps == 0 or step == self._config.steps

  def _train(self, state: TrainState) -> TrainState:
    config = self._config
    state = self._step.place(state)
    step, last_step = int(state.step), config.steps
    unrecorded: StepOutput | None = None  # of the last step
    with self._batches(step) as batches, self._trace(step) as trace:
      try:
        while step < last_step and self._stop_signal is None:
          raw = next(batches)
          self._next_wait = _FIRST_WAIT_SECONDS
          trace.before_step(step, state)
          with jax.profiler.StepTraceAnnotation('step', step_num=step + 1):
            output = self._run(state, raw)
          # While the device computes this step, the host records the last
          # one. At most one step is in flight.
          if unrecorded is not None:
            self._record(step, unrecorded)
          state, unrecorded, step = output.state, output, step + 1
          has_samples = self._is_due(config.log.samples_every_steps, step)
          is_evaluated = self._evaluate is not None and self._is_due(
            config.evaluation.every_steps, step
          )
          # Scores choose the best checkpoint, so their step has one.
          is_saved = is_evaluated or self._is_due(
            config.checkpoint.every_steps, step
          )
          if has_samples or is_saved:
            self._check_finite(step, output)
            # The next step donates the state, so it is copied; the run log
            # is done with the last copy first.
            self._run_log.flush()
            copied = parallel.unreplicate(state)
            if has_samples:
              self._run_log.add_samples(step, copied.translators)
            scores: Mapping[str, float] = {}
            if is_evaluated and self._evaluate is not None:
              # In the foreground: the step's record and checkpoint hold the
              # scores.
              scores = self._evaluate(step, copied.translators)
            self._record(step, output, scores)
            unrecorded = None
            if is_saved:
              self._save(copied)
          self._report_save_error()
      except StoppedError:
        pass
      except DataError:
        self._finish(state, unrecorded)
        raise
      finally:
        self._run_log.add_wait(batches.waited)
    return self._finish(state, unrecorded)

  def _batches(self, step: int) -> TrainBatches:
    return TrainBatches(
      self._config,
      self._images,
      start_step=step,
      end_step=self._config.steps,
      on_wait=self._on_wait,
      share=(processes.index(), processes.count()),
    )

  def _run(self, state: TrainState, raw: RawBatch) -> StepOutput:
    if self._is_only_process:
      return self._step.run(state, raw)
    # Several processes must stop after the same step, so each passes its
    # signal into the step.
    return self._step.run(state, raw, self._stop.received is not None)

  def _trace(self, step: int) -> contextlib.AbstractContextManager[StepTrace]:
    folder = self._workdir / TRACE_FOLDER if self._config.profile else None
    return StepTrace(
      folder, step, self._config.steps, report=self._run_log.print
    )

  def _on_wait(self, seconds: float, reading: str) -> None:
    if self._is_only_process and self._stop.received is not None:
      raise StoppedError(self._stop.received)
    if seconds >= self._next_wait:
      self._run_log.print(f'waiting for data for {seconds:.0f} s: {reading}')
      self._next_wait *= 2

  def _record(
    self,
    step: int,
    output: StepOutput,
    scores: Mapping[str, float] | None = None,
  ) -> None:
    """Waits for a step, and records its metrics and scores."""
    self._update_agreed_signal(output)
    if not output.is_finite:
      raise _NotFiniteError(step)
    # The run log fetches the metrics from the device if it needs them.
    self._run_log.add_step(step, {**output.metrics, **(scores or {})})

  def _update_agreed_signal(self, output: StepOutput) -> None:
    if not self._is_only_process and output.is_stopped:
      self._agreed_signal = self._stop.received or signal.SIGTERM
      self._stop.received = self._agreed_signal

  def _check_finite(self, step: int, output: StepOutput) -> None:
    """Raises before a non-finite state could be shown or saved."""
    if not _is_output_finite(output):
      raise _NotFiniteError(step)

  def _save(self, state: TrainState) -> None:
    """Saves a copied state, after the records of its step."""

    def save(metrics: Mapping[str, Any]) -> None:
      # A checkpoint is only written when the records before it are on disk.
      try:
        self._run_log.sync()
      except OSError as error:
        self._saver.wait()
        self._saver.fail(int(state.step), error)
      else:
        self._saver.save(state, metrics)

    self._run_log.call_after(int(state.step), save)

  def _wait_for_pending_writes(self) -> None:
    self._run_log.flush()
    self._saver.wait()

  def _report_save_error(self) -> None:
    """Reports a checkpoint that could not be written, or ends the run."""
    failure = self._saver.take_failure()
    if failure is None:
      return
    if self._config.faults.on_save_error == 'stop':
      raise_save_error(self._workdir, failure)
    step, error = failure
    every = self._config.checkpoint.every_steps
    next_step = min(step + every - step % every, self._config.steps)
    last = self._saver.last_step
    self._run_log.print(
      f'checkpoint of step {step:,} could not be written '
      f'({error_reason(error)}); '
      + (f'the last good one is of step {last:,}; ' if last is not None else '')
      + f'retrying at step {next_step:,}'
    )

  def _finish(
    self, state: TrainState, unrecorded: StepOutput | None
  ) -> TrainState:
    """Records and saves the last state of this loop, and returns it."""
    step = int(state.step)
    self._wait_for_pending_writes()
    self._report_save_error()
    try:
      if unrecorded is not None:
        self._check_finite(step, unrecorded)
        self._record(step, unrecorded)
      self._save(parallel.unreplicate(state))
    except _NotFiniteError:
      # The run ends for another reason; when it is resumed, it will find the
      # bad step.
      self._run_log.print(f'the loss is not finite at step {step:,}')
      return self._restore_last()
    self._wait_for_pending_writes()
    failure = self._saver.take_failure()
    if failure is not None:
      raise_save_error(self._workdir, failure)
    self._run_log.update_page(step)
    return state

  def _recover(self, bad_step: int) -> TrainState:
    """Returns to the last checkpoint, and finds and skips the bad step.

    Returns:
      The state after the skipped step, in which nothing was learned.

    Raises:
      TrainingError: too many steps were skipped, or there is no checkpoint.
      StoppedError: a signal came.
    """
    self._wait_for_pending_writes()
    self._run_log.print(
      f'the loss is not finite at step {bad_step:,}: returning to the last '
      'checkpoint to find the cause'
    )
    cause = None
    for step, output in self._repeat(bad_step):
      if not _is_output_finite(output):
        cause = step
        break
    if cause is None:
      self._count_unexplained(bad_step)
    else:
      self._skip(cause)
    last_good = (cause or bad_step) - 1
    state = self._restore_last()
    for _, output in self._repeat(last_good):
      state = output.state
    self._run_log.rewind(last_good)
    if cause is None:
      return state
    self._run_log.add_skipped_step(cause)
    return _without_learning(state)

  def _repeat(self, last_step: int) -> Iterator[tuple[int, StepOutput]]:
    """Repeats the steps since the last checkpoint, without skipped ones."""
    state = self._step.place(self._restore_last())
    step = int(state.step)
    skipped = {record['step'] for record in self._skipped()}
    last_message = time.monotonic()
    with self._batches(step) as batches:
      while step < last_step:
        if self._stop_signal is not None:
          raise StoppedError(self._stop_signal)
        raw, step = next(batches), step + 1
        self._next_wait = _FIRST_WAIT_SECONDS
        if step in skipped:
          output = StepOutput(
            _without_learning(state), {}, jnp.array(True), jnp.array(False)
          )
        else:
          output = self._run(state, raw)
        state = output.state
        jax.block_until_ready(output.is_finite)
        self._update_agreed_signal(output)
        if time.monotonic() - last_message > _SECONDS_BETWEEN_MESSAGES:
          last_message = time.monotonic()
          self._run_log.print(f'repeating step {step:,} of {last_step:,}')
        yield step, output

  def _count_unexplained(self, step: int) -> None:
    """Reports a bad step that was good when it was repeated.

    Raises:
      TrainingError: this happened too often.
    """
    self._num_unexplained += 1
    if self._num_unexplained > self._config.faults.max_skipped_steps:
      raise TrainingError(
        'the loss is not finite again and again, but finite when the same '
        'steps are repeated: check this machine, or, on a GPU, set '
        'config.deterministic=True and pass another --workdir'
      )
    self._run_log.print(
      f'step {step:,} is finite when repeated, so this machine does not '
      'compute the same bits twice; continuing'
    )

  def _restore_last(self) -> TrainState:
    def read() -> TrainState:
      restored = checkpoint.load_newest(self._workdir / 'checkpoints')
      if restored is None:
        raise TrainingError(
          f'the loss is not finite, and {self._workdir} has no checkpoint to '
          'return to: lower config.optimizer.learning_rate and pass another '
          '--workdir'
        )
      return restored.state

    state = processes.tree_from_first(read, abstract_train_state(self._config))
    self._saver.rewind(int(state.step))
    return state

  def _skipped(self) -> list[dict[str, Any]]:
    return processes.from_first(lambda: read_skipped(self._workdir))

  def _skip(self, step: int) -> None:
    """Records a step to skip, with the names of its images.

    Raises:
      TrainingError: too many steps were skipped.
    """
    # Step 1 takes the first batch, which is batch 0.
    with self._batches(step - 1) as batches:
      next(batches)  # replaces images that cannot be read
      record = {'step': step, **batches.names(step - 1)}
    path = self._workdir / SKIPPED_FILE
    records = [*self._skipped(), record]
    if processes.is_first():
      _write_skipped(path, records)
    limit = self._config.faults.max_skipped_steps
    if len(records) > limit:
      raise TrainingError(
        f'the loss was not finite at {len(records)} steps, more than '
        f'config.faults.max_skipped_steps={limit}: check their images, listed '
        f'in {path}; if they are good, lower config.optimizer.learning_rate '
        'and pass another --workdir'
      )
    self._run_log.print(
      f'skipping step {step:,} ({len(records)} of at most {limit}); its '
      f'images are listed in {path}'
    )


def _is_output_finite(output: StepOutput) -> bool:
  """Whether all metrics and the whole state are finite."""
  return bool(output.is_finite) and is_state_finite(output.state)


def _without_learning(state: TrainState) -> TrainState:
  """The state after a skipped step."""
  return state.replace(step=state.step + 1)


def raise_save_error(
  workdir: pathlib.Path, failure: tuple[int, Exception]
) -> NoReturn:
  """Raises the WorkdirError of a checkpoint that could not be written."""
  step, error = failure
  advice = 'run the same command again to resume from the last good one'
  if step == 0:
    advice = 'pass another --workdir'
  try:
    with explain_disk_errors(workdir):
      raise error
  except WorkdirError:
    raise
  except Exception as error:
    raise WorkdirError(
      f'{workdir}: the checkpoint of step {step:,} could not be written '
      f'({error_reason(error)}): {advice}'
    ) from error


def read_skipped(workdir: pathlib.Path) -> list[dict[str, Any]]:
  """Reads the skipped steps of a run, each with the names of its images.

  Raises:
    WorkdirError: the file is damaged.
  """
  path = workdir / SKIPPED_FILE
  try:
    lines = path.read_text(encoding='utf-8').splitlines()
    records = [json.loads(line) for line in lines]
    if all(type(record['step']) is int for record in records):
      return records
  except FileNotFoundError:
    return []
  except (ValueError, TypeError, KeyError):
    pass
  raise WorkdirError(
    f'{path} is damaged: delete it; skipped steps will be found again'
  )


def _write_skipped(path: pathlib.Path, records: list[dict[str, Any]]) -> None:
  replace_text(path, ''.join(json.dumps(record) + '\n' for record in records))


def _drop_skipped_after(workdir: pathlib.Path, step: int) -> None:
  """Forgets skipped steps that a resumed run has not reached yet."""
  records = read_skipped(workdir)
  reached = [record for record in records if record['step'] <= step]
  if reached != records:
    _write_skipped(workdir / SKIPPED_FILE, reached)
