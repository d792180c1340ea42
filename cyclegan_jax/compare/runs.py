"""Records of a run: its config, its curves and its last evaluation."""

import dataclasses
import json
import math
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from cyclegan_jax.config import Config
from cyclegan_jax.errors import UserError, WorkdirError, printable
from cyclegan_jax.evaluation.pair_scores import LABEL_METRICS
from cyclegan_jax.evaluation.results import EVALUATION_FOLDER, shown_name
from cyclegan_jax.metrics.goals import (
  LOWER,
  badness,
  best_at,
)
from cyclegan_jax.report.metric_history import (
  MetricHistory,
  read_curves,
)
from cyclegan_jax.report.metric_writer import METRICS_FILE
from cyclegan_jax.storage import checkpoint
from cyclegan_jax.storage.hub_folder import HUB_PREFIX, is_hub_folder
from cyclegan_jax.storage.workdir import read_config


class ScoreBasis(NamedTuple):
  """Conditions that scores must share to be compared.

  Attributes:
    images: checksums of the test images, as the networks see them.
    counts: numbers of images behind the score.
    features: checksum of the feature network; '' for none.
    palette: of label maps; '' for none.
  """

  images: str
  counts: str
  features: str = ''
  palette: str = ''


class Score(NamedTuple):
  """A score of an evaluation.

  Attributes:
    badness: the lower the better; None if the score cannot be ranked.
    text: the score, with its spread if it has one.
    context: the baselines and the number of images.
    basis: only scores of the same basis are ranked.
  """

  badness: float | None
  text: str
  context: str
  basis: ScoreBasis


class Scores(NamedTuple):
  """The scores of an evaluation.

  Attributes:
    step: training step that was evaluated.
    values: by the name on the page.
  """

  step: int
  values: Mapping[str, Score]


@dataclasses.dataclass
class Run:
  """A run, or a checkpoint of one, on the page.

  Attributes:
    label: its name on the page, unlike the other runs'.
    folder: of the run or of the checkpoint.
    config: None if it is not known.
    records: its curves.
    scores: of its last evaluation; None if it was never evaluated.
    checkpoint_step: step of the checkpoint that made its pictures; None
      without pictures.
    problems: sentences about what is wrong with it.
  """

  label: str
  folder: pathlib.Path
  config: Config | None
  records: MetricHistory
  scores: Scores | None = None
  checkpoint_step: int | None = None
  problems: list[str] = dataclasses.field(default_factory=list)

  def add_problem(self, text: str) -> None:
    """Adds a problem, once."""
    if text not in self.problems:
      self.problems.append(text)


def check_is_run(folder: pathlib.Path) -> None:
  """Raises WorkdirError if a folder is neither a run's nor a checkpoint's."""
  name = printable(str(folder))
  # A run may have been exported into its own folder.
  is_run = any(
    (folder / part).exists() for part in ('checkpoints', METRICS_FILE)
  )
  if str(folder).startswith(HUB_PREFIX) or (
    is_hub_folder(folder) and not is_run
  ):
    raise WorkdirError(
      f'{name} holds generators without the curves and scores of their run, '
      'which are compared: give the folder of the run'
    )
  if not folder.is_dir():
    raise WorkdirError(f'{name} is not a folder: give the folder of a run')
  parts = ('config.json', METRICS_FILE, 'checkpoints', 'state')
  if not any((folder / part).exists() for part in parts):
    raise WorkdirError(
      f'{name} is not a run: it holds no config.json, {METRICS_FILE} or '
      'checkpoints. Give the folder of a run'
    )


def read_run(
  folder: pathlib.Path, label: str, pattern: re.Pattern[str] | None
) -> Run:
  """Reads what a run recorded; what cannot be read becomes a problem of it.

  Args:
    folder: of a run; or of a checkpoint, for its run's records up to its step.
    label: of the run.
    pattern: names of the metrics to read; None for all.
  """
  workdir, end_step = folder, None
  if (folder / 'state').is_dir() and folder.absolute().name.isdecimal():
    workdir = folder.absolute().parents[1]
    end_step = int(folder.absolute().name)
  run = Run(label, folder, None, MetricHistory({}, [], None, 0))
  try:
    # First: a newer format's other files cannot be understood either.
    checkpoint.check_format(workdir / 'checkpoints')
    run.config = read_config(workdir)
    has_checkpoint = any(
      (folder / name).is_dir() for name in ('checkpoints', 'state')
    )
    if run.config is None and has_checkpoint:
      run.config = checkpoint.load(folder).config
  except UserError as error:
    run.add_problem(str(error))
  try:
    run.records = read_curves(
      workdir / METRICS_FILE, pattern=pattern, end_step=end_step
    )
  except OSError as error:
    run.add_problem(f'{METRICS_FILE} cannot be read ({error.strerror})')
  if count := run.records.num_damaged:
    run.add_problem(
      f'{METRICS_FILE}: {count:,} damaged line{"s" if count > 1 else ""} '
      'skipped'
    )
  try:
    run.scores = _read_scores(workdir / EVALUATION_FOLDER, end_step)
  except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
    run.add_problem(f'its last evaluation cannot be read ({error})')
  return run


def _read_scores(folder: pathlib.Path, end_step: int | None) -> Scores | None:
  """The newest evaluation up to a step."""
  steps = [
    int(path.stem)
    for path in folder.glob('*.json')
    if path.stem.isdecimal()
    and (end_step is None or int(path.stem) <= end_step)
  ]
  if not steps:
    return None
  text = (folder / f'{max(steps)}.json').read_text(encoding='utf-8')
  evaluation = json.loads(text)
  scores = {
    _score_name(direction, metric): _score(direction, metric, evaluation)
    for direction, rows in evaluation['directions'].items()
    for metric in rows
  }
  return Scores(max(steps), scores)


def _score_name(direction: str, metric: str) -> str:
  """The name of a score on the page, with its best value."""
  name = f'{direction} {shown_name(metric)}'
  goal = best_at(f'evaluation/{direction}/{metric}')
  if goal is None or goal == best_at(metric):
    return name
  # The directions differ in their best value, so the metric's name lacks it.
  return f'{name} ↓' if goal == LOWER else f'{name} (best at {goal:g})'


def _score(direction: str, metric: str, evaluation: Any) -> Score:
  row = evaluation['directions'][direction][metric]
  translated = row['translated']
  counts = translated['images']
  baselines = [
    f'{name} {_format(row[name])}' for name in ('copy', 'real') if row.get(name)
  ]
  num_images = ' / '.join(f'{int(count):,}' for count in counts)
  features, palette = evaluation.get('features'), evaluation.get('palette')
  # Scores of sets have two counts, one a set; those of pairs have one.
  basis = ScoreBasis(
    images=' '.join(
      str(images['sha256']) for images in evaluation['images'].values()
    ),
    counts=str(counts),
    features=str(features['digest']) if features and len(counts) > 1 else '',
    palette=str(palette) if metric in LABEL_METRICS else '',
  )
  name = f'evaluation/{direction}/{metric}'
  rank = math.inf
  if best_at(name) is not None:
    rank = badness(name, float(translated['value']))
  return Score(
    rank if rank < math.inf else None,  # None for NaN, too
    _format(translated),
    ' · '.join([*baselines, f'{num_images} images']),
    basis,
  )


def _format(figure: Mapping[str, Any]) -> str:
  spread = figure.get('spread')
  text = f'{float(figure["value"]):.4g}'
  return text if spread is None else f'{text} ± {float(spread):.2g}'
