"""Runs beside each other: what they recorded, and what they make of images."""

import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from cyclegan_jax.compare.page import (
  PAGE_MARK,
  shortest_labels,
  write_comparison,
)
from cyclegan_jax.compare.pictures import make_pictures
from cyclegan_jax.compare.tables import (
  Basis,
  Run,
  Score,
  Scores,
  plain,
)
from cyclegan_jax.errors import ConfigError, UserError, WorkdirError, printable
from cyclegan_jax.evaluation.pair_scores import LABEL_METRICS
from cyclegan_jax.evaluation.results import shown_name
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
from cyclegan_jax.storage.disk_errors import explain_disk_errors
from cyclegan_jax.storage.workdir import read_config


def compare_runs(
  folders: Sequence[pathlib.Path],
  to: pathlib.Path,
  *,
  num_images: int = 6,
  data: pathlib.Path | None = None,
  metrics: re.Pattern[str] | None = None,
) -> list[str]:
  """Writes one HTML page about several runs.

  Args:
    folders: of runs, or of their checkpoints; one that is named twice is
      taken once.
    to: the page.
    num_images: test images of each side; 0 for none, which reads no
      checkpoint.
    data: a folder of images to translate, with testA and testB or trainA and
      trainB in it where the sides differ, or a .zip of such; by default the
      test images of the first run whose data are there.
    metrics: of the names of the curves; None for all.

  Returns:
    A message for each thing that the page says is missing.

  Raises:
    UserError: a folder is no run, the page can't be written, or nothing fits
      `data` or `metrics`.
  """
  _check_target(to)
  folders = list({each.resolve(): each for each in folders}.values())
  for folder in folders:
    _check_run(folder)
  labels = shortest_labels([each.absolute() for each in folders])
  runs = [
    _read_run(folder, label, metrics)
    for folder, label in zip(folders, labels, strict=True)
  ]
  _check_pattern(metrics, [run.records for run in runs])
  made = make_pictures(
    [(folder, run.config) for folder, run in zip(folders, runs, strict=True)],
    num_images,
    data=data,
  )
  runs = [
    # A checkpoint that can't be read may be told of twice.
    run._replace(
      checkpoint_step=step, notes=list(dict.fromkeys([*run.notes, *notes]))
    )
    for run, step, notes in zip(runs, made.steps, made.notes, strict=True)
  ]
  title = (
    ' · '.join(labels) if len(labels) < 5 else f'{len(labels)} runs compared'
  )
  with explain_disk_errors(to, option='--to'):
    to.parent.mkdir(parents=True, exist_ok=True)
    write_comparison(to, runs, made.pictures, title=title)
  return [plain(f'{run.folder}: {note}') for run in runs for note in run.notes]


def _check_target(to: pathlib.Path) -> None:
  """Makes sure that nothing but an older page is overwritten."""
  if to.is_dir():
    raise WorkdirError(f'{to} is a folder: give an HTML file with --to')
  if not to.exists():
    return
  with explain_disk_errors(to, option='--to'), to.open('rb') as file:
    is_page = PAGE_MARK.encode() in file.read(1024)
  if not is_page:
    raise WorkdirError(
      f'{to} exists and was not written by this command: give another --to'
    )


def _check_run(folder: pathlib.Path) -> None:
  shown = printable(str(folder))
  if not folder.is_dir():
    raise WorkdirError(f'{shown} is not a folder: give the folder of a run')
  parts = ('config.json', METRICS_FILE, 'checkpoints', 'state')
  if not any((folder / each).exists() for each in parts):
    raise WorkdirError(
      f'{shown} is not a run, as it holds no config.json, {METRICS_FILE} or '
      'checkpoints: give the folder of a run'
    )


def _check_pattern(
  pattern: re.Pattern[str] | None, records: Sequence[MetricHistory]
) -> None:
  names = dict.fromkeys(name for each in records for name in each.names)
  if pattern and names and not any(each.curves for each in records):
    raise ConfigError(
      f'--metrics={pattern.pattern!r} fits no metric of these runs: they have '
      f'{", ".join(names)}'
    )


