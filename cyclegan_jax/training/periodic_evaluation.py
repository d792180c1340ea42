"""Evaluations of a run while it goes on."""

import pathlib
import time
from collections.abc import Mapping

from cyclegan_jax.config import Config
from cyclegan_jax.data.sources import Images
from cyclegan_jax.errors import DataError
from cyclegan_jax.evaluation.evaluator import Evaluator
from cyclegan_jax.evaluation.pretrained import choose_extractor
from cyclegan_jax.evaluation.results import EVALUATION_FOLDER, history_table
from cyclegan_jax.metrics.label_maps import read_palette
from cyclegan_jax.report.metric_writer import (
  METRICS_FILE,
  read_metrics,
)
from cyclegan_jax.report.run_log import Recorder
from cyclegan_jax.signals import StoppedError, StopSignal
from cyclegan_jax.storage.checkpoint import Checkpoint
from cyclegan_jax.types import Params

EVALUATION_FILE = 'evaluation.md'


class Interim:
  """Evaluates every so often, with what stays the same kept in memory.

  An evaluation is a function of config, images and step alone, so that a run
  that is stopped and goes on has the records of one that went straight.
  """

  def __init__(self, config: Config, images: Mapping[str, Images]):
    """Reads the test images and takes their features.

    Args:
      config: resolved.
      images: 'test_a' and 'test_b'.

    Raises:
      UserError: no image can be read, nor the palette, or the network can't
        be had.
    """
    options = config.evaluation
    extractor = choose_extractor(options.features)
    self._config = config
    self._evaluator = Evaluator(
      config,
      images,
      extractor=extractor,
      max_images=options.max_images,
      pairs=options.pairs,
      palette=read_palette(options.palette),
    )
    self._features = 'none' if extractor is None else extractor.name

  @property
  def names(self) -> list[str]:
    """Of the metrics."""
    return self._evaluator.names

  def describe(self) -> str:
    """A text for the table that a run begins with."""
    every = self._config.evaluation.every_steps
    counts = ' + '.join(f'{n:,}' for n in self._evaluator.counts)
    return (
      f'every {every:,} steps and at the last, on {counts} images, features: '
      f'{self._features}'
    )

  def run(
    self,
    step: int,
    gen: dict[str, Params],
    *,
    workdir: pathlib.Path,
    recorder: Recorder,
    stop: StopSignal,
  ) -> dict[str, float]:
    """Evaluates, and writes evaluation.md and the files of this step.

    Args:
      step: the number of steps done.
      gen: the generators 'ab' and 'ba'.
      workdir: the run's folder.
      recorder: takes the files.
      stop: tells of signals.

    Returns:
      Metrics of this step; none where a signal came, or an image that was
      there can't be read any more.
    """
    began = time.monotonic()
    try:
      evaluation = stop.call(lambda: self._evaluator(gen))
    except StoppedError:
      return {}
    except DataError as error:
      recorder.say(f'no evaluation of step {step:,}: {error}')
      return {}
    metrics = evaluation.metrics()
    for name, text in evaluation.files(step).items():
      recorder.evaluation(f'{EVALUATION_FOLDER}/{name}', text)
    recorder.flush()
    records = [
      record
      for record in read_metrics(workdir / METRICS_FILE)
      if record['step'] < step
    ]
    history = history_table([*records, {'step': step, **metrics}])
    text = evaluation.to_markdown(title=f'Evaluation at step {step:,}')
    recorder.evaluation(
      EVALUATION_FILE, '\n'.join([text, '## All steps', '', *history, ''])
    )
    seconds = time.monotonic() - began
    recorder.say(f'evaluated step {step:,} in {seconds:.1f} s')
    return metrics


def check_options(config: Config) -> None:
  """Checks what is asked of evaluations, before anything is read for them.

  Raises:
    UserError: the best checkpoint would not be the best, or there is no such
      palette.
  """
  read_palette(config.evaluation.palette)


def is_owed(config: Config, found: Checkpoint | None) -> bool:
  """Whether a checkpoint should have the metrics of an evaluation and hasn't.

  A signal has ended the run in the middle of it, or there were none then.
  """
  every = config.evaluation.every_steps
  if found is None or not every or not found.metrics:
    return False
  step = int(found.state.step)
  is_due = step > 0 and (step % every == 0 or step == config.steps)
  return is_due and not any(
    name.startswith('evaluation/') for name in found.metrics
  )
