"""What the comparison page holds of runs, and its tables of them as HTML."""

import base64
import html
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from cyclegan_jax.config import (
  Config,
  differences,
  option_at,
  option_paths,
  value_at,
)
from cyclegan_jax.report.metric_history import MetricHistory

_DASH = '&ndash;'  # for what a run does not have
_MAX_SIDE = 384  # of a picture on the page
_LOSSLESS_SIDE = 128  # up to which no pixel is changed


class Basis(NamedTuple):
  """What figures must have in common to be compared.

  Attributes:
    images: changes with the images that were judged, as the networks see them.
    counts: of the images that the figure came from.
    features: of the network in whose features sets are compared; '' for none.
    palette: of label maps; '' for none.
  """

  images: str
  counts: str
  features: str = ''
  palette: str = ''


class Score(NamedTuple):
  """A figure of an evaluation.

  Attributes:
    badness: the lower the better; None where nothing is known to be better.
    text: of the figure, with its spread where it has one.
    beside: what puts it in its place: the baselines, the number of images.
    basis: only figures of an equal one are ranked.
  """

  badness: float | None
  text: str
  beside: str
  basis: Basis


class Scores(NamedTuple):
  """All figures of a run's evaluation.

  Attributes:
    step: of the run.
    values: by the name that the page shows.
  """

  step: int
  values: Mapping[str, Score]


class Run(NamedTuple):
  """What the page tells of a run.

  Attributes:
    label: its name on the page, unlike the other runs'.
    folder: as the user named it.
    config: None where it is not known.
    records: its curves.
    scores: the last ones; None where it was never evaluated.
    checkpoint_step: of what its pictures were made with; None for none.
    notes: what is wrong with it, a sentence each.
  """

  label: str
  folder: str
  config: Config | None
  records: MetricHistory
  scores: Scores | None = None
  checkpoint_step: int | None = None
  notes: Sequence[str] = ()


class Pictures(NamedTuple):
  """Test images of one side, and each run's translations of them.

  Attributes:
    direction: 'ab' or 'ba'.
    names: of the test images.
    inputs: uint8 [h, w, 3] each, or why there is none.
    outputs: by run, by image: likewise; a text alone where a run has none.
  """

  direction: str
  names: Sequence[str]
  inputs: Sequence[np.ndarray | str]
  outputs: Sequence[Sequence[np.ndarray | str] | str]


def _name(run: Run, index: int) -> str:
  """A run's label behind the sample of its line."""
  label = _text(run.label)
  return f'<i class="line l{index}"></i><bdi>{label}</bdi>'


def plain(text: str) -> str:
  """The text with what can't be seen, or turns what follows, spelt out."""
  return ''.join(
    each if each.isprintable() else each.encode('unicode_escape').decode()
    for each in text
  )


def _text(text: str) -> str:
  return html.escape(plain(text))


def legend(runs: Sequence[Run]) -> Iterable[str]:
  """A button a run, by which it is shown or hidden."""
  for index, run in enumerate(runs):
    yield (
      f'<button aria-pressed="true" data-toggle="{index}" '
      f'title="{_text(run.folder)}">{_name(run, index)}</button>'
    )


def notes(runs: Sequence[Run]) -> Iterable[str]:
  """An item for each thing that is wrong with a run."""
  for index, run in enumerate(runs):
    for note in run.notes:
      yield (f'<li data-run="{index}">{_name(run, index)}: {_text(note)}</li>')


def _head(first: str, runs: Sequence[Run]) -> str:
  columns = ''.join(
    f'<th scope="col" data-run="{index}">{_name(run, index)}</th>'
    for index, run in enumerate(runs)
  )
  return f'<thead><tr><th scope="col">{first}</th>{columns}</tr></thead>'


def _row(name: str, cells: Sequence[str], *, help: str = '') -> str:
  """A row of plain texts; '' is shown as a dash."""
  shown = ''.join(
    f'<td data-run="{index}">{_text(cell) or _DASH}</td>'
    for index, cell in enumerate(cells)
  )
  title = f' title="{_text(help)}"' if help else ''
  return f'<tr><th scope="row"{title}>{_text(name)}</th>{shown}</tr>'


def options_table(runs: Sequence[Run]) -> Iterable[str]:
  """The runs themselves, and the options in which they differ."""
  yield f'<table>{_head("", runs)}<tbody>'
  yield _row('folder', [run.folder for run in runs])
  yield _row('recorded steps', [_progress(run) for run in runs])
  yield _row(
    'pictures of step',
    ['' if (at := run.checkpoint_step) is None else f'{at:,}' for run in runs],
  )
  yield '</tbody><tbody>'
  configs = [run.config for run in runs]
  known = [config for config in configs if config is not None]
  paths = {path for other in known[1:] for path in differences(known[0], other)}
  for path in sorted(paths, key=option_paths().index):
    yield _row(
      path.removeprefix('config.'),
      [
        '' if each is None else _shown(value_at(each, path)) for each in configs
      ],
      help=option_at(path).metadata['help'],
    )
  yield '</tbody></table>'
  if len(known) > 1 and not paths:
    yield '<p class="soft">The same options in all runs.</p>'


def _progress(run: Run) -> str:
  done = run.records.last_step
  if done is None:
    return 'no records'
  total = run.config.steps if run.config else 0
  return f'{done:,} of {total:,}' if total else f'{done:,}'


def _shown(value: Any) -> str:
  return value if isinstance(value, str) and value else repr(value)


