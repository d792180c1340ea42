"""What an evaluation found, for programs and for people.

Every figure stands with the number of images that it came from, and beside
the two that put it in its place: the untranslated copy, and real images
against real ones.
"""

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from cyclegan_jax.evaluation.image_set import ImageSet
from cyclegan_jax.metrics.goals import (
  HIGHER,
  LOWER,
  best_at,
)

_ARROWS: dict[float | None, str] = {LOWER: ' ↓', HIGHER: ' ↑'}
_UNITS = {'psnr': 'dB'}


class Figure(NamedTuple):
  """A number, and how much of it is chance.

  Attributes:
    value: of the metric; infinite where, say, two images are equal.
    images: how many it came from: one count, or one of each of two sets.
    spread: standard deviation over subsets, where the metric has one.
  """

  value: float
  images: tuple[int, ...]
  spread: float | None = None

  def __str__(self) -> str:
    text = f'{self.value:.4g}'
    if self.spread is not None:
      text += f' ± {self.spread:.2g}'
    return f'{text} ({" / ".join(f"{n:,}" for n in self.images)})'


class Row(NamedTuple):
  """A metric in one direction.

  Attributes:
    direction: 'ab' or 'ba'.
    metric: its name, as in the records of a run.
    translated: of the translations.
    copy: of the source's images as they are; None where that says nothing.
    real: of real images against real ones, likewise.
    sources: which images: 'test_a translated, test_b'.
  """

  direction: str
  metric: str
  translated: Figure
  copy: Figure | None
  real: Figure | None
  sources: str


class ImagesUsed(NamedTuple):
  """Which images of a domain were taken.

  Attributes:
    split: 'test_a'; 'train_a' where its training images took their place.
    num_read: of images that could be read, and were chosen.
    num_all: of images in the split.
    root: the folder that they lie in; '' for no files.
    sha256: of their pixels as the networks see them.
    failures: a message for each that could not be read.
  """

  split: str
  num_read: int
  num_all: int
  root: str
  sha256: str
  failures: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """All figures of both directions.

  Attributes:
    rows: metric by metric.
    images: by domain.
    notes: what a reader has to know, a sentence each.
    facts: more about how it was done, as JSON takes it.
  """

  rows: tuple[Row, ...]
  images: Mapping[str, ImagesUsed]
  notes: tuple[str, ...]
  facts: Mapping[str, Any]

  @property
  def failures(self) -> tuple[str, ...]:
    """A message for each image that could not be read."""
    return tuple(
      message for used in self.images.values() for message in used.failures
    )

  def flat(self) -> dict[str, float]:
    """The translations' figures by name: {'evaluation/ab/kid': 0.1}."""
    flat = {}
    for row in self.rows:
      name = f'evaluation/{row.direction}/{row.metric}'
      flat[name] = row.translated.value
      if row.translated.spread is not None:
        flat[f'{name}_std'] = row.translated.spread
    return flat

  def to_json(self) -> dict[str, Any]:
    """All of it as JSON takes it; infinities and NaN are strings."""
    directions: dict[str, Any] = {'ab': {}, 'ba': {}}
    for row in self.rows:
      figures = {'translated': row.translated, 'copy': row.copy}
      directions[row.direction][row.metric] = {
        **{
          name: figure and _figure_to_json(figure)
          for name, figure in {**figures, 'real': row.real}.items()
        },
        'sources': row.sources,
      }
    return {
      **self.facts,
      'images': {d: used._asdict() for d, used in self.images.items()},
      'directions': directions,
      'notes': list(self.notes),
    }

  def to_markdown(self, *, title: str = 'Evaluation') -> str:
    """A table for people, with all that is to be known beside it."""
    lines = [f'# {title}', '', *self.table(), '']
    lines += [f'- {_escaped(note)}' for note in self.notes]
    for used in self.images.values():
      lines.append(f'- {_escaped(_describe(used))}')
      lines += [f'  - {_escaped(message)}' for message in used.failures]
    return '\n'.join([*lines, ''])

  def table(self) -> list[str]:
    """The table's lines, in Markdown."""
    cells = [
      (
        f'{row.direction[0]} → {row.direction[1]}',
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
    return list(markdown_table(heads, cells))


def describe_images(images: ImageSet) -> ImagesUsed:
  """What there is to say of a set of images."""
  return ImagesUsed(
    split=images.split,
    num_read=len(images),
    num_all=images.num_all,
    root=images.root,
    sha256=hashlib.sha256(b''.join(images.digests)).hexdigest(),
    failures=tuple(images.failures),
  )


def shown_name(metric: str) -> str:
  """The name of a metric with its unit, and an arrow to where it is better."""
  unit = f' ({_UNITS[metric]})' if metric in _UNITS else ''
  return f'{metric}{unit}{_ARROWS.get(best_at(metric), "")}'


def history_table(records: Sequence[Mapping[str, float]]) -> list[str]:
  """A run's evaluations, the newest last, as lines of Markdown.

  Args:
    records: as `read_metrics` gives them, of any steps; those without an
      evaluation are passed over.
  """
  found = [
    record
    for record in records
    if any(name.startswith('evaluation/') for name in record)
  ]
  names = dict.fromkeys(
    name
    for record in found
    for name in record
    if name.startswith('evaluation/') and not name.endswith('_std')
  )
  rows = [
    (f'{int(record["step"]):,}', *(_value(record, name) for name in names))
    for record in found
  ]
  heads = ['step']
  for name in names:
    _, direction, metric = name.split('/')
    heads.append(f'{direction[0]} → {direction[1]} {shown_name(metric)}')
  return list(markdown_table(heads, rows))


def markdown_table(
  heads: Sequence[str], rows: Sequence[Sequence[str]]
) -> Iterator[str]:
  """Lines of a table whose columns stand straight as plain text too."""
  table = [[_escaped(cell) for cell in row] for row in (heads, *rows)]
  columns = zip(*table, strict=True)
  widths = [max(len(cell) for cell in column) for column in columns]
  for number, row in enumerate(table):
    padded = (f'{cell:{n}}' for cell, n in zip(row, widths, strict=True))
    yield f'| {" | ".join(padded)} |'
    if number == 0:
      yield f'|{"|".join("-" * (width + 2) for width in widths)}|'


def _value(record: Mapping[str, float], name: str) -> str:
  if name not in record:
    return '-'
  std = record.get(f'{name}_std')
  spread = '' if std is None else f' ± {std:.2g}'
  return f'{record[name]:.4g}{spread}'


def _figure_to_json(figure: Figure) -> dict[str, Any]:
  content: dict[str, Any] = {
    'value': finite_or_text(figure.value),
    'images': list(figure.images),
  }
  if figure.spread is not None:
    content['spread'] = finite_or_text(figure.spread)
  return content


def finite_or_text(value: float) -> float | str:
  """The number, or as JSON has none for it 'NaN', 'Infinity', '-Infinity'."""
  if math.isfinite(value):
    return value
  if math.isnan(value):
    return 'NaN'
  return 'Infinity' if value > 0 else '-Infinity'


def _describe(used: ImagesUsed) -> str:
  where = f' in {used.root}' if used.root else ''
  text = (
    f'{used.split}: {used.num_read:,} of {used.num_all:,} images{where}, '
    f'sha256 {used.sha256[:12]}'
  )
  failed = len(used.failures)
  return f"{text}; {failed:,} can't be read:" if failed else text


def _escaped(text: str) -> str:
  return text.replace('|', '\\|').replace('\n', ' ')
