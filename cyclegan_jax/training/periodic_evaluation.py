"""Evaluation during training."""

import pathlib
import time
from collections.abc import Mapping

from cyclegan_jax.config import Config
from cyclegan_jax.data.image_list import Images
from cyclegan_jax.errors import DataError
from cyclegan_jax.evaluation.evaluator import Evaluator
from cyclegan_jax.evaluation.pretrained import choose_extractor
from cyclegan_jax.evaluation.results import (
  EVALUATION_FOLDER,
  history_table,
  scores_line,
)
from cyclegan_jax.metrics.label_maps import read_palette
from cyclegan_jax.report.metric_writer import METRICS_FILE, read_metrics
from cyclegan_jax.report.run_log import RunLog
from cyclegan_jax.signals import StoppedError, StopSignal
from cyclegan_jax.storage.checkpoint import Checkpoint
from cyclegan_jax.types import Params

EVALUATION_FILE = 'evaluation.md'


class PeriodicEvaluation:
  """Evaluates the generators of a run at several of its steps.

  Test images and their features stay in memory. A score depends on the
  config, the images and the step only, so a resumed run records the same
  scores as an uninterrupted one.
  """

  def __init__(self, config: Config, images: Mapping[str, Images]):
    """Reads the test images and computes their features.

    Args:
      config: resolved.
      images: 'test_a' and 'test_b'.

    Raises:
      UserError: no image or no palette can be read, or the feature network is
        not available.
    """
    options = config.evaluation
    extractor = choose_extractor(options.features)
    self._every_steps = options.every_steps
    self._evaluator = Evaluator(
      config,
      images,
      extractor=extractor,
      max_images=options.max_images,
      pairs=options.pairs,
      palette=read_palette(options.palette),
    )
    self._data = config.data
    self.last = ''  # the newest scores, as a line
    self._features = 'none' if extractor is None else extractor.name

  @property
  def names(self) -> list[str]:
    """The names of the scores among a run's metrics."""
    return self._evaluator.names

  def describe(self) -> str:
    """Describes the evaluation in the table of facts of a run."""
    counts = ' + '.join(f'{n:,}' for n in self._evaluator.counts)
    return (
      f'every {self._every_steps:,} steps and at the last, on {counts} images, '
      f'features: {self._features}'
    )

  def run(
    self,
    step: int,
    gen: dict[str, Params],
    *,
    workdir: pathlib.Path,
    run_log: RunLog,
    stop: StopSignal,
  ) -> dict[str, float]:
    """Evaluates, and writes evaluation.md and the files of this step.

    Args:
      step: number of steps trained.
      gen: the generators 'ab' and 'ba'.
      workdir: the run's folder.
      run_log: writes the files.
      stop: receives signals.

    Returns:
      The scores; none if a signal came, or if a test image can no longer be
      read.
    """
    began = time.monotonic()
    try:
      evaluation = stop.call(lambda: self._evaluator(gen))
    except StoppedError:
      return {}
    except DataError as error:
      run_log.print(f'no evaluation of step {step:,}: {error}')
      return {}
    scores = evaluation.metrics()
    for name, text in evaluation.files(step).items():
      run_log.write_text(f'{EVALUATION_FOLDER}/{name}', text)
    run_log.flush()
    records = [
      record
      for record in read_metrics(workdir / METRICS_FILE)
      if record['step'] < step
    ]
    history = history_table([*records, {'step': step, **scores}], self._data)
    text = evaluation.to_markdown(title=f'Evaluation at step {step:,}')
    run_log.write_text(
      EVALUATION_FILE, '\n'.join([text, '## All steps', '', *history, ''])
    )
    seconds = time.monotonic() - began
    self.last = scores_line(step, scores, self._data)
    run_log.print(f'evaluation in {seconds:.1f} s of {self.last}')
    return scores


def is_evaluation_missing(config: Config, resumed: Checkpoint | None) -> bool:
  """Whether a resumed checkpoint lacks the scores that it should have.

  A signal interrupted its evaluation, or evaluation was off then.
  """
  every_steps = config.evaluation.every_steps
  if resumed is None or not every_steps or not resumed.metrics:
    return False
  step = int(resumed.state.step)
  is_due = step > 0 and (step % every_steps == 0 or step == config.steps)
  return is_due and not any(
    name.startswith('evaluation/') for name in resumed.metrics
  )
