"""Progress display of a run: a live bar on a terminal, lines in a log."""

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any, Self

import rich.console
import rich.progress

from cyclegan_jax.terminal import is_live, stderr_console

_REFRESH_SECONDS = 0.25
_RATE_WINDOW_SECONDS = 300.0


class Progress:
  """Shows the step, the rate, the time left and the latest metrics.

  On a terminal that is one live line. Elsewhere, as in a log file, a pipe or a
  notebook, it is a plain line now and then, such as

      step  120/780   15%  12.3 pairs/s  04:12  gen 3.21  disc 0.601

  The rate is measured over the last minutes, without the first step, which
  includes the compilation.
  """

  def __init__(
    self,
    total: int,
    start: int = 0,
    *,
    pairs_per_step: int = 1,
    every_seconds: float = 10.0,
    console: rich.console.Console | None = None,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Prepares the display, which starts with the `with` block.

    Args:
      total: number of steps of the run.
      start: number of steps that are already completed.
      pairs_per_step: number of image pairs per step.
      every_seconds: minimum time between two plain lines.
      console: destination; standard error by default.
      clock: function that returns the time in seconds.
    """
    self._console = console or stderr_console()
    self._is_live = is_live(self._console)
    self._pairs_per_step = pairs_per_step
    self._clock = clock
    self._interval = _REFRESH_SECONDS if self._is_live else every_seconds
    self._shown_at: float | None = None
    self._shown_step = start
    self._metrics: Mapping[str, Any] = {}
    self._columns = _make_columns(self._console.width if self._is_live else 0)
    self._bar = rich.progress.Progress(
      *self._columns,
      console=self._console,
      refresh_per_second=1 / _REFRESH_SECONDS,
      speed_estimate_period=_RATE_WINDOW_SECONDS,
      get_time=clock,
    )
    task_id = self._bar.add_task(
      'step', total=total, completed=start, rate='', metrics=''
    )
    self._task = self._bar.tasks[task_id]

  def __enter__(self) -> Self:
    if self._is_live:
      self._bar.start()
    return self

  def __exit__(self, *_: object) -> None:
    try:
      if self._task.completed != self._shown_step:
        self._show()
    finally:
      if self._is_live:
        self._bar.stop()  # shows the cursor again

  def update(self, step: int, metrics: Mapping[str, Any] | None = None) -> None:
    """Sets the number of completed steps; cheap enough for every step.

    Args:
      step: number of completed steps, with those of earlier processes.
      metrics: scalars by displayed name, of any type that `float` accepts;
        the latest are kept. They are converted only when they are shown, so
        that arrays in computation do not block the training loop.
    """
    self._bar.update(self._task.id, completed=step)
    if metrics is not None:
      self._metrics = metrics
    now = self._clock()
    is_due = self._shown_at is None or now - self._shown_at >= self._interval
    if is_due or (self._task.finished and step != self._shown_step):
      self._shown_at = now
      self._show()

  def print(self, text: str) -> None:
    """Prints a line, above the bar if there is one."""
    if self._console.quiet:
      return
    # A log on a full disk, or a closed pipe, must not end a run.
    with contextlib.suppress(OSError, ValueError):
      if self._is_live:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
      else:
        print(text, file=self._console.file, flush=True)

  def _show(self) -> None:
    task = self._task
    self._shown_step = int(task.completed)
    speed = task.speed
    self._bar.update(
      task.id,
      rate=f'{_shorten(speed * self._pairs_per_step)} pairs/s' if speed else '',
      metrics='  '.join(
        f'{name} {float(value):.3g}' for name, value in self._metrics.items()
      ),
    )
    if not self._is_live:
      texts = [column.render(task).plain.strip() for column in self._columns]
      name, *others = filter(None, texts)
      self.print(f'{name} {"  ".join(others)}')


def _make_columns(width: int) -> list[Any]:
  """Columns of a line that fit into a width in characters; 0 for a log."""
  columns = [
    rich.progress.MofNCompleteColumn(),
    rich.progress.TaskProgressColumn(),
    rich.progress.TextColumn('{task.fields[rate]}'),
    rich.progress.TimeRemainingColumn(compact=True),
  ]
  if width == 0 or width >= 80:
    columns.insert(0, rich.progress.TextColumn('{task.description}'))
    columns.append(rich.progress.TextColumn('{task.fields[metrics]}'))
  if width >= 80:
    bar = rich.progress.BarColumn(bar_width=min(20, width - 70))
    columns.insert(2, bar)
  return columns


def _shorten(number: float) -> str:
  return f'{number:.0f}' if number >= 100 else f'{number:.3g}'
