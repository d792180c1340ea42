"""The frame, styles and scripts that all pages share.

A page is one file: the styles and scripts in pages/ are copied into it, so
that it opens from a disk without a server and can be sent.
"""

import datetime
import html
import importlib.resources
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cyclegan_jax.report.metric_history import Curve
from cyclegan_jax.storage.atomic import replace_bytes


def write_page(
  path: Path,
  name: str,
  parts: Mapping[str, str],
  data: Any,
  *,
  title: str,
  status: str,
  done: float | None = None,
  shared: Sequence[str] = (),
  head: str = '',
  command: str,
  package: str = 'report',
) -> None:
  """Writes a page whole, or not at all.

  Args:
    path: of the HTML file.
    name: of pages/NAME.html, the content below the heading, in which {{part}}
      stands for a part; also of its .css and .js.
    parts: HTML by name. All pages also have `written`, the time.
    data: JSON for the page's script; without NaN.
    title: the heading, as plain text.
    status: the line below it, as plain text.
    done: share of a progress bar in [0, 1]; None for no bar.
    shared: names of report/pages/SHARED.{html,css,js} that the page contains;
      their HTML is a part by that name.
    head: HTML for the page's head.
    command: the command that writes it, by which `is_page_of` recognizes it.
    package: the subpackage whose pages/ has the page.

  Raises:
    OSError: the file cannot be written.
  """
  frame_parts = ['page', *shared]

  def join(ending: str) -> str:
    texts = [read_page_part(f'{part}.{ending}') for part in frame_parts]
    return ''.join([*texts, read_page_part(f'{name}.{ending}', package)])

  now = datetime.datetime.now().astimezone()
  body_parts = {
    **parts,
    **{part: read_page_part(f'{part}.html') for part in shared},
    'written': now.strftime('%Y-%m-%d %H:%M:%S %z'),
  }
  frame = {
    'head': f'{_mark(command)}\n{head}',
    'title': html.escape(title),
    'status': html.escape(status),
    'done_hidden': ' hidden' if done is None else '',
    'done_percent': f'{100 * (done or 0):.2f}',
    'style': join('css'),
    'body': fill(read_page_part(f'{name}.html', package), body_parts),
    'data': json_for_script(data),
    'script': join('js'),
  }
  text = fill(read_page_part('page.html'), frame)
  # A file name in no known encoding, from an old disk, shows as '?'.
  replace_bytes(path, text.encode('utf-8', 'replace'))


def is_page_of(path: Path, command: str) -> bool:
  """Whether a file is a page that the command wrote.

  Raises:
    OSError: the file cannot be read.
  """
  with path.open('rb') as file:
    return _mark(command).encode() in file.read(1024)


def _mark(command: str) -> str:
  return f'<meta name="generator" content="cyclegan {command}">'


def chart_data(
  curves: Iterable[tuple[str, Mapping[str, Any], Curve]],
) -> dict[str, Any]:
  """Curves for pages/charts.js, each list of steps once, in five digits.

  Args:
    curves: (name of the chart, facts that tell the curve from others in the
      chart, curve).
  """
  step_lists: dict[tuple[int, ...], int] = {}  # with their index
  charts: dict[str, list[dict[str, Any]]] = {}
  for name, facts, curve in curves:
    entry = {
      **facts,
      'x': step_lists.setdefault(tuple(curve.steps), len(step_lists)),
      'y': _rounded(curve.means),
      'last': _rounded([curve.last])[0],
    }
    if curve.lows != curve.means or curve.highs != curve.means:
      entry |= {'low': _rounded(curve.lows), 'high': _rounded(curve.highs)}
    if curve.not_finite:
      entry['not_finite'] = curve.not_finite
    charts.setdefault(name, []).append(entry)
  return {
    'steps': list(step_lists),
    'charts': [
      {'name': name, 'curves': entries} for name, entries in charts.items()
    ],
  }


def _rounded(values: Iterable[float | None]) -> list[float | None]:
  """Five digits of each value; None, a gap in the curve, if not finite."""
  return [
    None if x is None or not math.isfinite(x) else float(f'{x:.5g}')
    for x in values
  ]


def read_page_part(name: str, package: str = 'report') -> str:
  """The text of a file in the folder pages/ of a subpackage."""
  folder = importlib.resources.files(f'cyclegan_jax.{package}') / 'pages'
  return folder.joinpath(name).read_text(encoding='utf-8')


def fill(template: str, parts: Mapping[str, str]) -> str:
  """Puts parts where the template has {{part}}."""
  # One pass, so that braces in the parts stay as they are.
  return re.sub(r'\{\{(\w+)\}\}', lambda match: parts[match[1]], template)


def json_for_script(data: Any) -> str:
  """JSON in which no text can end the script element around it."""
  text = json.dumps(data, separators=(',', ':'), allow_nan=False)
  return text.replace('<', '\\u003c')  # dumps itself escapes non-ASCII
