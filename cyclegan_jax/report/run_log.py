"""The log of a run: progress, metrics, sample sheets and the run's page."""

import collections
import contextlib
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

import numpy as np
import rich.console

from cyclegan_jax.config import Config, to_config_dict
from cyclegan_jax.errors import WorkdirError
from cyclegan_jax.report import diagnostics
from cyclegan_jax.report.metric_writer import (
  METRICS_FILE,
  MetricWriter,
  read_metrics,
)
from cyclegan_jax.report.progress import Progress
from cyclegan_jax.report.run_page import sample_path, write_run_page
from cyclegan_jax.report.samples import draw_samples, translate_samples
from cyclegan_jax.report.sheet import encode_png
from cyclegan_jax.storage.atomic import replace_bytes, replace_text
from cyclegan_jax.types import Params

# Metrics with these prefixes are recorded at any step.
_ALWAYS_RECORDED = (diagnostics.PREFIX, 'evaluation/')
_MIN_WAIT_SHARE = 0.02  # share of time spent waiting for data that is reported


class _LazySum(list[Any]):
  """Arrays on a device whose sum is computed when it is converted."""

  def __float__(self) -> float:
    return sum(map(float, self))


class RunLog:
  """Writes everything that a run shows.

  A thread does the slow work in order, so that steps do not wait for it. What
  the disk refuses is reported once and does not end the run.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    config: Config,
    *,
    facts: Mapping[str, str],
    history: Sequence[Mapping[str, Any]] = (),
    reals: Mapping[str, np.ndarray],
    start_step: int,
    console: rich.console.Console,
    is_writer: bool = True,
  ):
    """Opens the files and removes records after the start.

    Args:
      workdir: folder of the run.
      config: resolved config of the run.
      facts: rows of a table on the run's page.
      history: changes of the config, which the page's curves show.
      reals: {'a', 'b'}: uint8 or float32 [N, H, W, C] sample images.
      start_step: number of completed steps.
      console: destination of messages and progress.
      is_writer: whether this process writes; only one of a run does.
    """
    self._workdir = workdir
    self._config = config
    self._facts = dict(facts)
    self._history = history
    self._reals = reals
    self._diagnostics = diagnostics.Diagnostics(config)
    self._is_writer = is_writer
    if is_writer:
      self._writer = MetricWriter(workdir, resume_step=start_step)
      self._diagnostics.restore(read_metrics(workdir / METRICS_FILE))
    self._progress = Progress(
      config.steps,
      start_step,
      pairs_per_step=config.batch_size,
      console=console,
    )
    self._failed_writes: set[str] = set()
    self._start_time = time.monotonic()
    self._wait_seconds = 0.0
    self._stack = contextlib.ExitStack()
    self._thread = ThreadPoolExecutor(1, 'run_log')
    self._tasks: collections.deque[Future[None]] = collections.deque()
    # Used by the thread only:
    self._checks: dict[str, float] = {}  # measured, with the step to come
    self._last_step: tuple[int, Mapping[str, Any]] = (-1, {})

  def __enter__(self) -> Self:
    """Starts the progress display."""
    if self._is_writer:
      self._stack.enter_context(self._writer)
    self._stack.enter_context(self._progress)
    self._stack.enter_context(self._thread)
    return self

  def __exit__(self, *exc: Any) -> None:
    """Completes the tasks, ends the progress display and closes the files.

    Raises:
      OSError: the disk refuses records, which are lost.
    """
    with self._stack:
      if exc[0] is None:
        self.flush()

  def flush(self) -> None:
    """Waits until all tasks are done."""
    while self._tasks:
      self._tasks.popleft().result()

  def print(self, text: str) -> None:
    """Prints a line, above the bar if there is one."""
    self._progress.print(text)

  def add_step(self, step: int, metrics: Mapping[str, Any]) -> None:
    """Shows the progress, and records the metrics if they are due.

    Diagnostics of the sample images of this step are added to them.

    Args:
      step: number of completed steps.
      metrics: scalars of that step by name, of any type that `float` accepts.
    """
    losses = [metrics[f'discriminator/{domain}'] for domain in 'ab']
    self._progress.update(
      step, {'gen': metrics['generator/loss'], 'disc': _LazySum(losses)}
    )
    self._submit(self._add_step, step, metrics)

  def add_skipped_step(self, step: int) -> None:
    """Records a step that is skipped for a non-finite loss."""
    if self._config.diagnostics.enabled:
      metrics = {f'{diagnostics.PREFIX}not_finite': 1.0}
      self._submit(self._record, step, metrics)

  def add_samples(self, step: int, gen: dict[str, Params]) -> None:
    """Writes a sample sheet and updates the run's page.

    Args:
      step: number of completed steps, whose metrics follow.
      gen: parameters of the generators 'ab' and 'ba', which must not be
        donated before `flush`.
    """
    self._submit(self._add_samples, step, gen)

  def update_page(self, step: int, **facts: str) -> None:
    """Writes the run's page.

    Args:
      step: number of completed steps.
      facts: more rows of its table.
    """
    self._submit(self._write_page, step, facts)

  def call_after(
    self, step: int, function: Callable[[Mapping[str, Any]], None]
  ) -> None:
    """Calls a function when everything before is recorded.

    Args:
      step: number of completed steps.
      function: function of the metrics of that step, with diagnostics; they
        are empty if another step was added last.
    """
    self._submit(
      lambda: function(self._last_step[1] if self._last_step[0] == step else {})
    )

  def write_text(self, name: str, text: str) -> None:
    """Writes a text file in the run's folder, whole or not at all."""
    path = self._workdir / name
    with self._report_failure(name):
      path.parent.mkdir(exist_ok=True)
      replace_text(path, text)

  def rewind(self, step: int) -> None:
    """Removes the records after a step."""
    self.flush()
    if not self._is_writer:
      return
    with self._report_failure('metrics'):
      self._writer.rewind(step)
    self._diagnostics.restore(read_metrics(self._workdir / METRICS_FILE))

  def sync(self) -> None:
    """Makes the records survive a power loss; for use in `call_after`.

    Raises:
      OSError: the disk refuses records; they are kept for the next write.
    """
    self._writer.sync()

  def add_wait(self, seconds: float) -> None:
    """Adds time in which steps waited for data; reports a large share."""
    self._wait_seconds += seconds
    elapsed = max(time.monotonic() - self._start_time, 1e-9)
    share = self._wait_seconds / elapsed
    text = f'{share:.1%} of the time ({self._wait_seconds:.1f} s)'
    self._facts['waiting for data'] = text
    if share >= _MIN_WAIT_SHARE:
      self.print(f'steps waited for data {text}')

  def _submit(self, task: Callable[..., None], *arguments: Any) -> None:
    if not self._is_writer:
      return
    while self._tasks and self._tasks[0].done():
      self._tasks.popleft().result()
    self._tasks.append(self._thread.submit(task, *arguments))

  def _add_step(self, step: int, metrics: Mapping[str, Any]) -> None:
    metrics = {**self._checks, **metrics}
    self._checks = {}
    self._last_step = (step, metrics)
    is_due = step % self._config.log.metrics_every_steps == 0
    if is_due or any(name.startswith(_ALWAYS_RECORDED) for name in metrics):
      self._record(step, {name: float(x) for name, x in metrics.items()})

  def _record(self, step: int, metrics: Mapping[str, float]) -> None:
    with self._report_failure('metrics'):
      self._writer.scalars(step, metrics)
    warnings = self._diagnostics.update(step, metrics)
    for text in warnings:
      self.print(f'diagnostics: {text}')
    if warnings:
      self._write_page(step, {})

  def _add_samples(self, step: int, gen: dict[str, Params]) -> None:
    samples = translate_samples(self._config, gen, self._reals)
    sheet = draw_samples(samples, self._config.data)
    png = encode_png(sheet)
    path = sample_path(self._workdir, step)
    with self._report_failure('the sample sheet'):
      path.parent.mkdir(exist_ok=True)
      replace_bytes(path, png)
    with self._report_failure('the sample sheet for TensorBoard'):
      shape = (sheet.height, sheet.width)
      self._writer.image(step, 'samples', png, shape=shape)
    self._write_page(step, {})
    # Not at the last step of a part of a run, so that a resumed run has the
    # same records as an uninterrupted one, and not before the first step.
    is_due = step % self._config.log.samples_every_steps == 0 and step > 0
    if is_due and self._config.diagnostics.enabled:
      self._checks = self._diagnostics.measure(samples)

  def _write_page(self, step: int, facts: Mapping[str, str]) -> None:
    self._facts.update(facts)
    if self._config.diagnostics.enabled:
      warnings = '; '.join(self._diagnostics.warnings)
      self._facts['diagnostics'] = warnings or 'no problems found'
    with self._report_failure('index.html'):
      write_run_page(
        self._workdir,
        title=f'{self._workdir.name}: {self._config.generator.name} on '
        f'{self._config.data.name} data',
        facts=self._facts,
        history=self._history,
        config_text=str(to_config_dict(self._config)),
        step=step,
        total_steps=self._config.steps,
      )

  @contextlib.contextmanager
  def _report_failure(self, name: str) -> Iterator[None]:
    """Reports a failed write once, until a write succeeds again."""
    try:
      yield
    except (OSError, WorkdirError) as error:
      if name not in self._failed_writes:
        self._failed_writes.add(name)
        reason = getattr(error, 'strerror', None) or str(error)
        self.print(f'{name} could not be written ({reason}); continuing')
    else:
      self._failed_writes.discard(name)
