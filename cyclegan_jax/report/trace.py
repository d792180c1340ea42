"""A trace of a few steps by JAX's profiler."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, Self

import jax

TRACE_FOLDER = 'profile'
_NUM_SKIPPED = 5  # steps before the trace, in which caches fill
_NUM_TRACED = 5


class StepTrace:
  """Traces some of the steps within its `with` block, once.

  If the trace cannot be written, a message says so and the steps continue.
  """

  def __init__(
    self,
    folder: pathlib.Path | None,
    start_step: int,
    end_step: int,
    *,
    report: Callable[[str], None],
  ):
    """Chooses the steps.

    Args:
      folder: receives plugins/profile/TIME/, which TensorBoard and XProf read,
        with a file for ui.perfetto.dev. None for no trace.
      start_step: number of completed steps.
      end_step: last step of the run.
      report: prints a message.
    """
    self._folder = folder
    latest = max(start_step, end_step - _NUM_TRACED)
    self._first = min(start_step + _NUM_SKIPPED, latest)
    self._last = min(self._first + _NUM_TRACED, end_step)
    self._report = report
    self._is_tracing = False

  def before_step(self, step: int, pending: Any) -> None:
    """Starts or stops the trace before each step.

    Args:
      step: number of completed steps.
      pending: arrays to wait for, so that the trace has whole steps.
    """
    if self._folder is None:
      return
    if step == self._first:
      jax.block_until_ready(pending)
      with self._report_errors():
        self._folder.mkdir(parents=True, exist_ok=True)
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # all Python calls would take 100 MB
        jax.profiler.start_trace(
          self._folder, create_perfetto_trace=True, profiler_options=options
        )
        self._is_tracing = True
    elif step == self._last:
      jax.block_until_ready(pending)
      self._stop()

  def _stop(self) -> None:
    if self._is_tracing:
      self._is_tracing = False
      with self._report_errors():
        jax.profiler.stop_trace()
        self._report(f'trace from step {self._first + 1:,} in {self._folder}')

  @contextlib.contextmanager
  def _report_errors(self) -> Iterator[None]:
    try:
      yield
    # JAX's profiler raises RuntimeError if another trace is active.
    except (OSError, RuntimeError) as error:
      self._report(f'{self._folder}: the trace cannot be written ({error})')

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self._stop()
