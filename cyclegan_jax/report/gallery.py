"""A run as one page: its sample sheets over time, its curves, its config.

The page holds its own styles, script and numbers, refers to the sheets beside
it and to nothing else, so that it opens from a disk without a server.
"""

import html
import math
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cyclegan_jax.atomic import replace_bytes
from cyclegan_jax.report.page import compact, fill
from cyclegan_jax.report.writer import METRICS_FILE, read_metrics

SAMPLES_FOLDER = 'samples'
GALLERY_FILE = 'index.html'
_MAX_POINTS = 500  # of a curve: more than a screen shows


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
    step: the number of steps done; sheets of later steps, left by a run that
      was interrupted, are not shown. By default the last step on record.
    total_steps: steps in all, for the status line.

  Returns:
    The page's path.

  Raises:
    WorkdirError: metrics.jsonl is damaged.
  """
  records = read_metrics(workdir / METRICS_FILE)
  samples = find_samples(workdir)
  if step is None:
    known = [each.step for each in samples]
    step = max([*known, *(each['step'] for each in records)], default=0)
  samples = [each for each in samples if each.step <= step]
  data = {
    'samples': [
      {'step': each.step, 'src': _url(workdir, each.path)} for each in samples
    ],
    'charts': _make_charts(records),
  }
  done = min(1.0, step / total_steps) if total_steps else None
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
    'title': html.escape(title),
    'status': html.escape(_status(step, total_steps)),
    'done_hidden': ' hidden' if done is None else '',
    'done_percent': f'{100 * (done or 0):.2f}',
    'last_sheet': last_sheet,
    'facts': '\n'.join(rows),
    'config': html.escape(config_text),
  }
  path = workdir / GALLERY_FILE
  page = fill('gallery.html', parts, data)
  replace_bytes(path, page.encode('utf-8', 'replace'))
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


def _status(step: int, total_steps: int | None) -> str:
  if not total_steps:
    return f'step {step:,}'
  percent = 100 * step // total_steps
  state = 'finished' if step >= total_steps else f'{percent} %'
  return f'step {step:,} of {total_steps:,} · {state}'


def _make_charts(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
  """One chart a prefix of the metrics' names, one curve a name."""
  points: dict[str, list[tuple[int, float]]] = {}
  for record in records:
    for name, value in record.items():
      if name != 'step':
        points.setdefault(name, []).append((record['step'], value))
  charts: dict[str, list[dict[str, Any]]] = {}
  for name, curve in points.items():
    prefix, _, rest = name.partition('/')
    thin = _thin(curve, _MAX_POINTS)
    entry = {
      'name': rest or prefix,
      'x': [step for step, _ in thin],
      'y': [compact(value) for _, value in thin],
    }
    charts.setdefault(prefix, []).append(entry)
  return [{'name': name, 'curves': each} for name, each in charts.items()]


def _thin(
  points: Sequence[tuple[int, float]], limit: int
) -> Sequence[tuple[int, float]]:
  """At most `limit` of the points, with every peak and the two ends.

  Each stretch of the curve keeps its least and its largest value; one that is
  not finite counts as the largest, so that a loss that blew up is seen.
  """
  if len(points) <= limit:
    return points
  stretches = limit // 2 - 1
  kept = {0, len(points) - 1}
  for i in range(stretches):
    stretch = range(
      i * len(points) // stretches, (i + 1) * len(points) // stretches
    )
    kept.add(min(stretch, key=lambda j: _height(points[j][1])))
    kept.add(max(stretch, key=lambda j: _height(points[j][1])))
  return [points[j] for j in sorted(kept)]


def _height(value: float) -> float:
  return value if math.isfinite(value) else math.inf