def scores_table(runs: Sequence[Run]) -> Iterable[str]:
  """The last scores of each run."""
  names = list(
    dict.fromkeys(
      name for run in runs if run.scores for name in run.scores.values
    )
  )
  if not names:
    yield '<p class="soft">None: <code>cyclegan evaluate RUN</code> makes them.'
    yield '</p>'
    return
  names.sort(key=lambda name: name.partition(' ')[0])  # by direction
  yield f'<table class="numbers">{_head("", runs)}<tbody>'
  yield _row(
    'at step', [f'{run.scores.step:,}' if run.scores else '' for run in runs]
  )
  yield '</tbody><tbody>'
  rows = [
    [run.scores.values.get(name) if run.scores else None for run in runs]
    for name in names
  ]
  for name, values in zip(names, rows, strict=True):
    yield _score_row(name, values)
  yield '</tbody></table>'
  if any(len(bases) > 1 for bases in map(_bases, rows)):
    yield (
      '<p class="trouble">Not all figures can be compared: those under which '
      '&ldquo;not comparable&rdquo; stands were judged otherwise than the '
      'first of their row. The best is marked among those alone that were '
      'judged on the same images, as the networks see them, and in the same '
      'way.</p>'
    )


def _bases(values: Sequence[Score | None]) -> list[Basis]:
  """The different ones of a row, the first run's first."""
  return list(dict.fromkeys(each.basis for each in values if each))


def _score_row(name: str, values: Sequence[Score | None]) -> str:
  bases = _bases(values)
  best = {basis: _best(values, basis) for basis in bases}
  cells = []
  for index, each in enumerate(values):
    if each is None:
      cells.append(f'<td data-run="{index}">{_DASH}</td>')
      continue
    is_best = each.badness is not None and each.badness == best[each.basis]
    other = _other_basis(bases[0], each.basis)
    cells.append(
      f'<td data-run="{index}"><span{" class=best" if is_best else ""}>'
      f'{_text(each.text)}</span>'
      f'<small class="soft">{_text(each.beside)}</small>'
      + (
        f'<small class="trouble">not comparable: {other}</small>' * bool(other)
      )
      + '</td>'
    )
  return f'<tr><th scope="row">{_text(name)}</th>{"".join(cells)}</tr>'


def _best(values: Sequence[Score | None], basis: Basis) -> float | None:
  """The best of the figures of one basis, if there are several."""
  ranked = [
    each.badness
    for each in values
    if each
    and each.basis == basis
    and each.badness is not None
    and each.badness < math.inf  # which NaN is not, either
  ]
  return min(ranked) if len(ranked) > 1 else None


def _other_basis(first: Basis, other: Basis) -> str:
  """In what two differ; '' where they are equal."""
  names = {
    'images': 'other images',
    'counts': 'other numbers of images',
    'features': 'other features',
    'palette': 'another palette',
  }
  found = [
    text
    for name, text in names.items()
    if getattr(first, name) != getattr(other, name)
  ]
  # Of other images the numbers say nothing more.
  if first.images != other.images and first.counts != other.counts:
    found.remove(names['counts'])
  return ', '.join(found)


def picture_grid(pictures: Pictures, runs: Sequence[Run]) -> Iterable[str]:
  """The test images of one direction: a row an image, a column a run."""
  source, target = pictures.direction[0], pictures.direction[1]
  yield f'<div><h3>{source} → {target}</h3><div class="card scroll">'
  yield f'<table class="pictures">{_head("input", runs)}<tbody>'
  for row, name in enumerate(pictures.names):
    short = name.replace('\\', '/').rsplit('/', 1)[-1]
    yield f'<tr><td{_cell(pictures.inputs[row], "input", name)}'
    yield f'<p class="soft" title="{_text(name)}"><bdi>'
    yield f'{_text(short)}</bdi></p></td>'
    for index, column in enumerate(pictures.outputs):
      if not isinstance(column, str):
        cell = _cell(column[row], runs[index].label, name)
        yield f'<td data-run="{index}"{cell}</td>'
      elif row == 0:
        yield f'<td data-run="{index}" rowspan="{len(pictures.names)}"'
        yield f'{_cell(column, "", "")}</td>'
    yield '</tr>'
  yield '</tbody></table></div></div>'


def _cell(made: np.ndarray | str, by: str, name: str) -> str:
  """The rest of a cell's tag and what is in it: a picture, or why not."""
  if isinstance(made, str):
    return f' class="trouble"><span>{_text(made)}</span>'
  return f'>{_picture(made, by, name)}'


def _picture(image: np.ndarray, by: str, name: str) -> str:
  """A button with the picture in it, by which it is enlarged."""
  text = _text(f'{by}: {name}')
  height, width = image.shape[:2]
  small = ' class="small"' if max(height, width) <= _LOSSLESS_SIDE else ''
  return (
    f'<button class="picture"><img{small} src="{_data_url(image)}" '
    f'alt="{text}" width="{width}" height="{height}"></button>'
  )


def _data_url(image: np.ndarray) -> str:
  """uint8 [h, w, 3] as an address that holds the picture itself."""
  picture = Image.fromarray(image)
  picture.thumbnail((_MAX_SIDE, _MAX_SIDE), Image.Resampling.LANCZOS)
  file = io.BytesIO()
  is_small = max(picture.size) <= _LOSSLESS_SIDE
  picture.save(file, 'WEBP', lossless=is_small, quality=80 if is_small else 95)
  return f'data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}'
