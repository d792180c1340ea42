"""One place for what a run tells while it goes on."""

import contextlib
import pathlib
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import rich.console

from cyclegan_jax import images
from cyclegan_jax.config import Config, to_config_dict
from cyclegan_jax.report.gallery import sample_path, write_gallery
from cyclegan_jax.report.progress import Progress
from cyclegan_jax.report.samples import make_samples
from cyclegan_jax.report.writer import MetricWriter
from cyclegan_jax.types import Metrics, Params


class Recorder:
  """Progress bar, metrics.jsonl, TensorBoard, sample sheets and gallery."""

  def __init__(
    self,
    workdir: pathlib.Path,
    config: Config,
    *,
    facts: Mapping[str, str],
    reals: Mapping[str, np.ndarray],
    start_step: int,
    console: rich.console.Console,
  ):
    """Opens the records, without those that a dead run wrote too far.

    Args:
      workdir: the run's folder.
      config: resolved.
      facts: rows about the run, for the gallery.
      reals: {'a', 'b'}: uint8 [N, H, W, C] test images of the samples.
      start_step: the number of steps that are done.
      console: where progress is shown.
    """
    self._workdir = workdir
    self._config = config
    self._facts = dict(facts)
    self._reals = reals
    self._writer = MetricWriter(workdir, resume_step=start_step)
    self._progress = Progress(
      config.steps,
      start_step,
      # A pair is an image of each side.
      images_per_step=2 * config.batch_size,
      console=console,
    )
    self._stack = contextlib.ExitStack()

  def __enter__(self) -> Self:
    """Starts the progress bar."""
    self._stack.enter_context(self._writer)
    self._stack.enter_context(self._progress)
    return self

  def __exit__(self, *exc: Any) -> None:
    """Ends the progress bar and closes the files."""
    self._stack.__exit__(*exc)

  def step(self, step: int, metrics: Metrics) -> None:
    """Shows a step's progress, and records its metrics when they are due."""
    shown = {
      'generator': metrics['generator/loss'],
      'discriminator': metrics['discriminator/a'] + metrics['discriminator/b'],
    }
    self._progress.update(step, shown)
    if step % self._config.log.metrics_every_steps == 0:
      self._writer.scalars(step, metrics)

  def samples(self, step: int, gen: dict[str, Params]) -> None:
    """Writes a sample sheet, and the gallery anew."""
    sheet = make_samples(self._config, gen, self._reals)
    path = sample_path(self._workdir, step)
    path.parent.mkdir(exist_ok=True)
    images.save_png(path, sheet)
    self._writer.image(step, 'samples', sheet)
    self.gallery(step)

  def gallery(self, step: int, **more_facts: str) -> None:
    """Writes index.html with what is there by now."""
    self._facts.update(more_facts)
    write_gallery(
      self._workdir,
      title=f'{self._workdir.name}: {self._config.generator.name} on '
      f'{self._config.data.name} data',
      facts=self._facts,
      config_text=str(to_config_dict(self._config)),
      step=step,
      total_steps=self._config.steps,
    )