def _read_run(
  folder: pathlib.Path, label: str, pattern: re.Pattern[str] | None
) -> Run:
  """What a run has recorded; what can't be read becomes a note."""
  notes = []
  home, end_step = folder, None
  if (folder / 'state').is_dir() and folder.absolute().name.isdecimal():
    # A checkpoint: its run's records up to its own step.
    home, end_step = folder.absolute().parents[1], int(folder.absolute().name)
  config = None
  try:
    # Of a newer version's run nothing else is to be understood.
    checkpoint.check_format(home / 'checkpoints')
    config = read_config(home)
    if config is None and any(
      (folder / each).is_dir() for each in ('checkpoints', 'state')
    ):
      config = checkpoint.load(folder).config
  except UserError as error:
    notes.append(str(error))
  try:
    records = read_curves(
      home / METRICS_FILE, pattern=pattern, end_step=end_step
    )
  except OSError as error:
    records = MetricHistory({}, [], None, 0)
    notes.append(f'{METRICS_FILE} can not be read ({error.strerror})')
  if count := records.num_damaged:
    notes.append(
      f'{count:,} line{"s" if count > 1 else ""} of {METRICS_FILE} '
      f'{"are no records" if count > 1 else "is no record"} and left out'
    )
  scores = None
  try:
    scores = _read_scores(home, end_step)
  except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
    notes.append(f'its last evaluation can not be read ({error})')
  return Run(label, str(folder), config, records, scores, None, notes)


def _read_scores(home: pathlib.Path, end_step: int | None) -> Scores | None:
  """The newest evaluation of a run that is not after a step."""
  by_step = {
    int(path.stem): path
    for path in (home / 'evaluation').glob('*.json')
    if path.stem.isdecimal()
  }
  steps = [step for step in by_step if end_step is None or step <= end_step]
  if not steps:
    return None
  content = json.loads(by_step[max(steps)].read_text(encoding='utf-8'))
  values = {
    _name(direction, metric): _score(direction, metric, content)
    for direction, rows in content['directions'].items()
    for metric in rows
  }
  return Scores(max(steps), values)


def _name(direction: str, metric: str) -> str:
  """Of a figure on the page, with what is better."""
  name = f'{direction[0]} → {direction[1]} {shown_name(metric)}'
  goal = best_at(f'evaluation/{direction}/{metric}')
  if goal is None or goal == best_at(metric):
    return name
  # Best is another value in each direction, so the metric's name can't tell.
  return f'{name} ↓' if goal == LOWER else f'{name} (best at {goal:g})'


def _basis(metric: str, row: Mapping[str, Any], content: Any) -> Basis:
  """What a figure was judged on, and with."""
  features, palette = content.get('features'), content.get('palette')
  counts = row['translated']['images']
  is_of_sets = len(counts) > 1
  return Basis(
    images=' '.join(str(each['sha256']) for each in content['images'].values()),
    counts=str(counts),
    features=str(features['digest']) if features and is_of_sets else '',
    palette=str(palette) if metric in LABEL_METRICS else '',
  )


def _score(direction: str, metric: str, content: Any) -> Score:
  row = content['directions'][direction][metric]
  made = row['translated']
  beside = [
    f'{name} {_number(row[key])}'
    for key, name in (('copy', 'copy'), ('real', 'real'))
    if row.get(key)
  ]
  counts = ' / '.join(f'{int(count):,}' for count in made['images'])
  name = f'evaluation/{direction}/{metric}'
  value = float(made['value'])
  return Score(
    None if best_at(name) is None else badness(name, value),
    _number(made),
    ' · '.join([*beside, f'{counts} images']),
    _basis(metric, row, content),
  )


def _number(figure: Mapping[str, Any]) -> str:
  spread = figure.get('spread')
  text = f'{float(figure["value"]):.4g}'
  return text if spread is None else f'{text} ± {float(spread):.2g}'
