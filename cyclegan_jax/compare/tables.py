"""The tables of the comparison page, as HTML."""

import base64
import html
import io
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from cyclegan_jax.compare.pictures import Pictures
from cyclegan_jax.compare.runs import Run, Score, ScoreBasis
from cyclegan_jax.config import Config, option_at, option_paths, value_at

_DASH = '&ndash;'  # for what a run does not have
_MAX_SIDE = 384  # of a picture on the page
_LOSSLESS_SIDE = 128  # larger pictures are compressed


def printable_text(text: str) -> str:
  """The text with invisible and bidirectional characters escaped."""
  return ''.join(
    char if char.isprintable() else char.encode('unicode_escape').decode()
    for char in text
  )


def _escape(text: str) -> str:
  return html.escape(printable_text(text))


def _name(run: Run, index: int) -> str:
  """A run's label after a sample of its line."""
  return f'<i class="line l{index}"></i><bdi>{_escape(run.label)}</bdi>'


def legend(runs: Sequence[Run]) -> Iterable[str]:
  """A button for each run, which shows or hides it."""
  for index, run in enumerate(runs):
    yield (
      f'<button aria-pressed="true" data-toggle="{index}" '
      f'title="{_escape(str(run.folder))}">{_name(run, index)}</button>'
    )


def problem_list(runs: Sequence[Run]) -> Iterable[str]:
  """A list item for each problem of a run."""
  for index, run in enumerate(runs):
    for problem in run.problems:
      yield (
        f'<li data-run="{index}">{_name(run, index)}: {_escape(problem)}</li>'
      )


def _head(corner: str, runs: Sequence[Run]) -> str:
  columns = ''.join(
    f'<th scope="col" data-run="{index}">{_name(run, index)}</th>'
    for index, run in enumerate(runs)
  )
  return f'<thead><tr><th scope="col">{corner}</th>{columns}</tr></thead>'


def _row(name: str, texts: Sequence[str], *, help: str = '') -> str:
  """A row of plain texts; '' shows as a dash."""
  cells = ''.join(
    f'<td data-run="{index}">{_escape(text) or _DASH}</td>'
    for index, text in enumerate(texts)
  )
  title = f' title="{_escape(help)}"' if help else ''
  return f'<tr><th scope="row"{title}>{_escape(name)}</th>{cells}</tr>'


def options_table(runs: Sequence[Run]) -> Iterable[str]:
  """Facts about the runs, and the options in which they differ."""
  yield f'<table>{_head("", runs)}<tbody>'
  yield _row('folder', [str(run.folder) for run in runs])
  yield _row('recorded steps', [_recorded_steps(run) for run in runs])
  steps = [run.checkpoint_step for run in runs]
  yield _row(
    'pictures of step', ['' if step is None else f'{step:,}' for step in steps]
  )
  yield '</tbody><tbody>'
  num_configs = sum(run.config is not None for run in runs)
  is_same = True
  for path in option_paths():
    values = [_option_text(run.config, path) for run in runs]
    if len({*values} - {''}) > 1:
      is_same = False
      name = path.removeprefix('config.')
      yield _row(name, values, help=option_at(path).metadata['help'])
  yield '</tbody></table>'
  if num_configs > 1 and is_same:
    yield '<p class="soft">All runs have the same options.</p>'


def _recorded_steps(run: Run) -> str:
  last_step = run.records.last_step
  if last_step is None:
    return 'no records'
  total = run.config.steps if run.config else 0
  return f'{last_step:,} of {total:,}' if total else f'{last_step:,}'


def _option_text(config: Config | None, path: str) -> str:
  """The value of an option; '' without a config."""
  if config is None:
    return ''
  value = value_at(config, path)
  return value if isinstance(value, str) and value else repr(value)


def _way(direction: str, runs: Sequence[Run]) -> str:
  """A direction by the names that all runs have, or by its letters."""
  ways = {run.config.data.way(direction) for run in runs if run.config}
  return ways.pop() if len(ways) == 1 else ' → '.join(direction)


