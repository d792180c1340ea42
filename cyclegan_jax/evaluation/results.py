"""Results of an evaluation, as JSON for programs and tables for people.

Each score is shown with the number of images behind it and next to two
baselines: the untranslated copy, and real images against real ones.
"""

import dataclasses
import hashlib
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cyclegan_jax.config import DataConfig
from cyclegan_jax.evaluation.image_set import ImageSet
from cyclegan_jax.metrics.goals import HIGHER, LOWER, best_at
from cyclegan_jax.report.metric_writer import json_number

EVALUATION_FOLDER = 'evaluation'  # in the folder of a run

_TITLE = 'Evaluation'
_ARROWS: dict[float | None, str] = {LOWER: ' ↓', HIGHER: ' ↑'}
_UNITS = {'psnr': 'dB'}


class Figure(NamedTuple):
  """A score with its uncertainty.

  Attributes:
    value: the score; infinite or NaN where the metric is.
    images: number of images behind it, or the numbers of two sets.
    spread: standard deviation over subsets, if the metric has one.
  """

  value: float
  images: tuple[int, ...]
  spread: float | None = None

  def __str__(self) -> str:
    counts = ' / '.join(f'{n:,}' for n in self.images)
    return f'{_number(self.value, self.spread)} ({counts})'

  def to_json(self) -> dict[str, Any]:
    """A JSON object; infinities and NaN are strings."""
    content = {'value': json_number(self.value), 'images': self.images}
    if self.spread is not None:
      content['spread'] = json_number(self.spread)
    return content


class Row(NamedTuple):
  """A metric of one direction.

  Attributes:
    direction: 'ab' or 'ba'.
    metric: name of the metric, as in a run's metrics.
    translated: score of the translations.
    copy: score of the untranslated images; None if it has no meaning.
    real: score of real images against real ones; None likewise.
    sources: which images were compared, as in 'test_a translated, test_b'.
  """

  direction: str
  metric: str
  translated: Figure
  copy: Figure | None
  real: Figure | None
  sources: str


def scores_line(
  step: int, metrics: Mapping[str, float], data: DataConfig
) -> str:
  """The scores among a run's metrics in a line; '' if there are none.

  Args:
    step: step of the metrics.
    metrics: metrics by name, as of `Evaluation.metrics`.
    data: config of the images, for their names.
  """
  texts = []
  for direction in ('ab', 'ba'):
    prefix = f'evaluation/{direction}/'
    scores = [
      f'{name.removeprefix(prefix)} {value:.4g}'
      for name, value in metrics.items()
      if name.startswith(prefix) and not name.endswith('_std')
    ]
    texts += [f'{data.way(direction)}: {", ".join(scores)}'] if scores else []
  return f'step {step:,}: {"; ".join(texts)}' if texts else ''


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """All scores of a checkpoint.

  Attributes:
    rows: the scores, metric by metric.
    images: the test images by domain, from `describe_images`.
    notes: sentences that explain the table.
    facts: further facts for the JSON file.
    data: config of the images, for their names.
  """

  rows: tuple[Row, ...]
  images: Mapping[str, Mapping[str, Any]]
  notes: tuple[str, ...]
  facts: Mapping[str, Any]
  data: DataConfig

  @property
  def failures(self) -> tuple[str, ...]:
    """A message for each unreadable image."""
    return tuple(
      message for used in self.images.values() for message in used['failures']
    )

  def metrics(self) -> dict[str, float]:
    """The translations' scores by name: {'evaluation/ab/kid': 0.1}."""
    metrics = {}
    for row in self.rows:
      name = f'evaluation/{row.direction}/{row.metric}'
      metrics[name] = row.translated.value
      if row.translated.spread is not None:
        metrics[f'{name}_std'] = row.translated.spread
    return metrics

  def files(self, step: int, *, stem: str = '') -> dict[str, str]:
    """The content of the files <step>.json and <step>.md, by name.

    Args:
      step: step of the checkpoint.
      stem: replaces the step in the names.
    """
    content = json.dumps(
      {'step': step, **self.to_json()}, indent=2, allow_nan=False
    )
    stem = stem or str(step)
    return {
      f'{stem}.json': f'{content}\n',
      f'{stem}.md': self.to_markdown(title=f'{_TITLE} at step {step:,}'),
    }

  def to_json(self) -> dict[str, Any]:
    """A JSON object; infinities and NaN are strings."""
    directions: dict[str, Any] = {'ab': {}, 'ba': {}}
    for row in self.rows:
      directions[row.direction][row.metric] = {
        'translated': row.translated.to_json(),
        'copy': row.copy and row.copy.to_json(),
        'real': row.real and row.real.to_json(),
        'sources': row.sources,
      }
    return {
      **self.facts,
      'images': self.images,
      'directions': directions,
      'notes': self.notes,
    }

  def to_markdown(self, *, title: str = _TITLE) -> str:
    """The table, the notes and the test images."""
    lines = [f'# {title}', '', *self.table(), '']
    lines += [f'- {_escaped(note)}' for note in self.notes]
    for used in self.images.values():
      where = f' in {used["root"]}' if used['root'] else ''
      text = (
        f'{used["split"]}: {used["num_read"]:,} of {used["num_all"]:,} '
        f'images{where}, sha256 {used["sha256"][:12]}'
      )
      if used['failures']:
        text += f'; {len(used["failures"]):,} unreadable:'
      lines.append(f'- {_escaped(text)}')
      lines += [f'  - {_escaped(message)}' for message in used['failures']]
    return '\n'.join([*lines, ''])

  def table(self) -> list[str]:
    """The lines of the Markdown table."""
    cells = [
      (
        self.data.way(row.direction),
        shown_name(row.metric),
        str(row.translated),
        str(row.copy or '-'),
        str(row.real or '-'),
        row.sources,
      )
      for row in self.rows
    ]
    heads = (
      'direction',
      'metric',
      'translated',
      'copy',
      'real vs real',
      'images',
    )
    return _markdown_table(heads, cells)


