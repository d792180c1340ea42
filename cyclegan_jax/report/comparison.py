"""Runs beside each other on one page: options, curves, scores, pictures.

The page is one file that holds its own styles, script, numbers and pictures
and refers to nothing else, so that it opens from a disk and can be sent.
"""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cyclegan_jax.atomic import replace_text
from cyclegan_jax.report.curves import Curve
from cyclegan_jax.report.page import compact, fill
from cyclegan_jax.report.run_tables import (
  Pictures,
  Run,
  legend,
  notes,
  options_table,
  picture_grid,
  plain,
  scores_table,
)

PAGE_MARK = '<meta name="generator" content="cyclegan compare">'


def write_comparison(
  path: Path, runs: Sequence[Run], pictures: Sequence[Pictures], *, title: str
) -> None:
  """Writes the page whole, or not at all.

  Args:
    path: of the HTML file.
    runs: in the order of the columns; names and texts are plain.
    pictures: of both directions, or of none.
    title: the page's heading.

  Raises:
    OSError: it can't be written.
  """
  parts = {
    'mark': PAGE_MARK,
    'title': html.escape(plain(title)),
    'summary': html.escape(_summary(runs, pictures)),
    'legend': ''.join(legend(runs)),
    'notes': ''.join(notes(runs)),
    'options': ''.join(options_table(runs)),
    'scores': ''.join(scores_table(runs)),
    'pictures': ''.join(
      part for each in pictures for part in picture_grid(each, runs)
    ),
    'pictures_hidden': '' if pictures else ' hidden',
    'cell': str(_cell_size(pictures)),
  }
  replace_text(path, fill('comparison.html', parts, _chart_data(runs)))


def shortest_labels(paths: Sequence[Path]) -> list[str]:
  """The shortest end of each path that no other path ends in.

  Args:
    paths: absolute, all different.
  """
  labels = []
  for path in paths:
    others = [other.parts for other in paths if other != path]
    for count in range(1, len(path.parts) + 1):
      end = path.parts[-count:]
      if all(other[-count:] != end for other in others):
        break
    labels.append(str(Path(*end)))
  return labels


def _summary(runs: Sequence[Run], pictures: Sequence[Pictures]) -> str:
  names = {name for run in runs for name in run.records.curves}
  num_images = sum(len(each.names) for each in pictures)
  counts = [
    (len(runs), 'run'),
    (len(names), 'curve'),
    (num_images, 'test image'),
  ]
  return ' · '.join(
    f'{count:,} {noun}{"" if count == 1 else "s"}' for count, noun in counts
  )


def _cell_size(pictures: Sequence[Pictures]) -> int:
  """Pixels of a picture in the tables: small ones are shown twice as large."""
  largest = max(
    (
      max(image.shape)
      for each in pictures
      for image in each.inputs
      if not isinstance(image, str)
    ),
    default=0,
  )
  return 128 if largest <= 128 else 192


def _chart_data(runs: Sequence[Run]) -> dict[str, Any]:
  """One chart a metric, one curve a run that has it; lists of steps once."""
  steps: list[list[int]] = []
  places: dict[tuple[int, ...], int] = {}
  charts: dict[str, list[dict[str, Any]]] = {}
  for index, run in enumerate(runs):
    for name, curve in run.records.curves.items():
      at = places.setdefault(tuple(curve.steps), len(steps))
      if at == len(steps):
        steps.append(curve.steps)
      entry = {'run': index, 'x': at, **_curve_data(curve)}
      charts.setdefault(name, []).append(entry)
  return {
    'runs': [plain(run.label) for run in runs],
    'steps': steps,
    'charts': [
      {'name': name, 'curves': curves} for name, curves in charts.items()
    ],
  }


def _curve_data(curve: Curve) -> dict[str, Any]:
  data: dict[str, Any] = {
    'y': [compact(value) for value in curve.means],
    'last': compact(curve.last),
  }
  if curve.lows != curve.means or curve.highs != curve.means:
    data['low'] = [compact(value) for value in curve.lows]
    data['high'] = [compact(value) for value in curve.highs]
  if curve.not_finite:
    data['odd'] = curve.not_finite
  return data
