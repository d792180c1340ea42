"""A run as one page: its sample sheets over time, its curves, its config.

The page refers to the sheets beside it and to nothing else.
"""

import html
import re
import urllib.parse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from cyclegan_jax.report.html_page import (
  chart_data,
  write_page,
)
from cyclegan_jax.report.metric_history import (
  Curve,
  read_curves,
)
from cyclegan_jax.report.metric_writer import METRICS_FILE

SAMPLES_FOLDER = 'samples'
GALLERY_FILE = 'index.html'


class Sample(NamedTuple):
  """A sample sheet on disk."""

  step: int
  path: Path


def sample_path(workdir: Path, step: int) -> Path:
  """Where the sample sheet of a step lies, for `write_gallery` to find."""
  return workdir / SAMPLES_FOLDER / f'step_{step:08}.png'


def write_gallery(
  workdir: Path,
  *,
  title: str,
  facts: Mapping[str, str],
  config_text: str,
  step: int | None = None,
  total_steps: int | None = None,
) -> Path:
  """Writes `workdir/index.html` from the run's samples and metrics.

  Args:
    workdir: the run's folder, with samples/step_*.png and metrics.jsonl; both
      may be missing.
    title: the page's heading, as plain text like all that follows.
    facts: rows of a table, such as 'images': '400 + 400'.
    config_text: the config as it should be read.
    step: the number of steps done; what is of later ones, left by a run that
      was interrupted, is not shown. By default the last step on record.
    total_steps: steps in all, for the status line.

  Returns:
    The page's path.

  Raises:
    OSError: a file can't be read or written.
  """
  records = read_curves(workdir / METRICS_FILE, end_step=step)
  samples = find_samples(workdir)
  if step is None:
    step = max(records.last_step or 0, *(each.step for each in samples), 0)
  samples = [each for each in samples if each.step <= step]
  data = {
    'samples': [
      {'step': each.step, 'src': _url(workdir, each.path)} for each in samples
    ],
    **chart_data(_by_family(records.curves)),
  }
  rows = [
    f'<tr><th scope="row">{html.escape(name)}</th>'
    f'<td>{html.escape(text)}</td></tr>'
    for name, text in facts.items()
  ]
  last_sheet = ''
  if samples:
    source = html.escape(_url(workdir, samples[-1].path))
    last_sheet = f'<img src="{source}" alt="The last sample sheet">'
  parts = {
    'last_sheet': last_sheet,
    'facts': '\n'.join(rows),
    'config': html.escape(config_text),
  }
  path = workdir / GALLERY_FILE
  write_page(
    path,
    'run_page',
    parts,
    data,
    title=title,
    status=_status(step, total_steps, records.num_damaged),
    done=min(1.0, step / total_steps) if total_steps else None,
    shared=['charts'],
  )
  return path


def find_samples(workdir: Path) -> list[Sample]:
  """The sample sheets of a run, in the order of their steps."""
  found = []
  for path in (workdir / SAMPLES_FOLDER).glob('step_*.png'):
    if match := re.fullmatch(r'step_(\d+)\.png', path.name):
      found.append(Sample(int(match[1]), path))
  return sorted(found)


def _url(workdir: Path, path: Path) -> str:
  return urllib.parse.quote(path.relative_to(workdir).as_posix())


def _status(step: int, total_steps: int | None, num_damaged: int) -> str:
  parts = [f'step {step:,}' + (f' of {total_steps:,}' if total_steps else '')]
  if total_steps:
    percent = 100 * step // total_steps
    parts.append('finished' if step >= total_steps else f'{percent} %')
  if num_damaged:
    lines = 'line is' if num_damaged == 1 else 'lines are'
    parts.append(f'{num_damaged:,} {lines} damaged in {METRICS_FILE}')
  return ' · '.join(parts)


def _by_family(
  curves: Mapping[str, Curve],
) -> Iterable[tuple[str, dict[str, str], Curve]]:
  """One chart a prefix of the metrics' names, one curve a name."""
  for name, curve in curves.items():
    prefix, _, rest = name.partition('/')
    yield prefix, {'name': rest or prefix}, curve