def scores_table(runs: Sequence[Run]) -> Iterable[str]:
  """The scores of each run's last evaluation."""
  score_dicts = [run.scores.values if run.scores else {} for run in runs]
  names = list(dict.fromkeys(name for scores in score_dicts for name in scores))
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
  are_comparable = True
  for name in names:
    row = [scores.get(name) for scores in score_dicts]
    direction, _, metric = name.partition(' ')
    yield _score_row(f'{_way(direction, runs)} {metric}', row)
    are_comparable &= len({score.basis for score in row if score}) == 1
  yield '</tbody></table>'
  if not are_comparable:
    yield (
      '<p class="trouble">Not all scores can be compared: those marked '
      '&ldquo;not comparable&rdquo; were computed otherwise than the first '
      'score of their row. The best score is marked among those that were '
      'computed on the same images, as the networks see them, and in the same '
      'way.</p>'
    )


def _score_row(name: str, row: Sequence[Score | None]) -> str:
  first = next(score.basis for score in row if score)
  cells = []
  for index, score in enumerate(row):
    if score is None:
      cells.append(f'<td data-run="{index}">{_DASH}</td>')
      continue
    difference = _basis_difference(first, score.basis)
    cells.append(
      f'<td data-run="{index}"><span{" class=best" * _is_best(score, row)}>'
      f'{_escape(score.text)}</span>'
      f'<small class="soft">{_escape(score.context)}</small>'
      + f'<small class="trouble">not comparable: {difference}</small>'
      * bool(difference)
      + '</td>'
    )
  return f'<tr><th scope="row">{_escape(name)}</th>{"".join(cells)}</tr>'


def _is_best(score: Score, row: Sequence[Score | None]) -> bool:
  """Whether a score is the best of several of the same basis."""
  ranked = [
    other.badness
    for other in row
    if other and other.basis == score.basis and other.badness is not None
  ]
  return len(ranked) > 1 and score.badness == min(ranked)


def _basis_difference(first: ScoreBasis, other: ScoreBasis) -> str:
  """In what two bases differ; '' if they are equal."""
  differences = []
  if first.images != other.images:
    differences.append('other images')
  elif first.counts != other.counts:
    differences.append('other numbers of images')
  if first.features != other.features:
    differences.append('other features')
  if first.palette != other.palette:
    differences.append('another palette')
  return ', '.join(differences)


def picture_table(pictures: Pictures, runs: Sequence[Run]) -> Iterable[str]:
  """The test images of one direction: a row an image, a column a run."""
  way = _escape(_way(pictures.direction, runs))
  yield f'<div><h3>{way}</h3><div class="card scroll">'
  yield f'<table class="pictures">{_head("input", runs)}<tbody>'
  for row, name in enumerate(pictures.names):
    short_name = name.replace('\\', '/').rsplit('/', 1)[-1]
    yield f'<tr><td{_picture_cell(pictures.inputs[row], "input", name)}'
    yield f'<p class="soft" title="{_escape(name)}"><bdi>'
    yield f'{_escape(short_name)}</bdi></p></td>'
    for index, column in enumerate(pictures.outputs):
      if not isinstance(column, str):
        cell = _picture_cell(column[row], runs[index].label, name)
        yield f'<td data-run="{index}"{cell}</td>'
      elif row == 0:
        yield f'<td data-run="{index}" rowspan="{len(pictures.names)}"'
        yield f'{_picture_cell(column, "", "")}</td>'
    yield '</tr>'
  yield '</tbody></table></div></div>'


def _picture_cell(picture: np.ndarray | str, maker: str, name: str) -> str:
  """The end of a cell's tag, and a picture or why there is none."""
  if isinstance(picture, str):
    return f' class="trouble"><span>{_escape(picture)}</span>'
  text = _escape(f'{maker}: {name}')
  height, width = picture.shape[:2]
  small = ' class="small"' * (max(height, width) <= _LOSSLESS_SIDE)
  # A click enlarges the picture.
  return (
    f'><button class="picture"><img{small} src="{_data_url(picture)}" '
    f'alt="{text}" width="{width}" height="{height}"></button>'
  )


def _data_url(pixels: np.ndarray) -> str:
  """uint8 [h, w, 3] as an address that holds the picture itself."""
  picture = Image.fromarray(pixels)
  picture.thumbnail((_MAX_SIDE, _MAX_SIDE), Image.Resampling.LANCZOS)
  file = io.BytesIO()
  is_small = max(picture.size) <= _LOSSLESS_SIDE
  picture.save(file, 'WEBP', lossless=is_small, quality=80 if is_small else 95)
  return f'data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}'
