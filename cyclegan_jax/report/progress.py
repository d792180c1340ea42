"""How far long work has come: a live bar on a terminal, lines in a log."""

import collections
import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any, Self

import rich.console
import rich.progress
import rich.table

_WINDOW_SECONDS = 30.0
_REFRESH_SECONDS = 0.25


class Progress:
  """Shows the step, the rate, the time left and the latest metrics.

  On a terminal that is one live line; elsewhere (a log file, CI) a plain
  line now and then, such as

      step 120/780  15%  12.3 images/s  left 04:12  generator 3.21

  The rate is that of the last half minute and never counts the first step,
  which holds the compilation.
  """

  def __init__(
    self,
    total: int,
    start: int = 0,
    *,
    unit: str = 'step',
    images_per_step: int = 0,
    every_seconds: float = 10.0,
    console: rich.console.Console | None = None,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Prepares the display, which starts with the `with` block.

    Args:
      total: steps in all.
      start: steps done before, in an earlier run.
      unit: what a step is called.
      images_per_step: for the rate, in images/s; 0 gives it in steps/s.
      every_seconds: the least time between two plain lines.
      console: where to write; standard error by default.
      clock: the time in seconds, from any origin.
    """
    self._console = console or rich.console.Console(stderr=True)
    self._total = total
    self._step = start
    self._unit = unit
    self._images_per_step = images_per_step
    self._clock = clock
    self._rate = _Rate()
    self._metrics: Mapping[str, Any] = {}
    terminal = self._console.is_terminal and not self._console.is_dumb_terminal
    self._every_seconds = _REFRESH_SECONDS if terminal else every_seconds
    self._shown_at: float | None = None
    self._shown_step = start
    self._bar = self._make_bar() if terminal else None

  def __enter__(self) -> Self:
    if self._bar:
      self._bar.start()
    return self

  def __exit__(self, *_: object) -> None:
    try:
      if self._step != self._shown_step:  # what an interrupted run came to
        self._show()
    finally:
      if self._bar:
        self._bar.stop()  # gives the cursor back

  def update(self, step: int, metrics: Mapping[str, Any] | None = None) -> None:
    """Takes note that `step` steps are done; cheap enough for every step.

    Args:
      step: the number of steps done, those of earlier runs included.
      metrics: what `float` takes, by the name to show; the latest are kept.
        They are converted only when shown, so that arrays still being
        computed do not hold up the loop.
    """
    now = self._clock()
    self._step = step
    self._rate.add(now, step)
    if metrics is not None:
      self._metrics = metrics
    due = self._shown_at is None or now - self._shown_at >= self._every_seconds
    if due or (step >= self._total and step != self._shown_step):
      self._shown_at = now
      self._show()

  def print(self, text: str) -> None:
    """Prints a line, above the bar where there is one."""
    if self._console.quiet:
      return
    # A log may be on a full disk, or its reader gone: no reason to end a run.
    with contextlib.suppress(OSError, ValueError):
      if self._bar:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
      else:
        print(text, file=self._console.file, flush=True)

  def _show(self) -> None:
    self._shown_step = self._step
    rate, left = self._rate_text(), self._left_text()
    metrics = '  '.join(
      f'{name} {float(value):.3g}' for name, value in self._metrics.items()
    )
    steps = f'{self._unit} {self._step}/{self._total}'
    percent = 100 * self._step // self._total if self._total else 100
    parts = [steps, f'{percent:>3}%', rate, left, metrics]
    if self._bar:
      text = '  '.join(part for part in parts[1:] if part)
      self._bar.update(
        self._bar.task_ids[0],
        completed=self._step,
        description=steps,
        text=text,
      )
    else:
      self.print('  '.join(part for part in parts if part))

  def _rate_text(self) -> str:
    rate = self._rate.per_second()
    if rate is None:
      return ''
    if self._images_per_step:
      return f'{_short(rate * self._images_per_step)} images/s'
    return f'{_short(rate)} {self._unit}s/s'

  def _left_text(self) -> str:
    rate = self._rate.per_second()
    if not rate or self._step >= self._total:
      return ''
    minutes, seconds = divmod(round((self._total - self._step) / rate), 60)
    hours, minutes = divmod(minutes, 60)
    hours_text = f'{hours}:' if hours else ''
    return f'left {hours_text}{minutes:02}:{seconds:02}'

  def _make_bar(self) -> rich.progress.Progress:
    def column(
      text: str, *, min_width: int | None = None
    ) -> rich.progress.TextColumn:
      table_column = rich.table.Column(no_wrap=True, min_width=min_width)
      return rich.progress.TextColumn(
        text, markup=False, table_column=table_column
      )

    widest = len(f'{self._unit} {self._total}/{self._total}')
    bar = rich.progress.Progress(
      column('{task.description}', min_width=widest),
      rich.progress.BarColumn(bar_width=min(20, self._console.width // 8)),
      column('{task.fields[text]}'),  # what does not fit is cut off here
      console=self._console,
    )
    steps = f'{self._unit} {self._step}/{self._total}'
    bar.add_task(steps, total=self._total, completed=self._step, text='')
    return bar


class _Rate:
  """Steps a second over the last half minute, or over the last two steps."""

  def __init__(self) -> None:
    self._marks: collections.deque[tuple[float, int]] = collections.deque()

  def add(self, now: float, step: int) -> None:
    marks = self._marks
    marks.append((now, step))
    while len(marks) > 2 and marks[1][0] <= now - _WINDOW_SECONDS:
      marks.popleft()

  def per_second(self) -> float | None:
    """None until two steps took some time."""
    if len(self._marks) < 2:
      return None
    (first_time, first_step), (time_, step) = self._marks[0], self._marks[-1]
    if time_ <= first_time:
      return None
    return (step - first_step) / (time_ - first_time)


def _short(number: float) -> str:
  return f'{number:.0f}' if number >= 100 else f'{number:.3g}'
