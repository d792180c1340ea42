"""Runs beside each other on one page: options, curves, scores, pictures.

The page holds the pictures too and refers to nothing else.
"""

from collections.abc import Sequence
from pathlib import Path

from cyclegan_jax.compare.tables import (
  Pictures,
  Run,
  legend,
  notes,
  options_table,
  picture_grid,
  plain,
  scores_table,
)
from cyclegan_jax.report.html_page import (
  chart_data,
  write_page,
)

PAGE_MARK = '<meta name="generator" content="cyclegan compare">'
_POLICY = (
  '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
  "img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">"
)


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
  curves = [
    (name, {'run': index}, curve)
    for index, run in enumerate(runs)
    for name, curve in run.records.curves.items()
  ]
  write_page(
    path,
    'comparison',
    parts,
    {'runs': [plain(run.label) for run in runs], **chart_data(curves)},
    title=plain(title),
    status=_summary(runs, pictures),
    shared=['charts'],
    head=f'{PAGE_MARK}\n{_POLICY}\n',
  )


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
