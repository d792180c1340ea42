"""One place for what a run tells while it goes on."""

import collections
import contextlib
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

import numpy as np
import rich.console

from cyclegan_jax.config import Config, to_config_dict
from cyclegan_jax.errors import WorkdirError
from cyclegan_jax.report.diagnostics import Doctor
from cyclegan_jax.report.metric_writer import (
  METRICS_FILE,
  MetricWriter,
  read_metrics,
)
from cyclegan_jax.report.progress import Progress
from cyclegan_jax.report.run_page import (
  sample_path,
  write_gallery,
)
from cyclegan_jax.report.samples import draw_samples, translate_samples
from cyclegan_jax.report.sheet import encode_png
from cyclegan_jax.storage.atomic import (
  replace_text,
  replacing,
)
from cyclegan_jax.types import Params

_RECORDED = ('doctor/', 'evaluation/')
_WORTH_TELLING = 0.02  # the least share of time lost on data that is told


class _Sum(list[Any]):
  """Numbers on a device, which are added on the host when they are shown."""

  def __float__(self) -> float:
    return sum(map(float, self))


class Recorder:
  """Progress bar, metrics.jsonl, TensorBoard, sample sheets and gallery.

  What takes time is done in the order in which it was told, by a thread, so
  that steps do not wait for it. What the disk refuses is told and does not end
  the run.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    config: Config,
    *,
    facts: Mapping[str, str],
    reals: Mapping[str, np.ndarray],
    start_step: int,
    console: rich.console.Console,
    is_writer: bool = True,
  ):
    """Opens the records, without those that a dead run wrote too far.

    Args:
      workdir: the run's folder.
      config: resolved.
      facts: rows about the run, for the gallery.
      reals: {'a', 'b'}: uint8 [N, H, W, C] test images of the samples.
      start_step: the number of steps that are done.
      console: where progress is shown.
      is_writer: of several processes only one is; the others' records nothing.
    """
    self._workdir = workdir
    self._config = config
    self._facts = dict(facts)
    self._reals = reals
    self._doctor = Doctor(config)
    self._is_writer = is_writer
    if is_writer:
      self._writer = MetricWriter(workdir, resume_step=start_step)
      self._doctor.reread(read_metrics(workdir / METRICS_FILE))
    self._progress = Progress(
      config.steps,
      start_step,
      # A pair is an image of each side.
      images_per_step=2 * config.batch_size,
      console=console,
    )
    self._refused: set[str] = set()
    self._began = time.monotonic()
    self._waited_seconds = 0.0
    self._stack = contextlib.ExitStack()
    self._thread = ThreadPoolExecutor(1, 'records')
    self._tasks: collections.deque[Future[None]] = collections.deque()
    # Of the thread alone:
    self._signs: dict[str, float] = {}  # of samples whose step is yet to come
    self._last: tuple[int, Mapping[str, Any]] = (-1, {})

  def __enter__(self) -> Self:
    """Starts the progress bar."""
    if self._is_writer:
      self._stack.enter_context(self._writer)
    self._stack.enter_context(self._progress)
    self._stack.enter_context(self._thread)
    return self

  def __exit__(self, *exc: Any) -> None:
    """Writes what is left, ends the progress bar and closes the files.

    Raises:
      OSError: the disk refuses some records to the end.
    """
    with self._stack:
      if exc[0] is None:
        self.flush()

  def flush(self) -> None:
    """Returns when all that was told is done."""
    while self._tasks:
      self._tasks.popleft().result()

  def say(self, text: str) -> None:
    """Prints a line, above the bar where there is one."""
    self._progress.print(text)

  def step(self, step: int, metrics: Mapping[str, Any]) -> None:
    """Shows a step's progress, and records its metrics when they are due.

    The doctor's signs of this step's samples are put to them.

    Args:
      step: the number of steps done.
      metrics: of that step.
    """
    shown = {
      'generator': metrics['generator/loss'],
      'discriminator': _Sum([metrics[f'discriminator/{d}'] for d in 'ab']),
    }
    self._progress.update(step, shown)
    self._do(self._see, step, metrics)

  def step_skipped(self, step: int) -> None:
    """Records a step that is left out, as its loss is not finite."""
    if self._config.diagnostics.enabled:
      self._do(self._record, step, {'doctor/not_finite': 1.0})

  def samples(self, step: int, gen: dict[str, Params]) -> None:
    """Writes a sample sheet, and the gallery anew.

    Args:
      step: the number of steps done; its metrics come after.
      gen: the generators 'ab' and 'ba', whose memory nobody takes over.
    """
    self._do(self._draw, step, gen)

  def gallery(self, step: int, **more_facts: str) -> None:
    """Writes index.html with what is there by now."""
    self._do(self._write_gallery, step, more_facts)

  def then(self, step: int, task: Callable[[Mapping[str, Any]], None]) -> None:
    """Calls a function when all that was told before is recorded.

    Args:
      step: the number of steps done.
      task: is given the metrics of that step, with the doctor's signs; none
        where they were not told.
    """
    self._do(lambda: task(self._last[1] if self._last[0] == step else {}))

  def _do(self, task: Callable[..., None], *arguments: Any) -> None:
    if not self._is_writer:
      return
    while self._tasks and self._tasks[0].done():
      self._tasks.popleft().result()
    self._tasks.append(self._thread.submit(task, *arguments))

  def _see(self, step: int, metrics: Mapping[str, Any]) -> None:
    metrics = {**self._signs, **metrics}
    self._signs = {}
    self._last = (step, metrics)
    is_due = step % self._config.log.metrics_every_steps == 0
    # Signs and evaluations make a record at any step: on one line with the
    # losses.
    if is_due or any(name.startswith(_RECORDED) for name in metrics):
      self._record(step, {name: float(x) for name, x in metrics.items()})

  def _draw(self, step: int, gen: dict[str, Params]) -> None:
    samples = translate_samples(self._config, gen, self._reals)
    sheet = draw_samples(samples)
    png = encode_png(sheet)
    path = sample_path(self._workdir, step)
    with self._tell_refusal('the sample sheet'):
      path.parent.mkdir(exist_ok=True)
      with replacing(path) as temporary:
        temporary.write_bytes(png)
    with self._tell_refusal('a picture'):
      self._writer.image(step, 'samples', png, shape=sheet.shape[:2])
    self._write_gallery(step, {})
    # Not at an end that comes between: a run in two parts has the records of
    # one that went straight. Nothing is learnt yet at step 0.
    is_due = step % self._config.log.samples_every_steps == 0 and step > 0
    if is_due and self._config.diagnostics.enabled:
      self._signs = self._doctor.examine(samples)

  def _write_gallery(self, step: int, more_facts: Mapping[str, str]) -> None:
    self._facts.update(more_facts)
    if self._config.diagnostics.enabled:
      told = self._doctor.told
      self._facts['doctor'] = '; '.join(told) or 'nothing to complain of'
    with self._tell_refusal('index.html'):
      write_gallery(
        self._workdir,
        title=f'{self._workdir.name}: {self._config.generator.name} on '
        f'{self._config.data.name} data',
        facts=self._facts,
        config_text=str(to_config_dict(self._config)),
        step=step,
        total_steps=self._config.steps,
      )

  def evaluation(self, name: str, text: str) -> None:
    """Writes a file of an evaluation, whole, below the run's folder."""
    path = self._workdir / name
    with self._tell_refusal('an evaluation'):
      path.parent.mkdir(exist_ok=True)
      replace_text(path, text)

  def rewind(self, step: int) -> None:
    """Takes back the records of all steps after this one."""
    self.flush()
    if not self._is_writer:
      return
    with self._tell_refusal('metrics'):
      self._writer.rewind(step)
    self._doctor.reread(read_metrics(self._workdir / METRICS_FILE))

  def sync(self) -> None:
    """Makes the records survive a loss of power; for a task of `then`.

    Raises:
      OSError: the disk refuses some for now.
    """
    self._writer.sync()

  def waited(self, seconds: float) -> None:
    """Tells the share of time that steps waited on data, if it is much.

    Args:
      seconds: of waiting since the start or the last call.
    """
    self._waited_seconds += seconds
    share = self._waited_seconds / max(time.monotonic() - self._began, 1e-9)
    text = f'{share:.1%} of the time ({self._waited_seconds:.1f} s)'
    self._facts['waited on data'] = text
    if share >= _WORTH_TELLING:
      self.say(f'steps waited on data for {text}')

  def _record(self, step: int, metrics: Mapping[str, float]) -> None:
    with self._tell_refusal('metrics'):
      self._writer.scalars(step, metrics)
    news = self._doctor.read(step, metrics)
    for text in news:
      self.say(f'doctor: {text}')
    if news:
      self._write_gallery(step, {})

  @contextlib.contextmanager
  def _tell_refusal(self, what: str) -> Iterator[None]:
    """Tells of the disk's first refusal, until it takes the thing again."""
    try:
      yield
    except (OSError, WorkdirError) as error:
      if what not in self._refused:
        self._refused.add(what)
        reason = getattr(error, 'strerror', None) or str(error)
        self.say(f'{what} could not be written ({reason}); going on')
    else:
      self._refused.discard(what)