def is_evaluation(path: pathlib.Path) -> bool:
  """Whether a .json or .md file was written from `Evaluation.files`."""
  try:
    text = path.read_text(encoding='utf-8')
    if path.suffix != '.json':
      return text.startswith(f'# {_TITLE}')
    return {'step', 'directions', 'notes'} <= json.loads(text).keys()
  except (OSError, ValueError, AttributeError, RecursionError):
    return False


def read_scores(run: pathlib.Path, step: int) -> str:
  """The table and the notes of an evaluation of a run, as Markdown.

  The folders of the images, which its file also names, are left out.

  Args:
    run: folder of the run.
    step: step of the evaluated checkpoint.

  Returns:
    '' if it was not evaluated, or its files cannot be read.
  """
  path = run / EVALUATION_FOLDER / f'{step}.json'
  try:
    notes = json.loads(path.read_text(encoding='utf-8'))['notes']
    text = path.with_suffix('.md').read_text(encoding='utf-8')
  except (OSError, ValueError, LookupError, TypeError):
    return ''
  table = [line for line in text.splitlines() if line.startswith('|')]
  return '\n'.join(
    [*table, '', *(f'- {_escaped(str(note))}' for note in notes)]
  )


def read_values(run: pathlib.Path, step: int) -> dict[tuple[str, str], float]:
  """The finite scores of the translations in an evaluation of a run.

  Args:
    run: folder of the run.
    step: step of the evaluated checkpoint.

  Returns:
    Scores by (direction, metric); {} if it was not evaluated, or its file
    cannot be read.
  """
  path = run / EVALUATION_FOLDER / f'{step}.json'
  try:
    directions = json.loads(path.read_text(encoding='utf-8'))['directions']
    values = {
      (direction, metric): row['translated']['value']
      for direction, rows in directions.items()
      for metric, row in rows.items()
    }
  except (OSError, ValueError, LookupError, TypeError, AttributeError):
    return {}
  # Those that are not finite are strings.
  return {
    name: float(value)
    for name, value in values.items()
    if isinstance(value, int | float) and math.isfinite(value)
  }


def describe_images(images: ImageSet) -> dict[str, Any]:
  """Identifies a set of test images.

  Returns:
    {'split': as of `ImageSet`, 'num_read': number of readable images that
    were chosen, 'num_all': number of all images of the split, 'root': their
    folder, 'sha256': hash of the pixels as the networks see them, 'failures':
    a message for each unreadable image}.
  """
  return {
    'split': images.split,
    'num_read': len(images),
    'num_all': len(images.all_images),
    'root': images.root,
    'sha256': hashlib.sha256(b''.join(images.digests)).hexdigest(),
    'failures': tuple(images.failures),
  }


def shown_name(metric: str) -> str:
  """A metric's name with its unit, and an arrow toward better values."""
  unit = f' ({_UNITS[metric]})' if metric in _UNITS else ''
  return f'{metric}{unit}{_ARROWS.get(best_at(metric), "")}'


def history_table(
  records: Sequence[Mapping[str, float]], data: DataConfig
) -> list[str]:
  """Lines of a Markdown table of all evaluations of a run.

  Args:
    records: records of `read_metrics`, the newest last; those without an
      evaluation are skipped.
    data: config of the images, for their names.
  """
  evaluated = [
    record
    for record in records
    if any(name.startswith('evaluation/') for name in record)
  ]
  names = dict.fromkeys(
    name
    for record in evaluated
    for name in record
    if name.startswith('evaluation/') and not name.endswith('_std')
  )
  rows = [
    (
      f'{int(record["step"]):,}',
      *(
        _number(record[name], record.get(f'{name}_std'))
        if name in record
        else '-'
        for name in names
      ),
    )
    for record in evaluated
  ]
  heads = ['step']
  for name in names:
    _, direction, metric = name.split('/')
    heads.append(f'{data.way(direction)} {shown_name(metric)}')
  return _markdown_table(heads, rows)


def _markdown_table(
  heads: Sequence[str], rows: Sequence[Sequence[str]]
) -> list[str]:
  """Lines of a table with aligned columns."""
  table = [[_escaped(cell) for cell in row] for row in (heads, *rows)]
  widths = [max(map(len, column)) for column in zip(*table, strict=True)]
  table.insert(1, ['-' * width for width in widths])
  return [f'| {" | ".join(map(str.ljust, row, widths))} |' for row in table]


def _number(value: float, spread: float | None) -> str:
  return f'{value:.4g}' if spread is None else f'{value:.4g} ± {spread:.2g}'


def _escaped(text: str) -> str:
  return text.replace('|', '\\|').replace('\n', ' ')
