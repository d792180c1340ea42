"""A trace of a few steps by JAX's profiler."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

import jax

TRACE_FOLDER = 'profile'
_NUM_BEFORE = 5  # steps in which caches fill
_NUM_TRACED = 5


class StepTrace:
  """Traces some of the steps that are made inside of it, once.

  A trace that can't be written is told of and given up; the steps go on.
  """

  def __init__(
    self,
    folder: pathlib.Path | None,
    start_step: int,
    end_step: int,
    *,
    say: Callable[[str], None],
  ):
    """Plans it.

    Args:
      folder: takes plugins/profile/TIME/, as TensorBoard and XProf read it,
        with a file for ui.perfetto.dev. None for no trace.
      start_step: the steps that are done.
      end_step: the last step that there will be.
      say: tells the user.
    """
    self._folder = folder
    latest = max(start_step, end_step - _NUM_TRACED)
    self._first = min(start_step + _NUM_BEFORE, latest)
    self._last = min(self._first + _NUM_TRACED, end_step)
    self._say = say
    self._is_on = False

  def step(self, done: int, unseen: Any) -> None:
    """Is called before each step.

    Args:
      done: the steps that are done.
      unseen: arrays to wait for, so that the trace has whole steps.
    """
    if self._folder is None:
      return
    if done == self._first:
      jax.block_until_ready(unseen)
      with self._telling():
        self._folder.mkdir(parents=True, exist_ok=True)
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # every call of Python's: 100 MB
        jax.profiler.start_trace(
          self._folder, create_perfetto_trace=True, profiler_options=options
        )
        self._is_on = True
    elif done == self._last:
      jax.block_until_ready(unseen)
      self._stop()

  def _stop(self) -> None:
    if self._is_on:
      self._is_on = False
      with self._telling():
        jax.profiler.stop_trace()
        self._say(f'a trace from step {self._first + 1:,} is in {self._folder}')

  @contextlib.contextmanager
  def _telling(self) -> Iterator[None]:
    try:
      yield
    # JAX's profiler raises RuntimeError where another trace is being made.
    except (OSError, RuntimeError) as error:
      self._say(f'no trace: {self._folder}: {error}')

  def __enter__(self) -> Self:
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    traceback: TracebackType | None,
  ) -> None:
    self._stop()
