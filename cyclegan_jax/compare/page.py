"""Runs side by side on one page: options, scores, pictures and curves.

The page contains its pictures and refers to no other file.
"""

import pathlib
import re
from collections.abc import Sequence

from cyclegan_jax.compare.pictures import Pictures, make_pictures
from cyclegan_jax.compare.runs import Run, check_is_run, read_run
from cyclegan_jax.compare.tables import (
  legend,
  options_table,
  picture_table,
  printable_text,
  problem_list,
  scores_table,
)
from cyclegan_jax.errors import ConfigError, WorkdirError
from cyclegan_jax.report.html_page import (
  chart_data,
  is_page_of,
  write_page,
)
from cyclegan_jax.storage.disk_errors import explain_disk_errors

_CONTENT_POLICY = (
  '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
  "img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">"
)


def compare_runs(
  folders: Sequence[pathlib.Path],
  to: pathlib.Path,
  *,
  num_images: int = 6,
  data: pathlib.Path | None = None,
  metrics: re.Pattern[str] | None = None,
  overwrite: bool = False,
) -> list[str]:
  """Writes one HTML page about several runs.

  Args:
    folders: of runs, or of their checkpoints; repeated folders count once.
    to: the page.
    num_images: test images of each domain; 0 for none, which reads no
      checkpoint.
    data: a folder, or a .zip, of images to translate, with testA and testB or
      trainA and trainB in it where the domains differ; by default the test
      images of the first run that can read its own.
    metrics: names of the curves; None for all.
    overwrite: whether to replace a file that is no comparison.

  Returns:
    A message for each thing that the page says is missing.

  Raises:
    UserError: a folder is not a run's, the page cannot be written, or `data`
      or `metrics` match nothing.
  """
  _check_target(to, overwrite=overwrite)
  folders = list({folder.resolve(): folder for folder in folders}.values())
  for folder in folders:
    check_is_run(folder)
  labels = shortest_labels([folder.absolute() for folder in folders])
  runs = [
    read_run(folder, label, metrics)
    for folder, label in zip(folders, labels, strict=True)
  ]
  names = dict.fromkeys(name for run in runs for name in run.records.names)
  if metrics and names and not any(run.records.curves for run in runs):
    raise ConfigError(
      f'--metrics={metrics.pattern!r} matches no metric of these runs: they '
      f'have {", ".join(names)}'
    )
  pictures = make_pictures(runs, num_images, data=data)
  with explain_disk_errors(to, option='--to'):
    to.parent.mkdir(parents=True, exist_ok=True)
    _write_page(to, runs, pictures)
  return [
    printable_text(f'{run.folder}: {problem}')
    for run in runs
    for problem in run.problems
  ]


def shortest_labels(paths: Sequence[pathlib.Path]) -> list[str]:
  """The shortest end of each path that no other path has.

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
    labels.append(str(pathlib.Path(*end)))
  return labels


def _check_target(to: pathlib.Path, *, overwrite: bool) -> None:
  """Makes sure that only an older comparison is overwritten."""
  if to.is_dir():
    raise WorkdirError(f'{to} is a folder: give an HTML file with --to')
  if overwrite or not to.exists():
    return
  with explain_disk_errors(to, option='--to'):
    is_comparison = is_page_of(to, 'compare')
  if not is_comparison:
    raise WorkdirError(
      f'{to} exists and was not written by this command: give another --to, '
      'or --overwrite'
    )


def _write_page(
  path: pathlib.Path, runs: Sequence[Run], pictures: Sequence[Pictures]
) -> None:
  """Writes the page whole, or not at all."""
  parts = {
    'legend': ''.join(legend(runs)),
    'problems': ''.join(problem_list(runs)),
    'options': ''.join(options_table(runs)),
    'scores': ''.join(scores_table(runs)),
    'pictures': ''.join(
      part for each in pictures for part in picture_table(each, runs)
    ),
    'pictures_hidden': '' if pictures else ' hidden',
    'cell_size': str(_cell_size(pictures)),
  }
  labels = [printable_text(run.label) for run in runs]
  curves = [
    (name, {'run': index}, curve)
    for index, run in enumerate(runs)
    for name, curve in run.records.curves.items()
  ]
  write_page(
    path,
    'comparison',
    parts,
    {'runs': labels, **chart_data(curves)},
    title=' · '.join(labels)
    if len(labels) < 5
    else f'{len(labels)} runs compared',
    status=_summary(runs, pictures),
    shared=['charts'],
    head=f'{_CONTENT_POLICY}\n',
    command='compare',
    package='compare',
  )


def _summary(runs: Sequence[Run], pictures: Sequence[Pictures]) -> str:
  num_curves = len({name for run in runs for name in run.records.curves})
  num_images = sum(len(each.names) for each in pictures)
  counts = [
    (len(runs), 'run'),
    (num_curves, 'curve'),
    (num_images, 'test image'),
  ]
  return ' · '.join(
    f'{count:,} {noun}{"" if count == 1 else "s"}' for count, noun in counts
  )


def _cell_size(pictures: Sequence[Pictures]) -> int:
  """Width of the pictures in CSS pixels; small ones are enlarged."""
  sides = [
    max(image.shape)
    for each in pictures
    for image in each.inputs
    if not isinstance(image, str)
  ]
  return 128 if max(sides, default=0) <= 128 else 192
